// How many keys of a tile are above the threshold, and how many equal to it.
//
// launch  a workgroup a tile of the part
// memory  THREADS words

#import prune_gather/selection.wgsl
#import shared/scores.wgsl tensor=scores binding=1 dtype=INPUT
@group(0) @binding(2) var<storage, read_write> scratch: array<u32>;
#import prune_gather/selection_tile.wgsl

@compute @workgroup_size(THREADS)
fn select_count(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tile = launch_index(workgroup, workgroups);
    if (tile >= parameters.tiles) {
        return;
    }
    let threshold = scratch[parameters.state];
    // Both counts in one word: a tile has no more than 2^11.
    var counts = 0u;
    for (var item = 0u; item < ITEMS; item++) {
        let index = (tile * ITEMS + item) * THREADS + thread;
        if (index < parameters.elements) {
            let key = scores_key(index);
            counts += select(select(0u, 0x10000u, key == threshold), 1u, key > threshold);
        }
    }
    let total = scan(counts, thread).y;
    if (thread == 0u) {
        scratch[parameters.selected + parameters.first_tile + tile] = total & 0xffffu;
        scratch[parameters.equal + parameters.first_tile + tile] = total >> 16u;
    }
}
