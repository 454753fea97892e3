// From one pruned block to the next in one dispatch:
//   residual_out[m,j] = residual[m,j] + y[m,i] where out_indices[i] = j, else residual[m,j]
//   gathered[m,i] = w[j] r[m,j] / sqrt(mean(r[m,:]^2) + eps),  j = in_indices[i],  r = residual_out rounded to the
//   activations' type
//
// residual  [M, d], y  [M, k]  activations        w  [d]  weights' type
// out_indices  [k]  u32, ascending        in_indices  [k']  u32
// out_rank  [d]  i32: j's place in out_indices or -1; absent: found by binary search
// residual_out  [M, d]  activations' type or f32        gathered  [M, k']  f32, f16 or bf16
//
// launch  M; a workgroup owns a token
// workgroup  THREADS invocations stride over d, then over the words of both outputs
// staged  the rounded row stays in workgroup memory: ROW * 4 bytes, and THREADS * 64 + 16 at most for the sum
// computed  it is computed again each time it is wanted
// Sums and statistics have the order of scatter_add and gather_norm: one dispatch gives the bits of the two.
// The scope: see norm_scope.wgsl. A place or an index out of range adds nothing and gives 0.

#variant reduce = subgroup workgroup
#variant row = staged computed

override THREADS: u32 = 128u;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;
// d, or more, where the row is staged.
override ROW: u32 = 1u;

struct Parameters {
    features: u32,
    out_selected: u32,
    in_selected: u32,
    tokens: u32,
    // Words that a row of each output touches.
    residual_out_units: u32,
    gathered_units: u32,
    eps: f32,
    // First element and elements between rows, from the start of each binding.
    residual_start: u32,
    residual_stride: u32,
    y_start: u32,
    y_stride: u32,
    out_indices_start: u32,
    out_rank_start: u32,
    norm_start: u32,
    in_indices_start: u32,
    residual_out_start: u32,
    residual_out_stride: u32,
    gathered_start: u32,
    gathered_stride: u32,
    residual_out_dtype: u32,
    gathered_dtype: u32,
    has_rank: u32,
    scope: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_element.wgsl tensor=residual binding=1 dtype=ACTIVATION access=read
#import shared/tensor_element.wgsl tensor=y binding=2 dtype=ACTIVATION access=read
@group(0) @binding(3) var<storage, read> out_indices: array<u32>;
@group(0) @binding(4) var<storage, read> out_rank: array<i32>;
#import shared/tensor_element.wgsl tensor=norm_weight binding=5 dtype=WEIGHT access=read
@group(0) @binding(6) var<storage, read> in_indices: array<u32>;
#import shared/output.wgsl tensor=residual_out binding=7 dtype=parameters.residual_out_dtype
#import shared/output_row.wgsl tensor=residual_out dtype=parameters.residual_out_dtype
#import shared/output.wgsl tensor=gathered binding=8 dtype=parameters.gathered_dtype
#import shared/output_row.wgsl tensor=gathered dtype=parameters.gathered_dtype
#import shared/reduce_$reduce.wgsl capacity=1u
#import prune_gather/scatter.wgsl indices=out_indices rank=out_rank count=out_selected
#import prune_gather/norm_scope.wgsl
#import prune_gather/row_$row.wgsl

var<private> scale: f32;

// residual + scatter(y), not rounded.
fn sum_at(row: u32, column: u32) -> f32 {
    var value = residual_at(parameters.residual_start + row * parameters.residual_stride + column);
    let place = place_of(column);
    if (place != NOWHERE) {
        value += y_at(parameters.y_start + row * parameters.y_stride + place);
    }
    return value;
}

fn residual_out_bits(row: u32, column: u32) -> u32 {
    if (parameters.residual_out_dtype == ACTIVATION) {
        return bits_of(updated(row, column), parameters.residual_out_dtype);
    }
    return bits_of(sum_at(row, column), parameters.residual_out_dtype);
}

fn gathered_bits(row: u32, column: u32) -> u32 {
    let j = in_indices[parameters.in_indices_start + column];
    if (j >= parameters.features) {
        return 0u;
    }
    let weight = norm_weight_at(parameters.norm_start + j);
    return bits_of(updated(row, j) * weight * scale, parameters.gathered_dtype);
}

@compute @workgroup_size(THREADS)
fn scatter_norm_gather(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    invocation: Invocation,
) {
    let token = launch_index(workgroup, workgroups);
    if (token >= parameters.tokens) {
        return;
    }
    var squares: array<vec4<f32>, 1>;
    for (var k = invocation.thread; k < parameters.features; k += THREADS) {
        let value = rounded(sum_at(token, k), ACTIVATION);
        keep(k, value);
        if (parameters.scope == SCOPE_FULL) {
            squares[0].x += value * value;
        }
    }
    workgroupBarrier();
    if (parameters.scope != SCOPE_FULL) {
        for (var i = invocation.thread; i < parameters.in_selected; i += THREADS) {
            let j = in_indices[parameters.in_indices_start + i];
            if (j < parameters.features) {
                let value = updated(token, j);
                squares[0].x += value * value;
            }
        }
    }
    reduce(squares, 1u, invocation);
    let mean_square =
        totals[0].x / norm_divisor(parameters.scope, parameters.features, parameters.in_selected);
    scale = 1.0 / sqrt(mean_square + parameters.eps);

    let residual_out_row = parameters.residual_out_start + token * parameters.residual_out_stride;
    for (var unit = invocation.thread; unit < parameters.residual_out_units; unit += THREADS) {
        residual_out_write_unit(token, residual_out_row, parameters.features, unit);
    }
    let gathered_row = parameters.gathered_start + token * parameters.gathered_stride;
    for (var unit = invocation.thread; unit < parameters.gathered_units; unit += THREADS) {
        gathered_write_unit(token, gathered_row, parameters.in_selected, unit);
    }
}
