// exit_gate, ahead where there is a threshold of the cosine:
//   go_on[b] = 1 if hidden[b] . previous_hidden[b] / (|hidden[b]| |previous_hidden[b]|) >= cosine, else 0
//
// hidden, previous_hidden  [B, D]  f32, f16 or bf16, equal types      go_on  [B]  u8, four to a word
//
// launch  B; a workgroup owns a row
// workgroup  THREADS invocations stride over D
// workgroup memory  THREADS * 64 + 16 bytes at most
// Sums are in f32 by invocation, then over the invocations in a fixed order, whatever B. What is not finite is not enough.

#variant reduce = subgroup workgroup

override THREADS: u32 = 128u;
override ACTIVATION: u32 = 0u;

struct Parameters {
    features: u32,
    // Of this launch, and the first of them.
    rows: u32,
    first_row: u32,
    cosine: f32,
    // First element and elements between rows, from the start of each binding.
    hidden_start: u32,
    hidden_stride: u32,
    previous_start: u32,
    previous_stride: u32,
    go_on_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/tensor_element.wgsl tensor=hidden binding=1 dtype=ACTIVATION access=read
#import shared/tensor_element.wgsl tensor=previous_hidden binding=2 dtype=ACTIVATION access=read
#import early_exit/go_on.wgsl binding=3
#import shared/reduce_$reduce.wgsl capacity=1u

@compute @workgroup_size(THREADS)
fn exit_cosine(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    invocation: Invocation,
) {
    let local = launch_index(workgroup, workgroups);
    if (local >= parameters.rows) {
        return;
    }
    let hidden_row = parameters.hidden_start + local * parameters.hidden_stride;
    let previous_row = parameters.previous_start + local * parameters.previous_stride;
    var sums: array<vec4<f32>, 1>;
    for (var k = invocation.thread; k < parameters.features; k += THREADS) {
        let a = hidden_at(hidden_row + k);
        let b = previous_hidden_at(previous_row + k);
        sums[0] += vec4(a * b, a * a, b * b, 0.0);
    }
    reduce(sums, 1u, invocation);
    if (invocation.thread == 0u) {
        let all = totals[0];
        let norms = sqrt(all.y) * sqrt(all.z);
        // By the bits, since a shader may assume that there is neither NaN nor infinity.
        let finite = is_finite(bitcast<u32>(all.x)) && is_finite(bitcast<u32>(norms)) && norms > 0.0;
        let saturated = finite && all.x / norms >= parameters.cosine;
        set_go_on(parameters.go_on_start + parameters.first_row + local, saturated);
    }
}
