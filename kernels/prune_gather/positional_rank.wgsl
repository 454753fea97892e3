// Positions by score of the entries of one task: how many come before, by capacity^2 comparisons.
//
// launch  ceil(capacity / THREADS)

#import prune_gather/selection.wgsl
@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;

// The lists of PositionalCompat, as kernels/prune_gather/coupled_neurons.cu has them.
fn list(which: u32) -> u32 {
    return parameters.lists + which * parameters.capacity;
}

@compute @workgroup_size(THREADS)
fn positional_rank(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let entry = launch_index(workgroup, workgroups) * THREADS + thread;
    if (entry >= parameters.capacity) {
        return;
    }
    let keys = list(2u + parameters.side);
    let key = scratch[keys + entry];
    var place = 0u;
    for (var other = 0u; other < parameters.capacity; other++) {
        let other_key = scratch[keys + other];
        // Entries are in the order of their indices, which is that of ties.
        place += u32(other_key > key || (other_key == key && other < entry));
    }
    if (parameters.side == 0u) {
        scratch[list(6u) + entry] = place;
    } else {
        scratch[list(7u) + place] = scratch[list(5u) + entry];
    }
}
