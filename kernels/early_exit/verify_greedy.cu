// verify_greedy:  n = how many leading draft[i] == target[i];  emits draft[..n], target[n], cut behind the first stop id
// and where the budget ends.
//
// draft  [N] i32     offsets  [B + 1] u32, any values     target  [N + B] i32, negative: no token
// stop_ids  [K] i32, or null     budget  [B] i32, or null
// tokens  [B, S + 1] i32     accepted, emitted, next_token, last_row, finish  [B] i32, each or null
//
// grid  (ceil(B / 4))   block 128 = 4 warps; a warp owns a sequence, a lane every 32nd draft
// shared  none
#include "verification.cuh"

constexpr int VERIFY_WARPS = 4;

extern "C" __global__ void __launch_bounds__(VERIFY_WARPS * 32)
    verify_greedy_i32(const __grid_constant__ VerifyGreedyParams p) {
    const int64_t index = int64_t(blockIdx.x) * VERIFY_WARPS + threadIdx.x / 32;
    if (index >= p.batch.sequences) return;
    const Sequence sequence = sequence_at(p.batch, int32_t(index));
    if (!sequence.is_valid) {
        write_invalid(p.batch, int32_t(index));
        return;
    }
    const int32_t lane = threadIdx.x % 32;
    const int32_t* draft = static_cast<const int32_t*>(p.batch.draft) + sequence.first;
    const int32_t* target = static_cast<const int32_t*>(p.target) + sequence.first_row;
    int32_t accepted = sequence.drafts;
    for (int32_t base = 0; base < sequence.drafts && accepted == sequence.drafts; base += 32) {
        const int32_t i = base + lane;
        const bool differs = i < sequence.drafts && (draft[i] != target[i] || target[i] < 0);
        const uint32_t votes = __ballot_sync(FULL_WARP, differs);
        if (votes != 0) accepted = base + __ffs(votes) - 1;
    }
    end_chain(p.batch, int32_t(index), sequence, Walk{accepted, target[accepted]});
}
SIMULATED_KERNEL(verify_greedy_i32)
