// commit_cache, where there are paths:
//   row length[b] + 1 + i of sequence b = its row length[b] + 1 + path[b, i]   for i < emitted[b] - 1
//
// length, emitted  [B]  path  [B, S]  page_table  [B, P]  i32
// cache  [G, B, capacity, W], or [G, pages, page_size, W] by page_table; f32, or halves two to a word; any strides
//
// launch  B * G * ceil(units of a row / THREADS); an invocation owns a word of a row, or one half where rows start in
//         different halves
// workgroup memory  1 word
// Rows move in ascending order, each invocation its own columns: path is ascending, so path[i] >= i, and what an
// invocation overwrites at step i, row i, no later step reads. A word of two owners is merged atomically.

#import early_exit/commit.wgsl
override HALVES: bool = false;
@group(0) @binding(5) var<storage, read_write> cache: array<atomic<u32>>;

// First element of a position's row, from the start of a group.
fn row_of(sequence: u32, position: u32) -> u32 {
    if (!PAGED) {
        return sequence * parameters.cache_block_stride + position * parameters.cache_row_stride;
    }
    let page = u32(page_of(sequence, position / parameters.page_size));
    return page * parameters.cache_block_stride
        + position % parameters.page_size * parameters.cache_row_stride;
}

fn copy(from_element: u32, to_element: u32, count: u32) {
    if (!HALVES) {
        atomicStore(&cache[to_element], atomicLoad(&cache[from_element]));
        return;
    }
    let word = atomicLoad(&cache[from_element >> 1u]);
    if (count == 2u) {
        atomicStore(&cache[to_element >> 1u], word);
        return;
    }
    let half = (word >> ((from_element & 1u) * 16u)) & 0xffffu;
    let shift = (to_element & 1u) * 16u;
    atomicAnd(&cache[to_element >> 1u], 0xffff0000u >> shift);
    atomicOr(&cache[to_element >> 1u], half << shift);
}

@compute @workgroup_size(THREADS)
fn commit_move(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tiles = (parameters.units + THREADS - 1u) / THREADS;
    let index = launch_index(workgroup, workgroups);
    let sequence = index / (tiles * parameters.groups);
    if (sequence >= parameters.batch) {
        return;
    }
    let group = index / tiles % parameters.groups;
    let column = (index % tiles * THREADS + thread) * parameters.unit;
    if (verdict(sequence, thread) != IS_FINE || column >= parameters.columns) {
        return;
    }
    let start = parameters.cache_start + group * parameters.cache_group_stride + column;
    let first = u32(length[parameters.length_start + sequence]) + 1u;
    let count = min(parameters.unit, parameters.columns - column);
    let moves = moves_of(sequence);
    for (var i = 0u; i < moves; i++) {
        let node = u32(node_of(sequence, i));
        if (node != i) {
            copy(start + row_of(sequence, first + node), start + row_of(sequence, first + i), count);
        }
    }
}
