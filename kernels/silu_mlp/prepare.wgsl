// What comes ahead of tiles and of linear layers:  n[m,i] = mask[j] * w[j] * x[m,j] / sqrt(s + eps)
// with j = indices[i], or i where nothing is selected; s = mean_j(x[m,:]^2), or of the selected features alone.
// Mask, norm (w and the root) and selection are optional.
//
// x  [M, H]  activations        w [H]  weights' type        mask [H]  f32        indices [I]  u32
// n  [M, I]  f32, without gaps, rounded to the activation type
//
// launch  M; a workgroup owns a token
// workgroup  THREADS invocations stride over H, then over I
// workgroup memory  THREADS * 64 + 16 bytes at most
// Squares are summed by invocation in f32, then over the invocations in a fixed order. An index that is out of range
// selects a zero.

#variant reduce = subgroup workgroup

override THREADS: u32 = 128u;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;

struct Parameters {
    hidden: u32,
    inputs: u32,
    tokens: u32,
    norm_divisor: u32,
    eps: f32,
    // First element and elements between rows, from the start of each binding.
    x_start: u32,
    x_stride: u32,
    norm_start: u32,
    in_indices_start: u32,
    in_mask_start: u32,
    n_start: u32,
    n_stride: u32,
    has_norm: u32,
    has_mask: u32,
    gathers: u32,
    norms_selection: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_element.wgsl tensor=x binding=1 dtype=ACTIVATION access=read
#import shared/tensor_element.wgsl tensor=norm_weight binding=2 dtype=WEIGHT access=read
@group(0) @binding(3) var<storage, read> in_indices: array<u32>;
@group(0) @binding(4) var<storage, read> in_mask: array<f32>;
@group(0) @binding(5) var<storage, read_write> n: array<f32>;
#import shared/reduce_$reduce.wgsl capacity=1u

// The feature that column k of n stands for; behind the last one where an index is out of range.
fn feature(k: u32) -> u32 {
    if (parameters.gathers != 0u) {
        return min(in_indices[parameters.in_indices_start + k], parameters.hidden);
    }
    return k;
}

@compute @workgroup_size(THREADS)
fn prepare(
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

    var scale = 1.0;
    if (parameters.has_norm != 0u) {
        var squares: array<vec4<f32>, 1>;
        let selected = parameters.norms_selection != 0u;
        let columns = select(parameters.hidden, parameters.inputs, selected);
        for (var k = invocation.thread; k < columns; k += THREADS) {
            var j = k;
            if (selected) {
                j = feature(k);
            }
            if (j < parameters.hidden) {
                let value = x_at(x_row + j);
                squares[0].x += value * value;
            }
        }
        reduce(squares, 1u, invocation);
        scale = 1.0 / sqrt(totals[0].x / f32(parameters.norm_divisor) + parameters.eps);
    }

    for (var k = invocation.thread; k < parameters.inputs; k += THREADS) {
        let j = feature(k);
        var value = 0.0;
        if (j < parameters.hidden) {
            value = x_at(x_row + j);
            if (parameters.has_norm != 0u) {
                value = value * norm_weight_at(parameters.norm_start + j) * scale;
            }
            if (parameters.has_mask != 0u) {
                value *= in_mask[parameters.in_mask_start + j];
            }
        }
        n[n_row + k] = rounded(value, ACTIVATION);
    }
}
