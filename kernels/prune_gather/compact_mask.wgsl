// indices[b, rank[b, i]] = i  for every i with mask[b, i] != 0, ascending
//
// mask     [B, n] u8, four to a word, any start and row stride
// indices  [B, n] u32, 2^32 - 1 behind the row's count
// rank     [B, n] i32, -1 where the mask is 0; optional          count  [B] u32, optional
//
// launch  B workgroups; each walks a row tile by tile, an invocation taking ITEMS consecutive elements of a tile
// memory  THREADS words
// Nothing waits for another workgroup.

override THREADS: u32 = 128u;
override RANK: bool = true;
override COUNT: bool = true;

const ITEMS: u32 = 16u;
const NO_INDEX: u32 = 0xffffffffu;

struct Parameters {
    rows: u32,
    columns: u32,
    // First element and elements between rows, from the start of each binding.
    mask_start: u32,
    mask_stride: u32,
    indices_start: u32,
    indices_stride: u32,
    rank_start: u32,
    rank_stride: u32,
    count_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> mask: array<u32>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> rank: array<i32>;
@group(0) @binding(4) var<storage, read_write> count: array<u32>;
#import shared/numeric.wgsl
#import shared/grid.wgsl
#import shared/scan.wgsl

fn is_set(at: u32) -> bool {
    return ((mask[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu) != 0u;
}

@compute @workgroup_size(THREADS)
fn compact_mask(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = launch_index(workgroup, workgroups);
    if (row >= parameters.rows) {
        return;
    }
    let columns = parameters.columns;
    let mask_row = parameters.mask_start + row * parameters.mask_stride;
    let indices_row = parameters.indices_start + row * parameters.indices_stride;
    let rank_row = parameters.rank_start + row * parameters.rank_stride;
    var kept = 0u;
    for (var first = 0u; first < columns; first += THREADS * ITEMS) {
        let begin = min(first + thread * ITEMS, columns);
        let end = min(begin + ITEMS, columns);
        var votes = 0u;
        for (var index = begin; index < end; index++) {
            votes |= u32(is_set(mask_row + index)) << (index - begin);
        }
        let sums = scan(countOneBits(votes), thread);
        var position = kept + sums.x;
        for (var index = begin; index < end; index++) {
            let member = ((votes >> (index - begin)) & 1u) == 1u;
            if (RANK) {
                rank[rank_row + index] = select(-1, i32(position), member);
            }
            if (member) {
                indices[indices_row + position] = index;
                position++;
            }
        }
        kept += sums.y;
    }
    for (var position = kept + thread; position < columns; position += THREADS) {
        indices[indices_row + position] = NO_INDEX;
    }
    if (COUNT && thread == 0u) {
        count[parameters.count_start + row] = kept;
    }
}
