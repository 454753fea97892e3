// From the sums of a tile of the vocabulary to states: the second half of every kernel of exit_head_states.
#pragma once
#include "numeric.cuh"
#include "params.cuh"
#include "random.cuh"
#include "state.cuh"

constexpr int TILE_WARPS = 8;
constexpr int TILE_THREADS = TILE_WARPS * 32;
constexpr int WARP_ROWS = VOCABULARY_TILE / TILE_WARPS; // rows of the weight that a warp multiplies
// Four more than the tile: rows stay 16-byte aligned, and the columns of a fragment fall on other banks.
constexpr int TILE_PITCH = VOCABULARY_TILE + 4;
static_assert(VOCABULARY_TILE == 4 * 32, "a lane has four ids, which share one call of Philox");

// The block's tile and rows.
struct Place {
    int tile;
    int64_t weight_row; // first row of the weight
    int first_row;      // first row of the outputs

    __device__ __forceinline__ Place(const ExitStatesParams& p, int rows_per_block)
        : tile(int(blockIdx.x) / p.row_blocks), weight_row(int64_t(tile) * VOCABULARY_TILE),
          first_row(int(blockIdx.x) % p.row_blocks * rows_per_block) {}
};

// The row of hidden that output row `row` is of, or -1.
__device__ __forceinline__ int source_row(const ExitStatesParams& p, int row) {
    if (row >= p.output_rows) return -1;
    const int source = p.rows == nullptr ? row : static_cast<const int32_t*>(p.rows)[row];
    return source >= 0 && source < p.hidden_rows ? source : -1;
}

// The activations of output row `row`, or null.
template <class A> __device__ __forceinline__ const A* activation_row(const ExitStatesParams& p, int row) {
    const int source = source_row(p, row);
    if (source < 0) return nullptr;
    return static_cast<const A*>(p.activations) + (p.is_prepared ? row : source) * p.activations_row_stride;
}

// Bias, cap and mask for the weight's row `index`.
template <class W> __device__ __forceinline__ float finish_logit(const ExitStatesParams& p, int64_t index, float sum) {
    if (index >= p.valid_rows) return minus_infinity();
    float logit = sum + load_or_zero<W>(p.head_bias, index);
    if (p.softcap > 0.0f) {
        const float e = expf(-2.0f * fabsf(logit) / p.softcap);
        const float capped = p.softcap * (1.0f - e) / (1.0f + e);
        logit = logit < 0.0f ? -capped : (is_nan(logit) ? logit : capped);
    }
    return logit;
}

// A lane's four logits, of consecutive ids, and what a warp makes of its 128.
struct LaneLogits {
    float logit[4];
    int32_t id; // of the first

    __device__ __forceinline__ Best best_of(const float (&value)[4]) const {
        Best best = Best::none();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (value[i] > best.value) best = Best{value[i], id + i};
        }
        return best;
    }

    // The four after the largest one has been taken out.
    __device__ __forceinline__ float second() const {
        float first = minus_infinity(), second = minus_infinity();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            second = fmaxf(second, fminf(first, logit[i]));
            first = fmaxf(first, logit[i]);
        }
        return second;
    }

    __device__ __forceinline__ Best sample(const ExitStatesParams& p, int64_t row) const {
        const uint32_t position = uint32_t(static_cast<const int32_t*>(p.positions)[row]);
        uint32_t seed[2] = {uint32_t(p.seed_low), uint32_t(p.seed_high)};
        if (p.seeds != nullptr) {
            const uint32_t* own = static_cast<const uint32_t*>(p.seeds) + row * p.seeds_row_stride;
            seed[0] = own[0];
            seed[1] = own[1];
        }
        const Philox noise = philox(position, uint32_t(id) / 4, PURPOSE_TOKEN, 0, seed[0], seed[1]);
        float score[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const bool is_masked = logit[i] == minus_infinity();
            score[i] = is_masked ? logit[i] : fmaf(logit[i], p.inv_temperature, gumbel(noise.word[i]));
        }
        return best_of(score);
    }
};

// The state of one tile and row; called by a whole warp.
__device__ __forceinline__ void summarise(const ExitStatesParams& p, const Place& place, int row, LaneLogits lane,
                                          bool is_selected) {
    const int number = int(threadIdx.x) % 32;
    float* values = static_cast<float*>(p.state_values) + place.tile * p.values_tile_stride +
                    row * p.values_row_stride;
    int32_t* tokens = static_cast<int32_t*>(p.state_tokens) + place.tile * p.tokens_tile_stride +
                      row * p.tokens_row_stride;
    bool has_no_token = !is_selected;
#pragma unroll
    for (int i = 0; i < 4; ++i) has_no_token = has_no_token || is_no_logit(lane.logit[i]);
    if (__any_sync(FULL_WARP, has_no_token)) {
        for (int i = number; i < VALUES + p.top_k; i += 32) values[i] = not_a_number();
        for (int i = number; i < TOKENS + p.top_k; i += 32) tokens[i] = -1;
        return;
    }
    const Best own = lane.best_of(lane.logit);
    const Best best = warp_best(own);
    const float second = warp_second(own.value, lane.second());
    const float base = best.id < 0 ? 0.0f : best.value;
    float sum = 0.0f, weighted = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        // exp vanishes further below, where -inf times 0 would not be 0.
        const float below = fmaxf(lane.logit[i] - base, -110.0f);
        const float e = expf(below);
        sum += e;
        weighted = fmaf(below, e, weighted);
    }
    sum = warp_sum(sum);
    weighted = warp_sum(weighted);
    float gathered = minus_infinity();
    if (p.gather_tokens != nullptr) {
        const uint32_t offset = uint32_t(static_cast<const int32_t*>(p.gather_tokens)[row]) - uint32_t(lane.id);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (offset == uint32_t(i)) gathered = lane.logit[i];
        }
        gathered = warp_max(gathered);
    }
    Best sampled = Best::none();
    if (p.positions != nullptr) {
        sampled = warp_best(lane.sample(p, row));
    }
    if (number == 0) {
        values[VALUE_MAX] = best.value;
        values[VALUE_SECOND] = second;
        values[VALUE_SUM] = best.id < 0 ? 0.0f : sum;
        values[VALUE_WEIGHTED] = best.id < 0 ? 0.0f : weighted;
        values[VALUE_GATHERED] = gathered;
        values[VALUE_SCORE] = sampled.value;
        tokens[TOKEN_MAX] = best.id;
        tokens[TOKEN_SAMPLED] = sampled.id;
    }
    for (int k = 0; k < p.top_k; ++k) {
        const Best next = warp_best(lane.best_of(lane.logit));
        if (number == 0) {
            values[VALUES + k] = next.value;
            tokens[TOKENS + k] = next.id;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (next.id == lane.id + i) lane.logit[i] = minus_infinity();
        }
    }
}

// States, and logits if they are wanted, of the block's rows; `sums` [rows][TILE_PITCH] lie in shared memory.
template <class W>
__device__ __forceinline__ void finish_tile(const ExitStatesParams& p, const Place& place, const float* sums,
                                            int rows_per_block) {
    const int number = int(threadIdx.x) % 32;
    for (int local = int(threadIdx.x) / 32; local < rows_per_block; local += TILE_WARPS) {
        const int row = place.first_row + local;
        if (row >= p.output_rows) break;
        const bool is_selected = source_row(p, row) >= 0;
        LaneLogits lane;
        lane.id = p.vocab_offset + int32_t(place.weight_row) + 4 * number;
        const float4 four = *reinterpret_cast<const float4*>(sums + local * TILE_PITCH + 4 * number);
        const float sum[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int64_t index = place.weight_row + 4 * number + i;
            lane.logit[i] = is_selected ? finish_logit<W>(p, index, sum[i]) : not_a_number();
            if (p.logits != nullptr && index < p.vocabulary) {
                static_cast<float*>(p.logits)[row * p.logits_row_stride + index] = lane.logit[i];
            }
        }
        summarise(p, place, row, lane, is_selected);
    }
}
