// What the kernels of the first half for many tokens have in common: parameters, bindings, and the end, which makes h from the
// sums. The kernel says what GATED, ACTIVATION and WEIGHT are; $load is how it reads rows.

struct Parameters {
    inputs: u32,
    neurons: u32,
    tokens: u32,
    token_tiles: u32,
    workgroups: u32,
    // First element and elements between rows, from the start of each binding; n's where x was prepared.
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
    mid_mask_start: u32,
    has_gate_bias: u32,
    has_up_bias: u32,
    is_prepared: u32,
    has_mask: u32,
    has_threshold: u32,
    round_each: u32,
    threshold: f32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/threshold.wgsl
#import shared/grid.wgsl
#import shared/chunk_$load.wgsl
#import shared/tensor_$load.wgsl tensor=x binding=1 dtype=ACTIVATION access=read
// Lies in the buffer that h is written to, which rules out a read-only binding.
#import shared/tensor_$load.wgsl tensor=n binding=2 dtype=F32 access=read_write
#import shared/tensor_$load.wgsl tensor=gate_weight binding=3 dtype=WEIGHT access=read
#import shared/tensor_$load.wgsl tensor=up_weight binding=4 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=gate_bias binding=5 dtype=WEIGHT access=read
#import shared/tensor_element.wgsl tensor=up_bias binding=6 dtype=WEIGHT access=read
@group(0) @binding(7) var<storage, read> mid_mask: array<f32>;
@group(0) @binding(8) var<storage, read_write> h: array<f32>;

// Where rows start; behind the last row, the last.
fn x_row(token: u32) -> u32 {
    return parameters.x_start + min(token, parameters.tokens - 1u) * parameters.x_stride;
}

fn n_row(token: u32) -> u32 {
    return x_row(token);
}

fn gate_weight_row(neuron: u32) -> u32 {
    return parameters.gate_start + min(neuron, parameters.neurons - 1u) * parameters.gate_stride;
}

fn up_weight_row(neuron: u32) -> u32 {
    return parameters.up_start + min(neuron, parameters.neurons - 1u) * parameters.up_stride;
}

fn write(token: u32, first_neuron: u32, gates: vec4<f32>, ups: vec4<f32>) {
    let row = parameters.h_start + token * parameters.h_stride;
    for (var i = 0u; i < min(parameters.neurons - min(first_neuron, parameters.neurons), 4u); i++) {
        let neuron = first_neuron + i;
        var up = ups[i];
        if (parameters.has_up_bias != 0u) {
            up += up_bias_at(parameters.up_bias_start + neuron);
        }
        var value: f32;
        if (GATED) {
            var gate = gates[i];
            if (parameters.has_gate_bias != 0u) {
                gate += gate_bias_at(parameters.gate_bias_start + neuron);
            }
            value = gated(gate, up, ACTIVATION, parameters.round_each != 0u);
            if (parameters.has_threshold != 0u && !exceeds(gate, parameters.threshold)) {
                value = 0.0;
            }
        } else {
            value = plain(up, ACTIVATION, parameters.round_each != 0u);
        }
        if (parameters.has_mask != 0u) {
            let mask = mid_mask[parameters.mid_mask_start + neuron];
            value *= mask * mask;
        }
        h[row + neuron] = rounded(value, ACTIVATION);
    }
}
