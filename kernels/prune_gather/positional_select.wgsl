// The entries of the first task's list where neither list's entry of the same position by score is in Top_p(general).
//
// launch  1
// memory  THREADS words

#import prune_gather/selection.wgsl
@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> count: array<u32>;
#import shared/scan.wgsl

// The lists of PositionalCompat, as kernels/prune_gather/coupled_neurons.cu has them.
fn list(which: u32) -> u32 {
    return parameters.lists + which * parameters.capacity;
}

@compute @workgroup_size(THREADS)
fn positional_select(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // Launches of one dimension are laid out over two: this one has no second workgroup.
    if (launch_index(workgroup, workgroups) > 0u) {
        return;
    }
    var kept = 0u;
    for (var first = 0u; first < parameters.capacity; first += THREADS) {
        let entry = first + thread;
        var vote = 0u;
        if (entry < parameters.capacity) {
            let place = scratch[list(6u) + entry];
            vote = scratch[list(4u) + entry] & scratch[list(7u) + place];
        }
        let sums = scan(vote, thread);
        if (vote == 1u) {
            indices[parameters.indices_start + kept + sums.x] = scratch[list(0u) + entry];
        }
        kept += sums.y;
    }
    for (var position = kept + thread; position < parameters.capacity; position += THREADS) {
        indices[parameters.indices_start + position] = NO_INDEX;
    }
    if (COUNT && thread == 0u) {
        count[parameters.count_start] = kept;
    }
}
