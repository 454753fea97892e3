// out[b,t,:] = x[b,t,:] * e[b,:]
//     s = mean of x[b,t,:] over t < length      a = tanh(W1 s + b1)      e = sigmoid(W2 a + b2)
//
// x  [B, L, D]  activations' type      out  [B, L, D]  f32, f16 or bf16      lengths  [B]  i32, optional
// w1  [d, D]   w2  [D, d]   b1  [d] and b2  [D], optional      weights' type
//
// launch  B; a workgroup owns a text: for a few long texts most of the device idles
// workgroup  THREADS invocations
// workgroup memory  STATE * 4 + THREADS * 64 + 64 bytes at most
// The state, `groups` sums of D numbers, of which the first becomes s and then e, and d numbers of a, lies in workgroup
// memory, or in the workspace if it is large. x is read twice.
//
// squeeze  invocation (group, chunk) adds every groups-th token; the groups' sums are added in order
// reduce   all invocations stride over D, for 16 rows of W1 at a time; sums over the invocations in a fixed order
// excite   an invocation a row of W2
// All of it in f32, in an order that depends on D, d and the text's length; rounded once. A length outside of 0..L is
// clamped. Rows of `out` from the length on are 0; x is not read there.

#variant reduce = subgroup workgroup
#variant load = scalar vector
#variant state = workgroup workspace

override THREADS: u32 = 128u;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;
override OUT: u32 = 0u;
override STATE: u32 = 1u;

struct Parameters {
    texts: u32,
    tokens: u32,
    features: u32,
    reduced: u32,
    groups: u32,
    // Words of the output that a row touches.
    units: u32,
    tanh: u32,
    has_b1: u32,
    has_b2: u32,
    has_lengths: u32,
    // First element, and elements between texts and rows, from the start of each binding.
    x_start: u32,
    x_text_stride: u32,
    x_row_stride: u32,
    w1_start: u32,
    w1_stride: u32,
    w2_start: u32,
    w2_stride: u32,
    b1_start: u32,
    b2_start: u32,
    lengths_start: u32,
    out_start: u32,
    out_text_stride: u32,
    out_row_stride: u32,
    workspace_start: u32,
}

// Rows of W1 that are summed at a time, in fours.
const FOURS: u32 = 4u;

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
#import shared/tensor_$load.wgsl tensor=x binding=1 dtype=ACTIVATION access=read
#import shared/tensor_element.wgsl tensor=w1 binding=2 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=w2 binding=3 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=b1 binding=4 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=b2 binding=5 dtype=WEIGHT access=read
@group(0) @binding(6) var<storage, read> lengths: array<i32>;
@group(0) @binding(8) var<storage, read_write> workspace: array<f32>;
#import shared/reduce_$reduce.wgsl capacity=FOURS
#import feature_attention/activation.wgsl
#import feature_attention/state_$state.wgsl
#import feature_attention/scale_$load.wgsl

// The sums of the groups' tokens.
fn squeeze_groups(text: u32, length: u32, thread: u32) {
    let x_text = parameters.x_start + text * parameters.x_text_stride;
    let chunks = parameters.features / CHUNK;
    for (var item = thread; item < parameters.groups * chunks; item += THREADS) {
        let column = item % chunks * CHUNK;
        let group = item / chunks;
        var sum: Chunk;
        for (var token = group; token < length; token += parameters.groups) {
            sum = add_scaled(sum, 1.0, x_chunk(x_text + token * parameters.x_row_stride + column));
        }
        for (var i = 0u; i < CHUNK; i++) {
            set_state(text, group * parameters.features + column + i, chunk_element(sum, i));
        }
    }
}

// s, from the groups' sums.
fn finish_squeeze(text: u32, length: u32, thread: u32) {
    for (var column = thread; column < parameters.features; column += THREADS) {
        var sum = 0.0;
        for (var group = 0u; group < parameters.groups; group++) {
            sum += state_at(text, group * parameters.features + column);
        }
        set_state(text, column, sum / f32(length));
    }
}

// Column `column` of four rows of W1 from `row` on; rows that there are not repeat the last.
fn w1_four(row: u32, column: u32) -> vec4<f32> {
    let last = parameters.reduced - 1u;
    let at = parameters.w1_start + column;
    return vec4(
        w1_at(at + min(row, last) * parameters.w1_stride),
        w1_at(at + min(row + 1u, last) * parameters.w1_stride),
        w1_at(at + min(row + 2u, last) * parameters.w1_stride),
        w1_at(at + min(row + 3u, last) * parameters.w1_stride),
    );
}

fn reduce_features(text: u32, invocation: Invocation) {
    let a = parameters.groups * parameters.features;
    for (var first = 0u; first < parameters.reduced; first += FOURS * 4u) {
        let rows = min(parameters.reduced - first, FOURS * 4u);
        let fours = (rows + 3u) / 4u;
        var sums: array<vec4<f32>, FOURS>;
        for (var column = invocation.thread; column < parameters.features; column += THREADS) {
            let s = state_at(text, column);
            for (var i = 0u; i < fours; i++) {
                sums[i] += s * w1_four(first + i * 4u, column);
            }
        }
        reduce(sums, fours, invocation);
        if (invocation.thread < rows) {
            let row = first + invocation.thread;
            var sum = totals[invocation.thread / 4u][invocation.thread % 4u];
            if (parameters.has_b1 != 0u) {
                sum += b1_at(parameters.b1_start + row);
            }
            if (parameters.tanh != 0u) {
                sum = tanh_stable(sum);
            }
            set_state(text, a + row, sum);
        }
        // The next sums go where these are still being read.
        state_barrier();
    }
}

fn excite_features(text: u32, thread: u32) {
    let a = parameters.groups * parameters.features;
    for (var column = thread; column < parameters.features; column += THREADS) {
        let row = parameters.w2_start + column * parameters.w2_stride;
        var sum = 0.0;
        for (var k = 0u; k < parameters.reduced; k++) {
            sum += w2_at(row + k) * state_at(text, a + k);
        }
        if (parameters.has_b2 != 0u) {
            sum += b2_at(parameters.b2_start + column);
        }
        set_state(text, column, sigmoid(sum));
    }
}

@compute @workgroup_size(THREADS)
fn feature_attention(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    invocation: Invocation,
) {
    let text = launch_index(workgroup, workgroups);
    if (text >= parameters.texts) {
        return;
    }
    var length = parameters.tokens;
    if (parameters.has_lengths != 0u) {
        length = min(u32(max(lengths[parameters.lengths_start + text], 0)), length);
    }
    if (length > 0u) {
        squeeze_groups(text, length, invocation.thread);
        state_barrier();
        finish_squeeze(text, length, invocation.thread);
        state_barrier();
        reduce_features(text, invocation);
        excite_features(text, invocation.thread);
        state_barrier();
    }
    scale_text(text, length, invocation.thread);
}
