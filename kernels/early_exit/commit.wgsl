// What both kernels of commit_cache know of a sequence: whether it can be committed. The twin of commit_cache.cu.

override THREADS: u32 = 64u;
override PAGED: bool = false;

struct Parameters {
    batch: u32,
    capacity: u32,
    path_length: u32,
    table_length: u32,
    page_size: u32,
    // An entry of page_table is below this.
    pages: u32,
    has_path: u32,
    // First element and elements between rows, from the start of each binding.
    length_start: u32,
    emitted_start: u32,
    path_start: u32,
    path_stride: u32,
    table_start: u32,
    table_stride: u32,
    committed_start: u32,
    status_start: u32,
    freed_start: u32,
    freed_stride: u32,
    freed_count_start: u32,
    wants_freed: u32,
    wants_freed_count: u32,
    // Of the groups of this launch.
    groups: u32,
    // Columns of an invocation: 2 where they share a word in every row.
    unit: u32,
    units: u32,
    columns: u32,
    cache_start: u32,
    cache_group_stride: u32,
    cache_block_stride: u32,
    cache_row_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> length: array<i32>;
@group(0) @binding(2) var<storage, read> emitted: array<i32>;
@group(0) @binding(3) var<storage, read> path: array<i32>;
@group(0) @binding(4) var<storage, read> page_table: array<i32>;
#import shared/grid.wgsl

// What is wrong with a sequence, the worst first.
const IS_MALFORMED: u32 = 0u;
const IS_FULL: u32 = 1u;
const HAS_NO_PAGE: u32 = 2u;
const IS_FINE: u32 = 3u;

var<workgroup> worst: atomic<u32>;

// Rows of the path that are kept.
fn moves_of(sequence: u32) -> u32 {
    if (parameters.has_path == 0u) {
        return 0u;
    }
    return u32(max(emitted[parameters.emitted_start + sequence], 1)) - 1u;
}

fn node_of(sequence: u32, i: u32) -> i32 {
    return path[parameters.path_start + sequence * parameters.path_stride + i];
}

fn page_of(sequence: u32, page: u32) -> i32 {
    return page_table[parameters.table_start + sequence * parameters.table_stride + page];
}

fn has_page(sequence: u32, page: u32) -> bool {
    let entry = page_of(sequence, page);
    return entry >= 0 && u32(entry) < parameters.pages;
}

fn judge_numbers(sequence: u32, thread: u32) -> u32 {
    let old = length[parameters.length_start + sequence];
    let added = emitted[parameters.emitted_start + sequence];
    if (old < 0 || added < 0 || moves_of(sequence) > parameters.path_length) {
        return IS_MALFORMED;
    }
    // The sum of two numbers below 2^31.
    let end = u32(old) + u32(added);
    if (end > parameters.capacity) {
        return IS_FULL;
    }
    if (PAGED && added > 0) {
        let last = (end - 1u) / parameters.page_size;
        for (var page = u32(old) / parameters.page_size + thread; page <= last; page += THREADS) {
            if (!has_page(sequence, page)) {
                return HAS_NO_PAGE;
            }
        }
    }
    return IS_FINE;
}

fn judge_node(sequence: u32, i: u32) -> u32 {
    let node = node_of(sequence, i);
    if (node < 0 || (i > 0u && node <= node_of(sequence, max(i, 1u) - 1u))) {
        return IS_MALFORMED;
    }
    let position = u32(length[parameters.length_start + sequence]) + 1u + u32(node);
    if (position >= parameters.capacity) {
        return IS_FULL;
    }
    if (PAGED && !has_page(sequence, position / parameters.page_size)) {
        return HAS_NO_PAGE;
    }
    return IS_FINE;
}

// What is wrong with a sequence, for every invocation of the workgroup.
fn verdict(sequence: u32, thread: u32) -> u32 {
    if (thread == 0u) {
        atomicStore(&worst, IS_FINE);
    }
    workgroupBarrier();
    var own = judge_numbers(sequence, thread);
    if (own != IS_MALFORMED) {
        let moves = moves_of(sequence);
        for (var i = thread; i < moves; i += THREADS) {
            own = min(own, judge_node(sequence, i));
        }
    }
    atomicMin(&worst, own);
    workgroupBarrier();
    return atomicLoad(&worst);
}
