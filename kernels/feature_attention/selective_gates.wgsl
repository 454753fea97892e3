// selective_gates: the weights of one branch of every text
//   e = exp(sigmoid(W z + b))      behind the last branch, if `normalises`: w_i = e_i / sum over the branches of e_i
//
// squeezed  [B, d1 + d2] f32, z behind d1 others      W  [d1, d2], b  [d1]  one dtype, b optional
// lengths  [B]  i32, optional      weights  [B, N, d1] f32; 0 for a text without tokens
//
// launch  ceil(B d1 / THREADS); an invocation owns a channel of a text
// workgroup  THREADS invocations
// A product is summed over d2 in order in f32; the branches' weights are added in order.

override THREADS: u32 = 64u;
override WEIGHT: u32 = 0u;

struct Parameters {
    texts: u32,
    tokens: u32,
    reduced: u32,
    squeezed: u32,
    branches: u32,
    branch: u32,
    normalises: u32,
    has_bias: u32,
    has_lengths: u32,
    // First element, and elements between rows, from the start of each binding.
    squeezed_start: u32,
    weight_start: u32,
    weight_stride: u32,
    bias_start: u32,
    lengths_start: u32,
    weights_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import feature_attention/activation.wgsl
@group(0) @binding(1) var<storage, read_write> squeezed: array<f32>;
#import shared/tensor_element.wgsl tensor=weight binding=2 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=bias binding=3 dtype=WEIGHT access=read
@group(0) @binding(4) var<storage, read> lengths: array<i32>;
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;

fn unnormalised(text: u32, channel: u32) -> f32 {
    let z = parameters.squeezed_start + text * (parameters.reduced + parameters.squeezed) + parameters.reduced;
    let row = parameters.weight_start + channel * parameters.weight_stride;
    var sum = 0.0;
    for (var k = 0u; k < parameters.squeezed; k++) {
        sum += weight_at(row + k) * squeezed[z + k];
    }
    if (parameters.has_bias != 0u) {
        sum += bias_at(parameters.bias_start + channel);
    }
    // exp(g) = e exp(g - 1): the exponential is one of negative numbers.
    let gate = sigmoid(sum);
    return select(2.7182818 * exp_negative(1.0 - gate), gate, is_nan(bitcast<u32>(gate)));
}

@compute @workgroup_size(THREADS)
fn selective_gates(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups) * THREADS + thread;
    let text = index / parameters.reduced;
    let channel = index % parameters.reduced;
    if (text >= parameters.texts) {
        return;
    }
    var length = parameters.tokens;
    if (parameters.has_lengths != 0u) {
        length = min(u32(max(lengths[parameters.lengths_start + text], 0)), length);
    }
    let first = parameters.weights_start + text * parameters.branches * parameters.reduced + channel;
    let own = first + parameters.branch * parameters.reduced;
    if (length == 0u) {
        weights[own] = 0.0;
        return;
    }
    weights[own] = unnormalised(text, channel);
    if (parameters.normalises == 0u) {
        return;
    }
    var total = 0.0;
    for (var branch = 0u; branch < parameters.branches; branch++) {
        total += weights[first + branch * parameters.reduced];
    }
    for (var branch = 0u; branch < parameters.branches; branch++) {
        weights[first + branch * parameters.reduced] /= total;
    }
}
