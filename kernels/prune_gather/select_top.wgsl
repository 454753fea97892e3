// indices = the k elements with the largest scores, ascending; ties go to smaller indices
//
// scores   [n] or [R, C], f32, f16 or bf16, any start and row stride        indices  [k] u32
//
// The last kernel of a radix selection that never sorts; kernels/prune_gather/select_top.cu describes all of them, this
// backend's have the same names.
// launch  a workgroup a tile of the part
// memory  THREADS words

#import prune_gather/selection.wgsl
#import shared/scores.wgsl tensor=scores binding=1 dtype=INPUT
@group(0) @binding(2) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(3) var<storage, read_write> indices: array<u32>;
#import prune_gather/selection_tile.wgsl

@compute @workgroup_size(THREADS)
fn select_top(
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
            indices[parameters.indices_start + position] = parameters.first_element + index;
            position++;
        }
    }
}
