// The histogram of select_top is 0.
//
// launch  ceil(2^DIGIT_BITS / THREADS)

#import prune_gather/selection.wgsl
@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;

@compute @workgroup_size(THREADS)
fn select_clear(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let bin = launch_index(workgroup, workgroups) * THREADS + thread;
    if (bin < (1u << DIGIT_BITS)) {
        scratch[parameters.histogram + bin] = 0u;
    }
}
