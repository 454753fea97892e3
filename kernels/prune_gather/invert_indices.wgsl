// rank[indices[i]] = i, -1 for the other features;  first_invalid = the first i with indices[i] >= n or
// indices[i] <= indices[i - 1], or -1. If there is one, every rank is -1.
//
// indices  [k] u32, any values          rank  [n] i32          first_invalid  [1] i32, optional
//
// launch  max(ceil(n / (4 THREADS)), 1) workgroups; an invocation finds 4 features by bisection
// memory  THREADS words
// Every workgroup checks all indices, so that none waits for another; ranks are gathered, so that wrong indices cannot
// write anywhere.

override THREADS: u32 = 256u;
override FLAG: bool = true;

const ITEMS: u32 = 4u;

struct Parameters {
    selected: u32,
    features: u32,
    // First elements, from the start of each binding.
    indices_start: u32,
    rank_start: u32,
    first_invalid_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> rank: array<i32>;
@group(0) @binding(3) var<storage, read_write> first_invalid: array<i32>;
#import shared/grid.wgsl

var<workgroup> earliest: array<u32, THREADS>;

fn index_at(i: u32) -> u32 {
    return indices[parameters.indices_start + i];
}

// The first invalid position among every THREADS-th one from `thread` on, or `selected`.
fn own_invalid(thread: u32) -> u32 {
    for (var i = thread; i < parameters.selected; i += THREADS) {
        let index = index_at(i);
        if (index >= parameters.features || (i > 0u && index <= index_at(max(i, 1u) - 1u))) {
            return i;
        }
    }
    return parameters.selected;
}

fn place(feature: u32) -> i32 {
    var below = 0u;
    var end = parameters.selected;
    while (below < end) {
        let middle = below + (end - below) / 2u;
        if (index_at(middle) < feature) {
            below = middle + 1u;
        } else {
            end = middle;
        }
    }
    if (below < parameters.selected) {
        return select(-1, i32(below), index_at(below) == feature);
    }
    return -1;
}

@compute @workgroup_size(THREADS)
fn invert_indices(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = launch_index(workgroup, workgroups);
    earliest[thread] = own_invalid(thread);
    workgroupBarrier();
    // Invocations read what lies behind the ones that still write.
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (thread < half) {
            earliest[thread] = min(earliest[thread], earliest[thread + half]);
        }
        workgroupBarrier();
    }
    let is_set = earliest[0] == parameters.selected;
    if (FLAG && block == 0u && thread == 0u) {
        first_invalid[parameters.first_invalid_start] = select(i32(earliest[0]), -1, is_set);
    }
    // Not `block * ITEMS * THREADS < features`, which may wrap in the last workgroups of two dimensions.
    if (block >= (parameters.features + ITEMS * THREADS - 1u) / (ITEMS * THREADS)) {
        return;
    }
    for (var item = 0u; item < ITEMS; item++) {
        let feature = (block * ITEMS + item) * THREADS + thread;
        if (feature >= parameters.features) {
            return;
        }
        var found = -1;
        if (is_set) {
            found = place(feature);
        }
        rank[parameters.rank_start + feature] = found;
    }
}
