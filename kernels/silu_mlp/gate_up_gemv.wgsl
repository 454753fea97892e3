// MLP for few tokens, first half:
//   gated  h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f]) * (n[m,:] . Wu[f,:] + bu[f])
//   plain  h[m,f] = silu(n[m,:] . Wu[f,:] + bu[f])
// with n = x, or n[m,k] = w[k] x[m,k] / sqrt(mean(x[m,:]^2) + eps) rounded to the activation type, of the features that
// indices name; the mean may be over these alone
//
// x  [M, H]  activations        Wg, Wu [F, I]  nn.Linear layout        bg, bu [F], w [H]  weights' type
// indices [I]  u32 or absent, then I = H; an index that is out of range selects a zero
// h  [M, F]  f32, without gaps, rounded to the activation type
//
// launch  ceil(M / TOKENS) * ceil(F / 4), of F / 8 if plain, token groups fastest; a workgroup owns two panels of four
//         rows and TOKENS tokens, so that a weight is read once for all of them; the panels are the same rows f of Wg
//         and Wu, or, if plain, neighbours of Wu, which is bound as both
// workgroup  THREADS invocations stride over I, eight elements at a time, or one where rows do not start on
//            16-byte words
// workgroup memory  subgroup variant: THREADS * 64 + 256 bytes; workgroup variant: THREADS * 64 + 256 bytes
// A row is summed by invocation in f32, then over the invocations in a fixed order. The sums of a token do
// not depend on the other tokens.

#variant reduce = subgroup workgroup
#variant load = vector scalar

override THREADS: u32 = 128u;
override TOKENS: u32 = 1u; // at most 8
// The only switch that is not a parameter: what gathers is half of such a pipeline, and dense blocks never need it.
override GATHER: bool = false;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;

struct Parameters {
    hidden: u32,
    inputs: u32,
    neurons: u32,
    tokens: u32,
    token_groups: u32,
    workgroups: u32,
    norm_divisor: u32,
    eps: f32,
    // First element and elements between rows, from the start of each binding.
    x_start: u32,
    x_stride: u32,
    gate_start: u32,
    gate_stride: u32,
    up_start: u32,
    up_stride: u32,
    h_start: u32,
    h_stride: u32,
    norm_start: u32,
    in_indices_start: u32,
    gate_bias_start: u32,
    up_bias_start: u32,
    is_gated: u32,
    has_norm: u32,
    norms_selection: u32,
    has_gate_bias: u32,
    has_up_bias: u32,
    round_each: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
#import shared/tensor_$load.wgsl tensor=x binding=1 dtype=ACTIVATION access=read
#import shared/tensor_$load.wgsl tensor=gate_weight binding=2 dtype=WEIGHT access=read
#import shared/tensor_$load.wgsl tensor=up_weight binding=3 dtype=WEIGHT access=read
#import shared/tensor_$load.wgsl tensor=norm_weight binding=4 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=gate_bias binding=5 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=up_bias binding=6 dtype=WEIGHT access=read
@group(0) @binding(7) var<storage, read> in_indices: array<u32>;
@group(0) @binding(8) var<storage, read_write> h: array<f32>;
#import shared/features_$load.wgsl
#import shared/gather_$load.wgsl tensor=x dtype=ACTIVATION
#import shared/gather_$load.wgsl tensor=norm_weight dtype=WEIGHT
#import shared/reduce_$reduce.wgsl capacity=16u

// The first element of a token's row of x; behind the last token, of the last.
fn x_row(token: u32) -> u32 {
    return parameters.x_start + min(token, parameters.tokens - 1u) * parameters.x_stride;
}

// 1 / sqrt(mean(x^2) + eps) of each token.
fn norm_scales(first_token: u32, invocation: Invocation) -> array<f32, 8> {
    let selected = GATHER && parameters.norms_selection != 0u;
    let columns = select(parameters.hidden, parameters.inputs, selected);
    var squares: array<vec4<f32>, 16>;
    for (var k = invocation.thread * CHUNK; k < columns; k += THREADS * CHUNK) {
        var features: Features;
        if (selected) {
            features = features_at(k);
        }
        for (var m = 0u; m < TOKENS; m++) {
            var x: Chunk;
            if (selected) {
                x = x_gather(x_row(first_token + m), features);
            } else {
                x = x_chunk(x_row(first_token + m) + k);
            }
            squares[m / 4u][m % 4u] += dot_chunk(x, x);
        }
    }
    reduce(squares, (TOKENS + 3u) / 4u, invocation);
    var scales: array<f32, 8>;
    for (var m = 0u; m < TOKENS; m++) {
        let mean_square = totals[m / 4u][m % 4u] / f32(parameters.norm_divisor);
        scales[m] = 1.0 / sqrt(mean_square + parameters.eps);
    }
    // The totals are about to be used again.
    workgroupBarrier();
    return scales;
}

// One token's products with four rows.
fn products(rows: array<Chunk, 4>, n: Chunk) -> vec4<f32> {
    return vec4(
        dot_chunk(rows[0], n),
        dot_chunk(rows[1], n),
        dot_chunk(rows[2], n),
        dot_chunk(rows[3], n),
    );
}

@compute @workgroup_size(THREADS)
fn gate_up_gemv(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    invocation: Invocation,
) {
    let index = launch_index(workgroup, workgroups);
    if (index >= parameters.workgroups) {
        return;
    }
    let is_gated = parameters.is_gated != 0u;
    let first_token = index % parameters.token_groups * TOKENS;
    let first_gate = index / parameters.token_groups * select(8u, 4u, is_gated);
    let first_up = first_gate + select(4u, 0u, is_gated);

    var scales: array<f32, 8>;
    if (parameters.has_norm != 0u) {
        scales = norm_scales(first_token, invocation);
    }

    // Gate sums of token m at 2 m, up sums at 2 m + 1.
    var sums: array<vec4<f32>, 16>;
    for (var k = invocation.thread * CHUNK; k < parameters.inputs; k += THREADS * CHUNK) {
        var gate: array<Chunk, 4>;
        var up: array<Chunk, 4>;
        for (var r = 0u; r < 4u; r++) {
            let gate_row = min(first_gate + r, parameters.neurons - 1u);
            let up_row = min(first_up + r, parameters.neurons - 1u);
            gate[r] = gate_weight_chunk(parameters.gate_start + gate_row * parameters.gate_stride + k);
            up[r] = up_weight_chunk(parameters.up_start + up_row * parameters.up_stride + k);
        }
        var features: Features;
        if (GATHER) {
            features = features_at(k);
        }
        var weight: Chunk;
        if (parameters.has_norm != 0u) {
            if (GATHER) {
                weight = norm_weight_gather(parameters.norm_start, features);
            } else {
                weight = norm_weight_chunk(parameters.norm_start + k);
            }
        }
        for (var m = 0u; m < TOKENS; m++) {
            var n: Chunk;
            if (GATHER) {
                n = x_gather(x_row(first_token + m), features);
            } else {
                n = x_chunk(x_row(first_token + m) + k);
            }
            if (parameters.has_norm != 0u) {
                n = normalised(n, weight, scales[m], ACTIVATION);
            }
            sums[2u * m] += products(gate, n);
            sums[2u * m + 1u] += products(up, n);
        }
    }
    reduce(sums, 2u * TOKENS, invocation);

    // One invocation for each token and neuron.
    let neurons = first_up + 4u - first_gate;
    for (var task = invocation.thread; task < TOKENS * neurons; task += THREADS) {
        let m = task / neurons;
        let r = task % neurons;
        let token = first_token + m;
        let neuron = first_gate + r;
        if (token < parameters.tokens && neuron < parameters.neurons) {
            // Panel 1 of a gated MLP, whichever the neuron is in otherwise.
            var up = totals[2u * m + select(r / 4u, 1u, is_gated)][r % 4u];
            if (parameters.has_up_bias != 0u) {
                up += up_bias_at(parameters.up_bias_start + neuron);
            }
            var value: f32;
            if (is_gated) {
                var gate = totals[2u * m][r];
                if (parameters.has_gate_bias != 0u) {
                    gate += gate_bias_at(parameters.gate_bias_start + neuron);
                }
                value = gated(gate, up, ACTIVATION, parameters.round_each != 0u);
            } else {
                value = plain(up, ACTIVATION, parameters.round_each != 0u);
            }
            h[parameters.h_start + token * parameters.h_stride + neuron] = rounded(value, ACTIVATION);
        }
    }
}
