// The norm ahead of the tiled MLP:  n[m,k] = w[k] x[m,k] / sqrt(mean(x[m,:]^2) + eps)
//
// x  [M, H]  activations        w [H]  weights' type
// n  [M, H]  f32, without gaps, rounded to the activation type
//
// launch  M; a workgroup owns a token
// workgroup  THREADS invocations stride over H
// workgroup memory  THREADS * 64 + 16 bytes at most
// Squares are summed by invocation in f32, then over the invocations in a fixed order.

#variant reduce = subgroup workgroup

override THREADS: u32 = 128u;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;

struct Parameters {
    hidden: u32,
    tokens: u32,
    eps: f32,
    // First element and elements between rows, from the start of each binding.
    x_start: u32,
    x_stride: u32,
    norm_start: u32,
    n_start: u32,
    n_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_element.wgsl tensor=x binding=1 dtype=ACTIVATION access=read
#import shared/tensor_element.wgsl tensor=norm_weight binding=2 dtype=WEIGHT access=read
@group(0) @binding(3) var<storage, read_write> n: array<f32>;
#import shared/reduce_$reduce.wgsl capacity=1u

@compute @workgroup_size(THREADS)
fn rms_norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    invocation: Invocation,
) {
    let token = launch_index(workgroup, workgroups);
    if (token >= parameters.tokens) {
        return;
    }
    let x_row = parameters.x_start + token * parameters.x_stride;
    let n_row = parameters.n_start + token * parameters.n_stride;

    var squares: array<vec4<f32>, 1>;
    for (var k = invocation.thread; k < parameters.hidden; k += THREADS) {
        let value = x_at(x_row + k);
        squares[0].x += value * value;
    }
    reduce(squares, 1u, invocation);
    let mean_square = totals[0].x / f32(parameters.hidden);
    let scale = 1.0 / sqrt(mean_square + parameters.eps);

    for (var k = invocation.thread; k < parameters.hidden; k += THREADS) {
        let value = x_at(x_row + k) * norm_weight_at(parameters.norm_start + k) * scale;
        n[n_row + k] = rounded(value, ACTIVATION);
    }
}
