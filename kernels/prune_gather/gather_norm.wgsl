// out[m,i] = w[j] x[m,j] / sqrt(mean(x[m,:]^2) + eps),  j = indices[i]
//
// x  [M, d]  activations      w  [d]  weights' type      indices  [k]  u32
// out  [M, k]  f32, f16 or bf16, rounded once
//
// launch  M; a workgroup owns a token
// workgroup  THREADS invocations stride over d, then over the words of the output
// workgroup memory  THREADS * 64 + 16 bytes at most
// Squares are summed by invocation in f32, then over the invocations in a fixed order: over all features that of
// silu_mlp/prepare.wgsl, so that selecting all of them gives its bits. The scope: see norm_scope.wgsl.
// An index that is not below d gives 0.

#variant reduce = subgroup workgroup

override THREADS: u32 = 128u;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;

struct Parameters {
    features: u32,
    selected: u32,
    tokens: u32,
    // Words of the output that a row touches.
    units: u32,
    eps: f32,
    // First element and elements between rows, from the start of each binding.
    x_start: u32,
    x_stride: u32,
    norm_start: u32,
    indices_start: u32,
    out_start: u32,
    out_stride: u32,
    out_dtype: u32,
    scope: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_element.wgsl tensor=x binding=1 dtype=ACTIVATION access=read
#import shared/tensor_element.wgsl tensor=norm_weight binding=2 dtype=WEIGHT access=read
@group(0) @binding(3) var<storage, read> indices: array<u32>;
#import shared/output.wgsl tensor=out binding=4 dtype=parameters.out_dtype
#import shared/output_row.wgsl tensor=out dtype=parameters.out_dtype
#import shared/reduce_$reduce.wgsl capacity=1u
#import prune_gather/norm_scope.wgsl

var<private> scale: f32;

fn out_bits(row: u32, column: u32) -> u32 {
    let j = indices[parameters.indices_start + column];
    if (j >= parameters.features) {
        return 0u;
    }
    let x = x_at(parameters.x_start + row * parameters.x_stride + j);
    return bits_of(x * norm_weight_at(parameters.norm_start + j) * scale, parameters.out_dtype);
}

@compute @workgroup_size(THREADS)
fn gather_norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    invocation: Invocation,
) {
    let token = launch_index(workgroup, workgroups);
    if (token >= parameters.tokens) {
        return;
    }
    let x_row = parameters.x_start + token * parameters.x_stride;

    var squares: array<vec4<f32>, 1>;
    if (parameters.scope == SCOPE_FULL) {
        for (var k = invocation.thread; k < parameters.features; k += THREADS) {
            let value = x_at(x_row + k);
            squares[0].x += value * value;
        }
    } else {
        for (var i = invocation.thread; i < parameters.selected; i += THREADS) {
            let j = indices[parameters.indices_start + i];
            if (j < parameters.features) {
                let value = x_at(x_row + j);
                squares[0].x += value * value;
            }
        }
    }
    reduce(squares, 1u, invocation);
    let mean_square = totals[0].x / norm_divisor(parameters.scope, parameters.features, parameters.selected);
    scale = 1.0 / sqrt(mean_square + parameters.eps);

    let out_row = parameters.out_start + token * parameters.out_stride;
    for (var unit = invocation.thread; unit < parameters.units; unit += THREADS) {
        out_write_unit(token, out_row, parameters.selected, unit);
    }
}
