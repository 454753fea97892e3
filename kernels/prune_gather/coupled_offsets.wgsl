// From counts by tile to how many entries are coupled before each tile; and what is behind the last one.
//
// launch  1
// memory  THREADS words

#import prune_gather/selection.wgsl
@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> count: array<u32>;
#import shared/scan.wgsl

@compute @workgroup_size(THREADS)
fn coupled_offsets(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // Launches of one dimension are laid out over two: this one has no second workgroup.
    if (launch_index(workgroup, workgroups) > 0u) {
        return;
    }
    let tiles = parameters.all_tiles;
    var kept = 0u;
    // One more than there are tiles, for the total.
    for (var first = 0u; first <= tiles; first += THREADS) {
        let tile = first + thread;
        var here = 0u;
        if (tile < tiles) {
            here = scratch[parameters.members + tile];
        }
        let sums = scan(here, thread);
        if (tile <= tiles) {
            scratch[parameters.members + tile] = kept + sums.x;
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
