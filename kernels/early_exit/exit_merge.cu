// merge_exit_states: results of a row from the states of all tiles.
//
//   m = max m1;   s = sum exp(m1 - m) s;   t = sum exp(m1 - m) (t + (m1 - m) s)
//   log_sum_exp = m + ln s;   entropy = ln s - t / s
//
// state_values  [tiles, M, 6 + k]  f32      state_tokens  [tiles, M, 2 + k]  int32_t      any of the results, by row
//
// grid  (M)   block 128 = 4 warps; a block owns a row, a thread every 128th tile
// shared  272 bytes, for exchange across warps
// What is chosen is chosen by a total order on (value, -id). Sums are in f32 in an order that the number of tiles fixes.
// The k best are found one after the other, each the first behind the last in that order: tiles' lists are sorted, so
// that a thread looks at few entries of each.
#include "device.cuh"
#include "params.cuh"
#include "reduce.cuh"
#include "state.cuh"

constexpr int MERGE_WARPS = 4;
constexpr int MERGE_THREADS = MERGE_WARPS * 32;

// The best of a block, in every thread.
__device__ __forceinline__ Best block_best(Best best, float* values, int32_t* ids) {
    best = best_of_lanes<32>(best);
    // The last call's readers may still be at work.
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        values[threadIdx.x / 32] = best.value;
        ids[threadIdx.x / 32] = best.id;
    }
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < MERGE_WARPS; ++warp) best.take(Best{values[warp], ids[warp]});
    return best;
}

template <class T> __device__ __forceinline__ void put(void* tensor, int64_t index, T value) {
    if (tensor != nullptr) static_cast<T*>(tensor)[index] = value;
}

struct RowStates {
    const float* values;
    const int32_t* tokens;
    int64_t value_stride; // between tiles
    int64_t token_stride;

    __device__ __forceinline__ RowStates(const ExitMergeParams& p, int64_t row)
        : values(static_cast<const float*>(p.state_values) + row * p.values_row_stride),
          tokens(static_cast<const int32_t*>(p.state_tokens) + row * p.tokens_row_stride),
          value_stride(p.values_tile_stride), token_stride(p.tokens_tile_stride) {}

    __device__ __forceinline__ float value(int64_t tile, int column) const {
        return values[tile * value_stride + column];
    }
    __device__ __forceinline__ int32_t token(int64_t tile, int column) const {
        return tokens[tile * token_stride + column];
    }
};

// The first of a thread's listed logits behind `last`.
__device__ __forceinline__ Best next_listed(const ExitMergeParams& p, const RowStates& states, const Best& last,
                                            bool is_first) {
    Best next = Best::none();
    for (int tile = int(threadIdx.x); tile < p.tiles; tile += MERGE_THREADS) {
        for (int k = 0; k < p.top_k; ++k) {
            const Best candidate = {states.value(tile, VALUES + k), states.token(tile, TOKENS + k)};
            if (candidate.id < 0 || next.is_before(candidate)) break;
            if (is_first || last.is_before(candidate)) {
                next = candidate;
                break;
            }
        }
    }
    return next;
}

extern "C" __global__ void __launch_bounds__(MERGE_THREADS, 4)
    exit_merge_f32(const __grid_constant__ ExitMergeParams p) {
    SHARED_ARRAY(float, shared_values, [MERGE_WARPS]);
    SHARED_ARRAY(int32_t, shared_ids, [MERGE_WARPS]);
    SHARED_ARRAY(float, shared_seconds, [MERGE_WARPS]);
    const int64_t row = blockIdx.x;
    const RowStates states(p, row);
    grid_dependency_wait();

    bool has_no_token = false;
    Best best = Best::none(), sampled = Best::none(), gathered = Best::none();
    float second = minus_infinity();
    for (int tile = int(threadIdx.x); tile < p.tiles; tile += MERGE_THREADS) {
        const float max = states.value(tile, VALUE_MAX);
        has_no_token = has_no_token || is_nan(max);
        second = fmaxf(fmaxf(second, states.value(tile, VALUE_SECOND)), fminf(best.value, max));
        best.take(Best{max, states.token(tile, TOKEN_MAX)});
        sampled.take(Best{states.value(tile, VALUE_SCORE), states.token(tile, TOKEN_SAMPLED)});
        gathered.take(Best{states.value(tile, VALUE_GATHERED), 0});
    }
    second = second_of_lanes<32>(best.value, second);
    best = block_best(best, shared_values, shared_ids);
    // Behind block_best's barriers nobody has yet overwritten the warps' largest values.
    if (threadIdx.x % 32 == 0) shared_seconds[threadIdx.x / 32] = second;
    __syncthreads();
    float first = minus_infinity();
    second = minus_infinity();
#pragma unroll
    for (int warp = 0; warp < MERGE_WARPS; ++warp) {
        second = fmaxf(fmaxf(second, shared_seconds[warp]), fminf(first, shared_values[warp]));
        first = fmaxf(first, shared_values[warp]);
    }
    sampled = block_best(sampled, shared_values, shared_ids);
    gathered = block_best(gathered, shared_values, shared_ids);
    const bool is_row = block_best(Best{has_no_token ? 1.0f : 0.0f, 0}, shared_values, shared_ids).value == 0.0f;

    float sum = 0.0f, weighted = 0.0f;
    for (int tile = int(threadIdx.x); tile < p.tiles && best.id >= 0; tile += MERGE_THREADS) {
        const float max = states.value(tile, VALUE_MAX);
        if (!(max > minus_infinity())) continue;
        const float lower = max - best.value, factor = expf(lower);
        const float tile_sum = states.value(tile, VALUE_SUM);
        sum = fmaf(factor, tile_sum, sum);
        weighted = fmaf(factor, fmaf(lower, tile_sum, states.value(tile, VALUE_WEIGHTED)), weighted);
    }
    sum = block_sum<MERGE_WARPS>(sum, shared_values);
    weighted = block_sum<MERGE_WARPS>(weighted, shared_values);

    if (threadIdx.x == 0) {
        const float nothing = not_a_number();
        put(p.token, row, is_row ? best.id : -1);
        put(p.max_logit, row, is_row ? best.value : nothing);
        put(p.second_logit, row, is_row ? second : nothing);
        put(p.log_sum_exp, row, is_row ? best.value + logf(sum) : nothing);
        put(p.entropy, row, is_row ? logf(sum) - weighted / sum : nothing);
        put(p.gathered_logit, row, is_row ? gathered.value : nothing);
        put(p.sampled_token, row, is_row ? sampled.id : -1);
    }
    if (p.top_logits == nullptr && p.top_tokens == nullptr) return;
    Best last = Best::none();
    for (int k = 0; k < p.top_k; ++k) {
        // Once there is nothing more, there is nothing more: looked at in vain, but by all threads alike.
        const bool is_open = k == 0 || last.id >= 0;
        Best next = Best::none();
        if (is_row && is_open) next = next_listed(p, states, last, k == 0);
        last = block_best(next, shared_values, shared_ids);
        if (threadIdx.x == 0) {
            put(p.top_logits, row * p.top_logits_row_stride + k, is_row ? last.value : not_a_number());
            put(p.top_tokens, row * p.top_tokens_row_stride + k, last.id);
        }
    }
}
SIMULATED_KERNEL(exit_merge_f32)
