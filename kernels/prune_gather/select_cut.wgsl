// The index behind the last of the threshold's equals that is taken, in the tile that has it.
//
// launch  a workgroup a tile of the part
// memory  THREADS words

#import prune_gather/selection.wgsl
#import shared/scores.wgsl tensor=scores binding=1 dtype=INPUT
@group(0) @binding(2) var<storage, read_write> scratch: array<u32>;
#import prune_gather/selection_tile.wgsl

@compute @workgroup_size(THREADS)
fn select_cut(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tile = launch_index(workgroup, workgroups);
    if (tile >= parameters.tiles) {
        return;
    }
    let threshold = scratch[parameters.state];
    let taken = scratch[parameters.state + 1u];
    let equal = parameters.equal + parameters.first_tile + tile;
    let is_here = scratch[equal] < taken && taken <= scratch[equal + 1u];
    let own = own_elements(tile, thread);
    var votes = 0u;
    if (is_here) {
        for (var index = own.x; index < own.y; index++) {
            votes |= u32(scores_key(index) == threshold) << (index - own.x);
        }
    }
    var position = scratch[equal] + scan(countOneBits(votes), thread).x;
    for (var index = own.x; index < own.y; index++) {
        if (((votes >> (index - own.x)) & 1u) == 1u) {
            if (is_here && position + 1u == taken) {
                scratch[parameters.state + 2u] = parameters.first_element + index + 1u;
            }
            position++;
        }
    }
}
