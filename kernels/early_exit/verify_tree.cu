// verify_tree:  from the root on, the first child whose draft is the target's token at its parent; emits the drafts on the
// way and the target's token at the last of them, cut behind the first stop id and where the budget ends.
//
// draft  [N] i32     offsets  [B + 1] u32, any values     target  [N + B] i32, negative: no token
// first_child  [N + B] i32, any values: of a row, the sequence's draft that is its first child, or negative
// next_sibling  [N] i32, any values: of a draft, the next child of the same parent, or negative
// stop_ids  [K] i32, or null     budget  [B] i32, or null
// path  [B, S] i32: the drafts on the way, then -1
// tokens  [B, S + 1] i32     accepted, emitted, next_token, last_row, finish  [B] i32, each or null
//
// grid  (ceil(B / 4))   block 128 = 4 warps; a warp owns a sequence, all of its lanes walk together
// shared  none
// Children and siblings come behind the draft that names them: a walk moves forward only and therefore ends. One that
// would not is malformed.
#include "verification.cuh"

constexpr int VERIFY_WARPS = 4;

extern "C" __global__ void __launch_bounds__(VERIFY_WARPS * 32)
    verify_tree_i32(const __grid_constant__ VerifyTreeParams p) {
    const int64_t place = int64_t(blockIdx.x) * VERIFY_WARPS + threadIdx.x / 32;
    if (place >= p.batch.sequences) return;
    const int32_t index = int32_t(place);
    const int32_t lane = threadIdx.x % 32;
    const Sequence sequence = sequence_at(p.batch, index);
    const int32_t* draft = static_cast<const int32_t*>(p.batch.draft) + sequence.first;
    const int32_t* siblings = static_cast<const int32_t*>(p.next_sibling) + sequence.first;
    const int32_t* children = static_cast<const int32_t*>(p.first_child) + sequence.first_row;
    const int32_t* target = static_cast<const int32_t*>(p.target) + sequence.first_row;
    int32_t* path = static_cast<int32_t*>(p.path) + index * p.path_row_stride;
    Walk walk{0, -1};
    bool is_valid = sequence.is_valid;
    int32_t row = 0;
    while (is_valid) {
        walk.correction = target[row];
        // Candidates lie behind the draft before them; that of row r is r - 1.
        int32_t node = walk.correction < 0 ? -1 : children[row];
        int32_t before = row - 1;
        while (node >= 0) {
            is_valid = node > before && node < sequence.drafts;
            if (!is_valid || draft[node] == walk.correction) break;
            before = node;
            node = siblings[node];
        }
        if (!is_valid || node < 0) break;
        if (lane == 0) path[walk.accepted] = node;
        walk.accepted += 1;
        row = node + 1;
    }
    // Other lanes read what the first has written.
    __syncwarp();
    End end{0, 0, FINISH_INVALID_SEQUENCE};
    const auto token = [&](int32_t at) { return at < walk.accepted ? draft[path[at]] : walk.correction; };
    if (is_valid) end = end_of(p.batch, index, walk, token);
    const int64_t last_row = end.emitted < 2 ? 0 : path[end.emitted - 2] + 1;
    write_results(p.batch, index, end, end.emitted == 0 ? -1 : sequence.first_row + last_row, token);
    // Nobody looks at what is cut before it is.
    __syncwarp();
    for (int32_t at = end.accepted + lane; at < p.batch.max_draft; at += 32) path[at] = -1;
}
SIMULATED_KERNEL(verify_tree_i32)
