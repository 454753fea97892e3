// A unit of silu_mul: one word of the output.

#import shared/output.wgsl tensor=out binding=3 dtype=OUT
#import shared/output_row.wgsl tensor=out dtype=OUT

fn out_bits(row: u32, column: u32) -> u32 {
    let gate = gate_at(parameters.gate_start + row * parameters.gate_stride + column);
    let up = up_at(parameters.up_start + row * parameters.up_stride + column);
    return bits_of(silu_times(gate, up), OUT);
}

fn write_unit(row: u32, unit: u32) {
    let start = parameters.out_start + row * parameters.out_stride;
    out_write_unit(row, start, parameters.columns, unit);
}
