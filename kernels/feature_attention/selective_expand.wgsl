// selective_expand: the selected branches, back to all features
//   out[b,t,:] = W (sum_i w[b,i,:] * o[b,t,i,:]) + bias     for t < length[b], 0 behind
//
// states o  [B, L, N, d1] f32      weights w  [B, N, d1] f32      W  [D, d1], bias  [D]  one dtype, bias optional
// lengths  [B]  i32, optional      out  [B, L, D]  f32, f16 or bf16, batch and token strides
//
// launch  ceil(B L / (4 THREADS_M)) * ceil(D / (4 THREADS_N)), tokens fastest, so that neighbours share weights
// workgroup  THREADS_N x THREADS_M invocations, each 4 tokens by 4 rows of W; DEPTH channels at a time
// workgroup memory  DEPTH * (THREADS_M + THREADS_N) * 16 + 4 bytes
// The sum over the branches is made where the tile is loaded, in order; the product is summed over d1 in f32, in order:
// a token's bits are its own. A tile without a valid token is filled with zeros. One rounding, to the output's type.

override THREADS_M: u32 = 8u;
override THREADS_N: u32 = 8u;
override DEPTH: u32 = 16u;
override WEIGHT: u32 = 0u;
override OUT: u32 = 0u;

struct Parameters {
    // Texts in this launch.
    texts: u32,
    tokens: u32,
    reduced: u32,
    branches: u32,
    features: u32,
    token_tiles: u32,
    workgroups: u32,
    has_bias: u32,
    has_lengths: u32,
    // First element and elements between rows, from the start of each binding.
    states_start: u32,
    weights_start: u32,
    weight_start: u32,
    weight_stride: u32,
    bias_start: u32,
    lengths_start: u32,
    out_start: u32,
    out_text_stride: u32,
    out_token_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
@group(0) @binding(1) var<storage, read> states: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
#import shared/tensor_element.wgsl tensor=weight binding=3 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=bias binding=4 dtype=WEIGHT access=read
@group(0) @binding(5) var<storage, read> lengths: array<i32>;
#import shared/output.wgsl tensor=out binding=6 dtype=OUT

var<workgroup> selected_tile: array<vec4<f32>, DEPTH * THREADS_M>;
var<workgroup> weight_tile: array<vec4<f32>, DEPTH * THREADS_N>;
var<workgroup> is_needed: u32;

fn text_length(text: u32) -> u32 {
    if (parameters.has_lengths == 0u) {
        return parameters.tokens;
    }
    return min(u32(max(lengths[parameters.lengths_start + text], 0)), parameters.tokens);
}

fn is_valid(token: u32) -> bool {
    return token % parameters.tokens < text_length(token / parameters.tokens);
}

fn has_valid_token(first: u32) -> bool {
    let end = min(first + 4u * THREADS_M, parameters.texts * parameters.tokens);
    for (var token = first; token < end; token++) {
        if (is_valid(token)) {
            return true;
        }
    }
    return false;
}

// Channels are counted through all tokens. Behind the last token, the last.
fn selected_row(token: u32) -> u32 {
    return min(token, parameters.texts * parameters.tokens - 1u) * parameters.reduced;
}

fn selected_at(at: u32) -> f32 {
    let token = at / parameters.reduced;
    let channel = at % parameters.reduced;
    let row = parameters.branches * parameters.reduced;
    let state = parameters.states_start + token * row + channel;
    let weight = parameters.weights_start + token / parameters.tokens * row + channel;
    var sum = 0.0;
    for (var branch = 0u; branch < row; branch += parameters.reduced) {
        sum += weights[weight + branch] * states[state + branch];
    }
    return sum;
}

fn weight_row(row: u32) -> u32 {
    return parameters.weight_start + min(row, parameters.features - 1u) * parameters.weight_stride;
}

#import shared/stage_scalar.wgsl tensor=selected tile=selected_tile first=0u threads=THREADS_M
#import shared/stage_scalar.wgsl tensor=weight tile=weight_tile first=0u threads=THREADS_N

// The four columns of a token from `column` on.
fn store_token(token: u32, column: u32, sum: vec4<f32>) {
    let count = min(parameters.features - min(column, parameters.features), 4u);
    let start = parameters.out_start + token / parameters.tokens * parameters.out_text_stride
        + token % parameters.tokens * parameters.out_token_stride + column;
    var values = vec4(0.0);
    if (is_valid(token)) {
        values = sum;
        if (parameters.has_bias != 0u) {
            for (var i = 0u; i < count; i++) {
                values[i] += bias_at(parameters.bias_start + column + i);
            }
        }
    }
    var i = 0u;
    while (i < count) {
        let pair = out_is_pair(start + i, count - i);
        out_store(start + i, values[i], values[min(i + 1u, 3u)], pair);
        i += select(1u, 2u, pair);
    }
}

@compute @workgroup_size(THREADS_N, THREADS_M)
fn selective_expand(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) place: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups);
    if (index >= parameters.workgroups) {
        return;
    }
    let first_token = index % parameters.token_tiles * (4u * THREADS_M);
    let first_row = index / parameters.token_tiles * (4u * THREADS_N);
    if (thread == 0u) {
        is_needed = select(0u, 1u, has_valid_token(first_token));
    }
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    if (workgroupUniformLoad(&is_needed) != 0u) {
        for (var first_k = 0u; first_k < parameters.reduced; first_k += DEPTH) {
            stage_selected(first_token, first_k, parameters.reduced, thread);
            stage_weight(first_row, first_k, parameters.reduced, thread);
            workgroupBarrier();
            for (var k = 0u; k < DEPTH; k++) {
                let selected = selected_tile[k * THREADS_M + place.y];
                let weight = weight_tile[k * THREADS_N + place.x];
                sum0 += selected.x * weight;
                sum1 += selected.y * weight;
                sum2 += selected.z * weight;
                sum3 += selected.w * weight;
            }
            workgroupBarrier();
        }
    }
    let column = first_row + place.x * 4u;
    let token = first_token + place.y * 4u;
    let tokens = parameters.texts * parameters.tokens;
    for (var i = 0u; i < min(tokens - min(token, tokens), 4u); i++) {
        let sum = select(select(sum0, sum1, i == 1u), select(sum2, sum3, i == 3u), i >= 2u);
        store_token(token + i, column, sum);
    }
}
