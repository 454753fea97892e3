// selective_squeeze: what the weights of a text's branches are made of
//   s = mean(o) + max(o) over the N branches and t < length      z = tanh(W s + b)
//
// states o  [B, L, N, d1] f32      W  [d2, d1], b  [d2]  one dtype, b optional      lengths  [B]  i32, optional
// squeezed  [B, d1 + d2] f32: s, behind it z; of no use for a text without tokens
//
// launch  B; a workgroup owns a text
// workgroup  THREADS invocations
// workgroup memory  THREADS * 8 bytes: sums and maxima of groups of rows
//
// pool     invocation (group, channel) takes every groups-th row of [L N, d1]; the groups' results are combined in order
// squeeze  an invocation a row of W, in order
// In f32, in an order that depends on N, d1 and the text's length.

override THREADS: u32 = 128u;
override WEIGHT: u32 = 0u;

struct Parameters {
    texts: u32,
    tokens: u32,
    reduced: u32,
    squeezed: u32,
    branches: u32,
    has_bias: u32,
    has_lengths: u32,
    // First element, and elements between rows, from the start of each binding.
    states_start: u32,
    weight_start: u32,
    weight_stride: u32,
    bias_start: u32,
    lengths_start: u32,
    squeezed_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import feature_attention/activation.wgsl
@group(0) @binding(1) var<storage, read_write> states: array<f32>;
#import shared/tensor_element.wgsl tensor=weight binding=2 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=bias binding=3 dtype=WEIGHT access=read
@group(0) @binding(4) var<storage, read> lengths: array<i32>;
@group(0) @binding(5) var<storage, read_write> squeezed: array<f32>;

var<workgroup> sums: array<f32, THREADS>;
var<workgroup> maxima: array<f32, THREADS>;

// s, for all to read.
fn pool_states(text: u32, length: u32, s: u32, thread: u32) {
    let width = min(parameters.reduced, THREADS);
    let groups = THREADS / width;
    let group = thread / width;
    let text_start = parameters.states_start + text * parameters.tokens * parameters.branches * parameters.reduced;
    let rows = length * parameters.branches;
    for (var first = 0u; first < parameters.reduced; first += width) {
        let channel = first + thread % width;
        var sum = 0.0;
        // States lie above -1.
        var largest = -1.0;
        if (group < groups && channel < parameters.reduced) {
            for (var row = group; row < rows; row += groups) {
                let state = states[text_start + row * parameters.reduced + channel];
                sum += state;
                largest = max(largest, state);
            }
        }
        sums[thread] = sum;
        maxima[thread] = largest;
        workgroupBarrier();
        if (thread < width && channel < parameters.reduced) {
            for (var other = 1u; other < groups; other++) {
                sum += sums[other * width + thread];
                largest = max(largest, maxima[other * width + thread]);
            }
            squeezed[s + channel] = sum / f32(rows) + largest;
        }
        // The next channels' sums go where these are still being read.
        workgroupBarrier();
    }
    storageBarrier();
}

@compute @workgroup_size(THREADS)
fn selective_squeeze(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let text = launch_index(workgroup, workgroups);
    if (text >= parameters.texts) {
        return;
    }
    var length = parameters.tokens;
    if (parameters.has_lengths != 0u) {
        length = min(u32(max(lengths[parameters.lengths_start + text], 0)), length);
    }
    if (length == 0u) {
        return;
    }
    let s = parameters.squeezed_start + text * (parameters.reduced + parameters.squeezed);
    pool_states(text, length, s, thread);
    for (var row = thread; row < parameters.squeezed; row += THREADS) {
        let weight = parameters.weight_start + row * parameters.weight_stride;
        var sum = 0.0;
        for (var channel = 0u; channel < parameters.reduced; channel++) {
            sum += weight_at(weight + channel) * squeezed[s + channel];
        }
        if (parameters.has_bias != 0u) {
            sum += bias_at(parameters.bias_start + row);
        }
        squeezed[s + parameters.reduced + row] = tanh_stable(sum);
    }
}
