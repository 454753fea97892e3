// out[r,c] = x[rows[r], columns[c]]; zeros from column `selected` on
//
// x  [R, C]  f32, f16 or bf16        rows, columns  u32; absent, all of them in order
// out  [r, c or more]  f32, f16 or bf16: bits are copied where the types are equal, else rounded once
//
// launch  ceil(r * words of a row of out / THREADS); an invocation owns one word of the output: one f32, or two
//         halves of which one may lie outside the row
// An index that is not below R or C gives 0.

override THREADS: u32 = 128u;
override INPUT: u32 = 0u;
override OUT: u32 = 0u;

struct Parameters {
    // Of x, as far as it is bound.
    x_rows: u32,
    x_columns: u32,
    rows: u32,
    selected: u32,
    columns: u32,
    // Invocations a row.
    units: u32,
    // First element and elements between rows, from the start of each binding.
    x_start: u32,
    x_stride: u32,
    rows_start: u32,
    columns_start: u32,
    out_start: u32,
    out_stride: u32,
    has_rows: u32,
    has_columns: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> row_indices: array<u32>;
@group(0) @binding(3) var<storage, read> column_indices: array<u32>;
#import shared/output.wgsl tensor=out binding=4 dtype=OUT
#import shared/output_row.wgsl tensor=out dtype=OUT

fn out_bits(row: u32, column: u32) -> u32 {
    if (column >= parameters.selected) {
        return 0u;
    }
    var from_row = row;
    if (parameters.has_rows != 0u) {
        from_row = row_indices[parameters.rows_start + row];
    }
    var from_column = column;
    if (parameters.has_columns != 0u) {
        from_column = column_indices[parameters.columns_start + column];
    }
    if (from_row >= parameters.x_rows || from_column >= parameters.x_columns) {
        return 0u;
    }
    let at = parameters.x_start + from_row * parameters.x_stride + from_column;
    var bits = 0u;
    var value = 0.0;
    if (INPUT == F32) {
        bits = x[at];
        value = bitcast<f32>(bits);
    } else {
        bits = (x[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu;
        value = widen_pair(bits, INPUT).x;
    }
    if (INPUT == OUT) {
        return bits;
    }
    return bits_of(value, OUT);
}

@compute @workgroup_size(THREADS)
fn gather_plain(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups) * THREADS + thread;
    let row = index / parameters.units;
    if (row < parameters.rows) {
        let start = parameters.out_start + row * parameters.out_stride;
        out_write_unit(row, start, parameters.columns, index % parameters.units);
    }
}
