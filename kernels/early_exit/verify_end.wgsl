// verify_greedy, and the end of every other verification: cuts what a walk along each draft found behind the first stop id
// and where the budget ends, and writes up to three results.
//
// draft [N] i32      offsets [B + 1] u32, any values      stop_ids [K] i32, budget [B] i32, optional
// walk_source        target tokens or stored walks, as the variant's fragment says
// out_0..2           results, by code: rows of tokens [B, S + 1] or path [B, S], or numbers [B], all i32
//
// launch  ceil(B / THREADS); an invocation owns a sequence
// With five inputs, three results are what every device can bind; walks are so short that the next launch repeats one.
//
// The fragment defines
//   fn walk_of(index: u32, sequence: Sequence) -> Walk
//   fn node_at(index: u32, place: u32) -> u32     the sequence's draft that is the walk's accepted one at `place`
#variant walk = target stored

override THREADS: u32 = 64u;

const NOTHING: u32 = 0u;
const TOKENS: u32 = 1u;
const PATH: u32 = 2u;
const ACCEPTED: u32 = 3u;
const EMITTED: u32 = 4u;
const NEXT_TOKEN: u32 = 5u;
const LAST_ROW: u32 = 6u;

const FINISH_CONTINUE: i32 = 0;
const FINISH_STOP: i32 = 1;
const FINISH_BUDGET: i32 = 2;
const FINISH_INVALID_ROW: i32 = 3;
const FINISH_INVALID_SEQUENCE: i32 = 4;

struct Parameters {
    sequences: u32,
    drafts: u32,
    max_draft: u32,
    stop_count: u32,
    has_budget: u32,
    // First elements, from the start of each binding.
    draft_start: u32,
    offsets_start: u32,
    stop_ids_start: u32,
    budget_start: u32,
    source_start: u32,
    source_stride: u32,
    // Codes, first elements and elements between rows of the results.
    out_0_code: u32,
    out_0_start: u32,
    out_0_stride: u32,
    out_1_code: u32,
    out_1_start: u32,
    out_1_stride: u32,
    out_2_code: u32,
    out_2_start: u32,
    out_2_stride: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> draft: array<i32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read> stop_ids: array<i32>;
@group(0) @binding(4) var<storage, read> budget: array<i32>;
@group(0) @binding(5) var<storage, read> walk_source: array<i32>;
@group(0) @binding(6) var<storage, read_write> out_0: array<i32>;
@group(0) @binding(7) var<storage, read_write> out_1: array<i32>;
@group(0) @binding(8) var<storage, read_write> out_2: array<i32>;
#import shared/grid.wgsl
#import early_exit/sequence.wgsl
#import early_exit/walk_$walk.wgsl

// What a walk along a draft found: `accepted` drafts, then a token, or a row without one if that is negative.
struct Walk {
    is_valid: bool,
    accepted: u32,
    correction: i32,
}

struct End {
    accepted: u32,
    emitted: u32,
    finish: i32,
}

fn draft_at(place: u32) -> i32 {
    return draft[parameters.draft_start + place];
}

fn token_at(index: u32, sequence: Sequence, walk: Walk, place: u32) -> i32 {
    if (place < walk.accepted) {
        return draft_at(sequence.first + node_at(index, place));
    }
    return walk.correction;
}

fn is_stop_id(token: i32) -> bool {
    for (var i = 0u; i < parameters.stop_count; i++) {
        if (stop_ids[parameters.stop_ids_start + i] == token) {
            return true;
        }
    }
    return false;
}

fn end_of(index: u32, sequence: Sequence, walk: Walk) -> End {
    if (!walk.is_valid) {
        return End(0u, 0u, FINISH_INVALID_SEQUENCE);
    }
    let found = walk.accepted + select(0u, 1u, walk.correction >= 0);
    var allowed = found + 1u;
    if (parameters.has_budget != 0u) {
        allowed = u32(max(budget[parameters.budget_start + index], 0));
    }
    for (var place = 0u; place < min(found, allowed); place++) {
        if (is_stop_id(token_at(index, sequence, walk, place))) {
            return End(min(walk.accepted, place + 1u), place + 1u, FINISH_STOP);
        }
    }
    if (allowed <= found) {
        return End(min(walk.accepted, allowed), allowed, FINISH_BUDGET);
    }
    return End(walk.accepted, found, select(FINISH_INVALID_ROW, FINISH_CONTINUE, walk.correction >= 0));
}

// Element `place` of a row of results.
fn element(code: u32, index: u32, sequence: Sequence, walk: Walk, end: End, place: u32) -> i32 {
    if (code == TOKENS && place < end.emitted) {
        return token_at(index, sequence, walk, place);
    }
    if (code == PATH && place < end.accepted) {
        return i32(node_at(index, place));
    }
    return -1;
}

fn number(code: u32, index: u32, sequence: Sequence, walk: Walk, end: End) -> i32 {
    switch code {
        case ACCEPTED: {
            return i32(end.accepted);
        }
        case EMITTED: {
            return i32(end.emitted);
        }
        case NEXT_TOKEN: {
            if (end.emitted == 0u) {
                return -1;
            }
            return token_at(index, sequence, walk, end.emitted - 1u);
        }
        case LAST_ROW: {
            if (end.emitted == 0u) {
                return -1;
            }
            // A node's row is that behind its own; the first one of a sequence is that before all drafts.
            var row = 0u;
            if (end.emitted > 1u) {
                row = node_at(index, end.emitted - 2u) + 1u;
            }
            return i32(sequence.first + index + row);
        }
        default: {
            return end.finish;
        }
    }
}

// Elements of a result: those of a row, or one.
fn columns_of(code: u32) -> u32 {
    if (code == NOTHING) {
        return 0u;
    }
    if (code == TOKENS) {
        return parameters.max_draft + 1u;
    }
    return select(1u, parameters.max_draft, code == PATH);
}

fn value_at(code: u32, index: u32, sequence: Sequence, walk: Walk, end: End, place: u32) -> i32 {
    if (code == TOKENS || code == PATH) {
        return element(code, index, sequence, walk, end, place);
    }
    return number(code, index, sequence, walk, end);
}

fn write_results(index: u32, sequence: Sequence, walk: Walk) {
    let end = end_of(index, sequence, walk);
    for (var place = 0u; place < columns_of(parameters.out_0_code); place++) {
        let at = parameters.out_0_start + index * parameters.out_0_stride + place;
        out_0[at] = value_at(parameters.out_0_code, index, sequence, walk, end, place);
    }
    for (var place = 0u; place < columns_of(parameters.out_1_code); place++) {
        let at = parameters.out_1_start + index * parameters.out_1_stride + place;
        out_1[at] = value_at(parameters.out_1_code, index, sequence, walk, end, place);
    }
    for (var place = 0u; place < columns_of(parameters.out_2_code); place++) {
        let at = parameters.out_2_start + index * parameters.out_2_stride + place;
        out_2[at] = value_at(parameters.out_2_code, index, sequence, walk, end, place);
    }
}

@compute @workgroup_size(THREADS)
fn verify_end(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = launch_index(workgroup, workgroups);
    // Not `block * THREADS + thread < sequences`, which may wrap in the last workgroups of two dimensions.
    if (block > (parameters.sequences - 1u) / THREADS) {
        return;
    }
    let index = block * THREADS + thread;
    if (index < parameters.sequences) {
        let sequence = sequence_at(index);
        write_results(index, sequence, walk_of(index, sequence));
    }
}
