// A unit of silu_mul: one word of the output.

#import shared/output.wgsl tensor=out binding=3 dtype=OUT

fn element(row: u32, column: u32) -> f32 {
    let gate = gate_at(parameters.gate_start + row * parameters.gate_stride + column);
    let up = up_at(parameters.up_start + row * parameters.up_stride + column);
    return silu_times(gate, up);
}

fn write_unit(row: u32, unit: u32) {
    let start = parameters.out_start + row * parameters.out_stride;
    // Units are words, counted from the one that holds the row's first element: where that is the upper
    // half, all others come one element earlier.
    var column = unit;
    if (OUT != F32) {
        let odd = start & 1u;
        column = max(unit * 2u, odd) - odd;
        if (unit == 0u && odd == 1u) {
            // Only the upper half belongs to the row; the pair that follows is the next unit's.
            out_store(start, element(row, 0u), 0.0, false);
            return;
        }
    }
    if (column < parameters.columns) {
        let pair = out_is_pair(start + column, parameters.columns - column);
        let next = min(column + 1u, parameters.columns - 1u);
        out_store(start + column, element(row, column), element(row, next), pair);
    }
}
