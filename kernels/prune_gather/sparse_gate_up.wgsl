// sparse_gated_mlp, few tokens, first half:  h[m,j] = silu(n[m,:] . Wg[j,:]) * (n[m,:] . Wu[j,:]) where token m selects
// neuron j, and 0 elsewhere; n = x or rms_norm(x), rounded to the activation type. Selected is
// |silu(n . Wg_j)| > threshold, NaN included, or what the token's list says.
//
// x  [M, d]  activations        Wg, Wu [F, d]  nn.Linear layout, w [d]  weights' type
// offsets [M + 1], neurons [total]  u32: neurons[offsets[m]] .. before neurons[offsets[m + 1]], ascending; or absent
// h  [M, F]  f32, without gaps, rounded to the activation type
//
// launch  M * ceil(F / 4), tokens fastest; a workgroup owns 4 neurons j for one token
// workgroup  THREADS invocations stride over d, eight elements at a time, or one where rows do not start on 16-byte words
// workgroup memory  subgroup variant: THREADS * 4 + 16 bytes; workgroup variant: THREADS * 64 + 16 bytes
// Rows of Wu that are not selected are not read, nor those of Wg where lists select. A row is summed by invocation in
// f32, then over the invocations in a fixed order. Offsets beyond the list are cut to it.

#variant reduce = subgroup workgroup
#variant load = vector scalar

override THREADS: u32 = 128u;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;

struct Parameters {
    hidden: u32,
    // Of this launch's part of the weights, and the first of it.
    neurons: u32,
    first_neuron: u32,
    tokens: u32,
    workgroups: u32,
    // Length of all lists.
    listed: u32,
    eps: f32,
    threshold: f32,
    // First element and elements between rows, from the start of each binding.
    x_start: u32,
    x_stride: u32,
    gate_start: u32,
    gate_stride: u32,
    up_start: u32,
    up_stride: u32,
    norm_start: u32,
    neurons_start: u32,
    offsets_start: u32,
    h_start: u32,
    h_stride: u32,
    has_norm: u32,
    has_lists: u32,
    round_each: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/threshold.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
#import shared/tensor_$load.wgsl tensor=x binding=1 dtype=ACTIVATION access=read
#import shared/tensor_$load.wgsl tensor=gate_weight binding=2 dtype=WEIGHT access=read
#import shared/tensor_$load.wgsl tensor=up_weight binding=3 dtype=WEIGHT access=read
#import shared/tensor_$load.wgsl tensor=norm_weight binding=4 dtype=WEIGHT access=read
@group(0) @binding(5) var<storage, read> neurons: array<u32>;
@group(0) @binding(6) var<storage, read> neuron_offsets: array<u32>;
@group(0) @binding(7) var<storage, read_write> h: array<f32>;
#import shared/reduce_$reduce.wgsl capacity=1u
#import prune_gather/sparse_lists.wgsl

// Which of four neurons the token's list has, a bit each.
fn listed_neurons(token: u32, neuron: u32) -> u32 {
    let list = list_of(token);
    let low = place_in(list, neuron);
    var selected = 0u;
    for (var i = low; i < min(low + 4u, list.end); i++) {
        let place = neurons[parameters.neurons_start + i] - neuron;
        if (place < 4u) {
            selected |= 1u << place;
        }
    }
    return selected;
}

// 1 / sqrt(mean(x^2) + eps).
fn norm_scale(x_row: u32, invocation: Invocation) -> f32 {
    var squares: array<vec4<f32>, 1>;
    for (var k = invocation.thread * CHUNK; k < parameters.hidden; k += THREADS * CHUNK) {
        let x = x_chunk(x_row + k);
        squares[0].x += dot_chunk(x, x);
    }
    reduce(squares, 1u, invocation);
    let mean_square = totals[0].x / f32(parameters.hidden);
    // The totals are about to be used again.
    workgroupBarrier();
    return 1.0 / sqrt(mean_square + parameters.eps);
}

fn n_chunk(x_row: u32, k: u32, scale: f32) -> Chunk {
    let x = x_chunk(x_row + k);
    if (parameters.has_norm != 0u) {
        return normalised(x, norm_weight_chunk(parameters.norm_start + k), scale, ACTIVATION);
    }
    return x;
}

@compute @workgroup_size(THREADS)
fn sparse_gate_up(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    invocation: Invocation,
) {
    let index = launch_index(workgroup, workgroups);
    if (index >= parameters.workgroups) {
        return;
    }
    let token = index % parameters.tokens;
    let first_row = index / parameters.tokens * 4u;
    let own = min(parameters.neurons - first_row, 4u);
    let x_row = parameters.x_start + token * parameters.x_stride;

    var selected = (1u << own) - 1u;
    if (parameters.has_lists != 0u) {
        selected &= listed_neurons(token, parameters.first_neuron + first_row);
    }
    var scale = 1.0;
    if (parameters.has_norm != 0u) {
        scale = norm_scale(x_row, invocation);
    }

    var gates: array<vec4<f32>, 1>;
    for (var k = invocation.thread * CHUNK; k < parameters.hidden; k += THREADS * CHUNK) {
        let n = n_chunk(x_row, k, scale);
        for (var r = 0u; r < 4u; r++) {
            if ((selected & (1u << r)) != 0u) {
                let at = parameters.gate_start + (first_row + r) * parameters.gate_stride + k;
                gates[0][r] += dot_chunk(gate_weight_chunk(at), n);
            }
        }
    }
    reduce(gates, 1u, invocation);
    let gate = totals[0];
    // The totals are about to be used again.
    workgroupBarrier();

    if (parameters.has_lists == 0u) {
        for (var r = 0u; r < 4u; r++) {
            if (!exceeds(gate[r], parameters.threshold)) {
                selected &= ~(1u << r);
            }
        }
    }
    var ups: array<vec4<f32>, 1>;
    if (selected != 0u) {
        for (var k = invocation.thread * CHUNK; k < parameters.hidden; k += THREADS * CHUNK) {
            let n = n_chunk(x_row, k, scale);
            for (var r = 0u; r < 4u; r++) {
                if ((selected & (1u << r)) != 0u) {
                    let at = parameters.up_start + (first_row + r) * parameters.up_stride + k;
                    ups[0][r] += dot_chunk(up_weight_chunk(at), n);
                }
            }
        }
    }
    reduce(ups, 1u, invocation);

    // One invocation for each neuron.
    let r = invocation.thread;
    if (r < own) {
        var value = 0.0;
        if ((selected & (1u << r)) != 0u) {
            value = gated(gate[r], totals[0][r], ACTIVATION, parameters.round_each != 0u);
        }
        h[parameters.h_start + token * parameters.h_stride + first_row + r] = rounded(value, ACTIVATION);
    }
}
