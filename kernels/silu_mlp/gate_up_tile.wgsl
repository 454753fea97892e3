// MLP for many tokens, first half:
//   gated  h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f]) * (n[m,:] . Wu[f,:] + bu[f])
//   plain  h[m,f] = silu(n[m,:] . Wu[f,:] + bu[f])
// with n = x, or the output of rms_norm
//
// x  [M, H]  activations, or  n [M, H]  f32        Wg, Wu [F, H]  nn.Linear layout        bg, bu [F]
// h  [M, F]  f32, without gaps, rounded to the activation type
//
// launch  ceil(M / tile M) * ceil(F / tile N), tokens fastest, so that neighbours share weights
// workgroup  THREADS_N x THREADS_M invocations, each 4 tokens by 4 neurons of both products; the tile is
//            4 THREADS_M tokens by 4 THREADS_N neurons, DEPTH (a multiple of 4) elements of H at a time
// workgroup memory  DEPTH * (THREADS_M + 2 THREADS_N) * 16 bytes: f32, k outermost, tokens or neurons in fours
// A product is summed over H in order, in f32.

#variant load = vector scalar

override THREADS_M: u32 = 8u;
override THREADS_N: u32 = 8u;
override DEPTH: u32 = 8u;
override GATED: bool = true;
override NORM: bool = false;
override ROUND_EACH: bool = false;
override ACTIVATION: u32 = 0u;
override WEIGHT: u32 = 0u;

struct Parameters {
    hidden: u32,
    neurons: u32,
    tokens: u32,
    token_tiles: u32,
    workgroups: u32,
    // First element and elements between rows, from the start of each binding.
    x_start: u32,
    x_stride: u32,
    gate_start: u32,
    gate_stride: u32,
    up_start: u32,
    up_stride: u32,
    h_start: u32,
    h_stride: u32,
    gate_bias_start: u32,
    up_bias_start: u32,
    has_gate_bias: u32,
    has_up_bias: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_$load.wgsl tensor=x binding=1 dtype=ACTIVATION access=read
// Lies in the buffer that h is written to, which rules out a read-only binding.
#import shared/tensor_$load.wgsl tensor=n binding=2 dtype=F32 access=read_write
#import shared/tensor_$load.wgsl tensor=gate_weight binding=3 dtype=WEIGHT access=read
#import shared/tensor_$load.wgsl tensor=up_weight binding=4 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=gate_bias binding=5 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=up_bias binding=6 dtype=WEIGHT access=read
@group(0) @binding(7) var<storage, read_write> h: array<f32>;

var<workgroup> n_tile: array<vec4<f32>, DEPTH * THREADS_M>;
var<workgroup> gate_tile: array<vec4<f32>, DEPTH * THREADS_N>;
var<workgroup> up_tile: array<vec4<f32>, DEPTH * THREADS_N>;

fn activations(token: u32, k: u32) -> vec4<f32> {
    let row = parameters.x_start + min(token, parameters.tokens - 1u) * parameters.x_stride;
    if (NORM) {
        return n_four(row, k, parameters.hidden);
    }
    return x_four(row, k, parameters.hidden);
}

fn gate_weights(neuron: u32, k: u32) -> vec4<f32> {
    let row = parameters.gate_start + min(neuron, parameters.neurons - 1u) * parameters.gate_stride;
    return gate_weight_four(row, k, parameters.hidden);
}

fn up_weights(neuron: u32, k: u32) -> vec4<f32> {
    let row = parameters.up_start + min(neuron, parameters.neurons - 1u) * parameters.up_stride;
    return up_weight_four(row, k, parameters.hidden);
}

// Brings a DEPTH-deep slice of all operands into workgroup memory: four rows by four k at a time,
// transposed on the way.
fn stage(first_token: u32, first_neuron: u32, first_k: u32, thread: u32) {
    for (var block = thread; block < DEPTH / 4u * THREADS_M; block += THREADS_M * THREADS_N) {
        let k = block % (DEPTH / 4u) * 4u;
        let column = block / (DEPTH / 4u);
        let token = first_token + column * 4u;
        let rows = transpose(mat4x4(
            activations(token, first_k + k),
            activations(token + 1u, first_k + k),
            activations(token + 2u, first_k + k),
            activations(token + 3u, first_k + k),
        ));
        for (var i = 0u; i < 4u; i++) {
            n_tile[(k + i) * THREADS_M + column] = rows[i];
        }
    }
    for (var block = thread; block < DEPTH / 4u * THREADS_N; block += THREADS_M * THREADS_N) {
        let k = block % (DEPTH / 4u) * 4u;
        let column = block / (DEPTH / 4u);
        let neuron = first_neuron + column * 4u;
        let up = transpose(mat4x4(
            up_weights(neuron, first_k + k),
            up_weights(neuron + 1u, first_k + k),
            up_weights(neuron + 2u, first_k + k),
            up_weights(neuron + 3u, first_k + k),
        ));
        for (var i = 0u; i < 4u; i++) {
            up_tile[(k + i) * THREADS_N + column] = up[i];
        }
        if (GATED) {
            let gate = transpose(mat4x4(
                gate_weights(neuron, first_k + k),
                gate_weights(neuron + 1u, first_k + k),
                gate_weights(neuron + 2u, first_k + k),
                gate_weights(neuron + 3u, first_k + k),
            ));
            for (var i = 0u; i < 4u; i++) {
                gate_tile[(k + i) * THREADS_N + column] = gate[i];
            }
        }
    }
}

fn biases(neuron: u32) -> array<vec4<f32>, 2> {
    var gate = vec4(0.0);
    var up = vec4(0.0);
    for (var i = 0u; i < 4u; i++) {
        if (neuron + i < parameters.neurons) {
            if (parameters.has_gate_bias != 0u) {
                gate[i] = gate_bias_at(parameters.gate_bias_start + neuron + i);
            }
            if (parameters.has_up_bias != 0u) {
                up[i] = up_bias_at(parameters.up_bias_start + neuron + i);
            }
        }
    }
    return array(gate, up);
}

fn write(token: u32, neuron: u32, gate: vec4<f32>, up: vec4<f32>) {
    if (token >= parameters.tokens) {
        return;
    }
    let row = parameters.h_start + token * parameters.h_stride;
    for (var i = 0u; i < 4u; i++) {
        if (neuron + i < parameters.neurons) {
            var value: f32;
            if (GATED) {
                value = gated(gate[i], up[i], ACTIVATION, ROUND_EACH);
            } else {
                value = plain(up[i], ACTIVATION, ROUND_EACH);
            }
            h[row + neuron + i] = rounded(value, ACTIVATION);
        }
    }
}

@compute @workgroup_size(THREADS_N, THREADS_M)
fn gate_up_tile(
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
    let first_neuron = index / parameters.token_tiles * (4u * THREADS_N);

    var gate0 = vec4(0.0);
    var gate1 = vec4(0.0);
    var gate2 = vec4(0.0);
    var gate3 = vec4(0.0);
    var up0 = vec4(0.0);
    var up1 = vec4(0.0);
    var up2 = vec4(0.0);
    var up3 = vec4(0.0);
    for (var first_k = 0u; first_k < parameters.hidden; first_k += DEPTH) {
        stage(first_token, first_neuron, first_k, thread);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let n = n_tile[k * THREADS_M + place.y];
            let up = up_tile[k * THREADS_N + place.x];
            up0 += n.x * up;
            up1 += n.y * up;
            up2 += n.z * up;
            up3 += n.w * up;
            if (GATED) {
                let gate = gate_tile[k * THREADS_N + place.x];
                gate0 += n.x * gate;
                gate1 += n.y * gate;
                gate2 += n.z * gate;
                gate3 += n.w * gate;
            }
        }
        workgroupBarrier();
    }

    let token = first_token + place.y * 4u;
    let neuron = first_neuron + place.x * 4u;
    let bias = biases(neuron);
    write(token, neuron, gate0 + bias[0], up0 + bias[1]);
    write(token + 1u, neuron, gate1 + bias[0], up1 + bias[1]);
    write(token + 2u, neuron, gate2 + bias[0], up2 + bias[1]);
    write(token + 3u, neuron, gate3 + bias[0], up3 + bias[1]);
}
