// verify_tree, the walk:  from the root on, the first child whose draft is the target's token at its parent.
//
// draft [N] i32      offsets [B + 1] u32, any values      target_tokens [N + B] i32, negative: no token
// first_child [N + B] i32, any values: of a row, the sequence's draft that is its first child, or negative
// next_sibling [N] i32, any values: of a draft, the next child of the same parent, or negative
// walks [B, 2 + S] i32: how many drafts are on the way, or -1 if the sequence is malformed; the target's token at the
//                       last of them, or -1; which drafts they are
//
// launch  ceil(B / THREADS); an invocation owns a sequence
// Children and siblings come behind the draft that names them: a walk moves forward only and therefore ends. One that
// would not is malformed.

override THREADS: u32 = 64u;

struct Parameters {
    sequences: u32,
    drafts: u32,
    max_draft: u32,
    // First elements, from the start of each binding.
    draft_start: u32,
    offsets_start: u32,
    first_child_start: u32,
    next_sibling_start: u32,
    target_start: u32,
    walks_start: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> draft: array<i32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read> first_child: array<i32>;
@group(0) @binding(4) var<storage, read> next_sibling: array<i32>;
@group(0) @binding(5) var<storage, read> target_tokens: array<i32>;
@group(0) @binding(6) var<storage, read_write> walks: array<i32>;
#import shared/grid.wgsl
#import early_exit/sequence.wgsl

const NOBODY: i32 = -1;
const MALFORMED: i32 = -2;

// The child of `row` with this draft token.
fn child_of(index: u32, sequence: Sequence, row: u32, token: i32) -> i32 {
    var node = first_child[parameters.first_child_start + sequence.first + index + row];
    // Candidates lie behind the draft before them; that of row r is r - 1.
    var before = i32(row) - 1;
    while (node >= 0) {
        if (node <= before || node >= i32(sequence.drafts)) {
            return MALFORMED;
        }
        let at = sequence.first + u32(node);
        if (draft[parameters.draft_start + at] == token) {
            return node;
        }
        before = node;
        node = next_sibling[parameters.next_sibling_start + at];
    }
    return NOBODY;
}

fn walk(index: u32, sequence: Sequence) {
    let at = parameters.walks_start + index * (2u + parameters.max_draft);
    walks[at] = -1;
    if (!sequence.is_valid) {
        return;
    }
    var accepted = 0u;
    var row = 0u;
    var token = NOBODY;
    loop {
        token = target_tokens[parameters.target_start + sequence.first + index + row];
        if (token < 0) {
            break;
        }
        let node = child_of(index, sequence, row, token);
        if (node == MALFORMED) {
            return;
        }
        if (node == NOBODY) {
            break;
        }
        walks[at + 2u + accepted] = node;
        accepted++;
        row = u32(node) + 1u;
    }
    walks[at] = i32(accepted);
    walks[at + 1u] = token;
}

@compute @workgroup_size(THREADS)
fn verify_tree(
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
        walk(index, sequence_at(index));
    }
}
