// From counts by tile to how many are selected, and how many equal to the threshold, before each tile.
//
// launch  1
// memory  THREADS words

#import prune_gather/selection.wgsl
@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;
#import shared/scan.wgsl

@compute @workgroup_size(THREADS)
fn select_offsets(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // Launches of one dimension are laid out over two: this one has no second workgroup.
    if (launch_index(workgroup, workgroups) > 0u) {
        return;
    }
    let tiles = parameters.all_tiles;
    let taken = scratch[parameters.state + 1u];
    var above = 0u;
    var ties = 0u;
    // One more than there are tiles, for the totals.
    for (var first = 0u; first <= tiles; first += THREADS) {
        let tile = first + thread;
        var above_here = 0u;
        var ties_here = 0u;
        if (tile < tiles) {
            above_here = scratch[parameters.selected + tile];
            ties_here = scratch[parameters.equal + tile];
        }
        let above_sums = scan(above_here, thread);
        let ties_sums = scan(ties_here, thread);
        if (tile <= tiles) {
            let ties_before = ties + ties_sums.x;
            scratch[parameters.selected + tile] = above + above_sums.x + min(ties_before, taken);
            scratch[parameters.equal + tile] = ties_before;
        }
        above += above_sums.y;
        ties += ties_sums.y;
    }
}
