// The largest entries of one task, ascending by index: index, key, and whether they are outside Top_p(general).
//
// launch  a workgroup a tile of the part
// memory  THREADS words

#import prune_gather/selection.wgsl
#import shared/scores.wgsl tensor=scores binding=1 dtype=INPUT
#import shared/scores.wgsl tensor=general binding=2 dtype=INPUT
@group(0) @binding(3) var<storage, read_write> scratch: array<u32>;
#import prune_gather/selection_tile.wgsl

// The lists of PositionalCompat, as kernels/prune_gather/coupled_neurons.cu has them.
fn list(which: u32) -> u32 {
    return parameters.lists + which * parameters.capacity;
}

@compute @workgroup_size(THREADS)
fn positional_list(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tile = launch_index(workgroup, workgroups);
    if (tile >= parameters.tiles) {
        return;
    }
    let before = parameters.selected + parameters.first_tile + tile;
    let has_some = scratch[before] < scratch[before + 1u];
    let own = own_elements(tile, thread);
    var votes = 0u;
    if (has_some) {
        for (var index = own.x; index < own.y; index++) {
            votes |= u32(is_selected(parameters.state, scores_key(index), parameters.first_element + index)) << (index - own.x);
        }
    }
    var position = scratch[before] + scan(countOneBits(votes), thread).x;
    for (var index = own.x; index < own.y; index++) {
        if (((votes >> (index - own.x)) & 1u) == 1u) {
            let element = parameters.first_element + index;
            let inside = is_selected(parameters.general_state, general_key(index), element);
            scratch[list(parameters.side) + position] = element;
            scratch[list(2u + parameters.side) + position] = scores_key(index);
            scratch[list(4u + parameters.side) + position] = select(1u, 0u, inside);
            position++;
        }
    }
}
