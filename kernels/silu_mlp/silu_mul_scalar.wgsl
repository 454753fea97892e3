// A unit of silu_mul: one word of the output.

#import shared/output.wgsl tensor=out binding=3 dtype=OUT

fn element(row: u32, column: u32) -> f32 {
    let gate = gate_at(parameters.gate_start + row * parameters.gate_stride + column);
    let up = up_at(parameters.up_start + row * parameters.up_stride + column);
    return silu_times(gate, up);
}

fn write_unit(row: u32, unit: u32) {
    let start = parameters.out_start + row * parameters.out_stride;
    if (OUT == F32) {
        out_store(start + unit, element(row, unit));
        return;
    }
    // Units are counted in words from the one that holds the row's first element.
    let odd = start & 1u;
    let first = unit * 2u;
    let has_low = first >= odd && first - odd < parameters.columns;
    let has_high = first + 1u - odd < parameters.columns;
    if (has_low && has_high) {
        out_store_pair(start + first - odd, element(row, first - odd), element(row, first + 1u - odd));
    } else if (has_low) {
        out_store(start + first - odd, element(row, first - odd));
    } else if (has_high) {
        out_store(start + first + 1u - odd, element(row, first + 1u - odd));
    }
}
