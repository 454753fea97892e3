// sparse_gated_mlp, many tokens with lists, behind the dense first half:  h[m,j] = 0 where token m's list does not have
// neuron j
//
// h  [M, F]  f32, without gaps        offsets [M + 1], neurons [total]  u32: see sparse_gate_up.wgsl
//
// launch  ceil(M * F / THREADS); an invocation owns one element
// Offsets beyond the list are cut to it.

override THREADS: u32 = 128u;

struct Parameters {
    neurons: u32,
    elements: u32,
    listed: u32,
    neurons_start: u32,
    offsets_start: u32,
    h_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/grid.wgsl
@group(0) @binding(1) var<storage, read> neurons: array<u32>;
@group(0) @binding(2) var<storage, read> neuron_offsets: array<u32>;
@group(0) @binding(3) var<storage, read_write> h: array<f32>;
#import prune_gather/sparse_lists.wgsl

@compute @workgroup_size(THREADS)
fn sparse_select(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = launch_index(workgroup, workgroups) * THREADS + thread;
    if (index >= parameters.elements) {
        return;
    }
    let neuron = index % parameters.neurons;
    let list = list_of(index / parameters.neurons);
    let place = place_in(list, neuron);
    var selected = false;
    if (place < list.end) {
        selected = neurons[parameters.neurons_start + place] == neuron;
    }
    if (!selected) {
        h[parameters.h_start + index] = 0.0;
    }
}
