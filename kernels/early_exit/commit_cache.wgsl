// commit_cache: lengths, pages and whether a sequence can be committed.
//   committed_length[b] = length[b] + emitted[b]
//   freed_pages[b] = the pages wholly behind the new length, in order, where there are pages
//
// length, emitted  [B]  path  [B, S]  page_table  [B, P]  i32
// committed_length, status, freed_count  [B]      freed_pages  [B, P]  i32, -1 behind the last
//
// launch  B; a workgroup a sequence
// workgroup memory  THREADS + 1 words
// A device binds 8 buffers: commit_move.wgsl moves rows, whichever of the two runs first.

#import early_exit/commit.wgsl
@group(0) @binding(5) var<storage, read_write> committed_length: array<i32>;
@group(0) @binding(6) var<storage, read_write> status: array<i32>;
@group(0) @binding(7) var<storage, read_write> freed_pages: array<i32>;
@group(0) @binding(8) var<storage, read_write> freed_count: array<i32>;
#import shared/scan.wgsl

fn status_of(found: u32) -> i32 {
    switch (found) {
        case IS_FINE: { return 0; }
        case IS_FULL: { return 1; }
        case HAS_NO_PAGE: { return 2; }
        default: { return 3; }
    }
}

@compute @workgroup_size(THREADS)
fn commit_cache(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let sequence = launch_index(workgroup, workgroups);
    if (sequence >= parameters.batch) {
        return;
    }
    let found = verdict(sequence, thread);
    let is_fine = found == IS_FINE;
    let old = length[parameters.length_start + sequence];
    let new_length = old + select(0, emitted[parameters.emitted_start + sequence], is_fine);
    if (thread == 0u) {
        committed_length[parameters.committed_start + sequence] = new_length;
        status[parameters.status_start + sequence] = status_of(found);
    }
    if (!PAGED) {
        return;
    }
    let behind = (u32(max(new_length, 0)) + parameters.page_size - 1u) / parameters.page_size;
    let freed_row = parameters.freed_start + sequence * parameters.freed_stride;
    var count = 0u;
    // Over the whole table: who has met the verdict alone may not skip a barrier.
    for (var first = 0u; first < parameters.table_length; first += THREADS) {
        let page = first + thread;
        var freed = false;
        if (is_fine && page >= behind && page < parameters.table_length) {
            freed = has_page(sequence, page);
        }
        let sums = scan(select(0u, 1u, freed), thread);
        if (freed && parameters.wants_freed != 0u) {
            freed_pages[freed_row + count + sums.x] = page_of(sequence, page);
        }
        count += sums.y;
    }
    if (parameters.wants_freed != 0u) {
        for (var place = count + thread; place < parameters.table_length; place += THREADS) {
            freed_pages[freed_row + place] = -1;
        }
    }
    if (thread == 0u && parameters.wants_freed_count != 0u) {
        freed_count[parameters.freed_count_start + sequence] = i32(count);
    }
}
