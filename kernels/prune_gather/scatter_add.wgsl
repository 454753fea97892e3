// out[m,j] = residual[m,j] + y[m,i] where indices[i] = j, else residual[m,j]
//
// residual  [M, d], y  [M, k]  equal types        indices  [k]  u32, ascending
// rank  [d]  i32: j's place in indices or -1; absent: found by binary search
// out  [M, d]  f32, f16 or bf16
//
// launch  ceil(M * words of a row of out / THREADS); an invocation owns one word of the output: one f32, or two
//         halves of which one may lie outside the row
// The sum is in f32, rounded once. A place that is not below k adds nothing.

override THREADS: u32 = 128u;
override INPUT: u32 = 0u;

struct Parameters {
    features: u32,
    selected: u32,
    rows: u32,
    // Invocations a row.
    units: u32,
    // First element and elements between rows, from the start of each binding.
    residual_start: u32,
    residual_stride: u32,
    y_start: u32,
    y_stride: u32,
    indices_start: u32,
    rank_start: u32,
    out_start: u32,
    out_stride: u32,
    out_dtype: u32,
    has_rank: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_element.wgsl tensor=residual binding=1 dtype=INPUT access=read
#import shared/tensor_element.wgsl tensor=y binding=2 dtype=INPUT access=read
@group(0) @binding(3) var<storage, read> indices: array<u32>;
@group(0) @binding(4) var<storage, read> rank: array<i32>;
#import shared/output.wgsl tensor=out binding=5 dtype=parameters.out_dtype
#import shared/output_row.wgsl tensor=out dtype=parameters.out_dtype
#import prune_gather/scatter.wgsl indices=indices rank=rank count=selected

fn out_bits(row: u32, column: u32) -> u32 {
    var value = residual_at(parameters.residual_start + row * parameters.residual_stride + column);
    let place = place_of(column);
    if (place != NOWHERE) {
        value += y_at(parameters.y_start + row * parameters.y_stride + place);
    }
    return bits_of(value, parameters.out_dtype);
}

@compute @workgroup_size(THREADS)
fn scatter_add(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups) * THREADS + thread;
    let row = index / parameters.units;
    if (row < parameters.rows) {
        let start = parameters.out_start + row * parameters.out_stride;
        out_write_unit(row, start, parameters.features, index % parameters.units);
    }
}
