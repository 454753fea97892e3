// indices = (Top_q(first) \ Top_p(general)) ∩ (Top_q(second) \ Top_p(general)), ascending
//
// general, first, second  [n] or [R, C], f32, f16 or bf16, any starts and row strides; `scores` is `first`
// indices                 [capacity] u32, 2^32 - 1 behind the count
//
// The last kernel after those of select_top for each tensor, coupled_count and coupled_offsets, see
// kernels/prune_gather/coupled_neurons.cu.
// launch  a workgroup a tile of the part
// memory  THREADS words

#import prune_gather/selection.wgsl
#import shared/scores.wgsl tensor=scores binding=1 dtype=INPUT
#import shared/scores.wgsl tensor=second binding=2 dtype=INPUT
#import shared/scores.wgsl tensor=general binding=3 dtype=INPUT
@group(0) @binding(4) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(5) var<storage, read_write> indices: array<u32>;
#import prune_gather/selection_tile.wgsl

fn is_coupled(index: u32) -> bool {
    let element = parameters.first_element + index;
    return is_selected(parameters.state, scores_key(index), element)
        && is_selected(parameters.other_state, second_key(index), element)
        && !is_selected(parameters.general_state, general_key(index), element);
}

@compute @workgroup_size(THREADS)
fn coupled_neurons(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tile = launch_index(workgroup, workgroups);
    if (tile >= parameters.tiles) {
        return;
    }
    let before = parameters.members + parameters.first_tile + tile;
    let has_some = scratch[before] < scratch[before + 1u];
    let own = own_elements(tile, thread);
    var votes = 0u;
    if (has_some) {
        for (var index = own.x; index < own.y; index++) {
            votes |= u32(is_coupled(index)) << (index - own.x);
        }
    }
    var position = scratch[before] + scan(countOneBits(votes), thread).x;
    for (var index = own.x; index < own.y; index++) {
        if (((votes >> (index - own.x)) & 1u) == 1u) {
            indices[parameters.indices_start + position] = parameters.first_element + index;
            position++;
        }
    }
}
