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
static_assert(VOCABULARY_TILE == 4 * 32, "a lane of a warp has four ids, which share one call of Philox");

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

// Bias and cap, for the weight's row `index`, of which there is one.
template <class W> __device__ __forceinline__ float finish_logit(const ExitStatesParams& p, int64_t index, float sum) {
    float logit = sum + load_or_zero<W>(p.head_bias, index);
    if (p.softcap > 0.0f) {
        const float e = expf(-2.0f * fabsf(logit) / p.softcap);
        const float capped = p.softcap * (1.0f - e) / (1.0f + e);
        logit = logit < 0.0f ? -capped : (is_nan(logit) ? logit : capped);
    }
    return logit;
}

// A row's logits of a tile as LANES lanes share them: a lane has four neighbours, or eight and the eight that are
// 8 * LANES ids further, and so on. Every four share one call of Philox.
//
// What is long or rare is done for the first four, after which the next four become the first: its code is there once,
// and logits stay in registers, whose numbers are constants.
template <int LANES> struct LaneLogits {
    static constexpr int IDS = VOCABULARY_TILE / LANES;
    static constexpr int NEIGHBOURS = IDS < 8 ? IDS : 8;
    float logit[IDS];
    int32_t first_id; // of the tile

    __device__ __forceinline__ static int lane() { return int(threadIdx.x) % LANES; }

    // Place in the tile of the lane's logit `i`; ascends with i.
    __device__ __forceinline__ static int offset(int i) {
        return i / NEIGHBOURS * (NEIGHBOURS * LANES) + lane() * NEIGHBOURS + i % NEIGHBOURS;
    }

    __device__ __forceinline__ void next_four() {
        const float first[4] = {logit[0], logit[1], logit[2], logit[3]};
#pragma unroll
        for (int i = 0; i + 4 < IDS; ++i) logit[i] = logit[i + 4];
#pragma unroll
        for (int i = 0; i < 4; ++i) logit[IDS - 4 + i] = first[i];
    }

    // From sums to logits, which are written if they are wanted.
    template <class W>
    __device__ __forceinline__ void finish(const ExitStatesParams& p, int64_t weight_row, int row, bool is_selected,
                                           bool is_written) {
        if (p.head_bias != nullptr || p.softcap > 0.0f) {
#pragma unroll 1
            for (int four = 0; four < IDS; four += 4) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int64_t index = weight_row + offset(four) + i;
                    if (index < p.valid_rows) logit[i] = finish_logit<W>(p, index, logit[i]);
                }
                next_four();
            }
        }
        const int64_t valid = p.valid_rows - weight_row;
        const int end = valid < VOCABULARY_TILE ? int(valid) : VOCABULARY_TILE;
#pragma unroll
        for (int i = 0; i < IDS; ++i) {
            if (offset(i) >= end) logit[i] = minus_infinity();
        }
        if (p.logits == nullptr) return;
        float* logits = static_cast<float*>(p.logits) + row * p.logits_row_stride;
#pragma unroll 1
        for (int four = 0; four < IDS; four += 4) {
            float value[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) value[i] = is_selected ? logit[i] : not_a_number();
            if (is_written) store_four(logits, weight_row + offset(four), p.vocabulary, value);
            next_four();
        }
    }

    __device__ __forceinline__ static void store_four(float* logits, int64_t index, int columns,
                                                      const float (&value)[4]) {
        if (reinterpret_cast<uint64_t>(logits) % 16 == 0 && index + 4 <= columns) {
            store_floats_aligned<float, 4>(logits + index, value);
            return;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (index + i < columns) logits[index + i] = value[i];
        }
    }

    __device__ __forceinline__ Best best() const {
        float value = minus_infinity();
        int place = -1;
#pragma unroll
        for (int i = 0; i < IDS; ++i) {
            if (logit[i] > value) {
                value = logit[i];
                place = i;
            }
        }
        return place < 0 ? Best::none() : Best{value, first_id + offset(place)};
    }

    // The largest after the largest one has been taken out.
    __device__ __forceinline__ float second() const {
        float first = minus_infinity(), second = minus_infinity();
#pragma unroll
        for (int i = 0; i < IDS; ++i) {
            second = fmaxf(second, fminf(first, logit[i]));
            first = fmaxf(first, logit[i]);
        }
        return second;
    }

    __device__ __forceinline__ bool is_without_token() const {
        bool is_without = false;
#pragma unroll
        for (int i = 0; i < IDS; ++i) is_without |= is_no_logit(logit[i]);
        return is_without;
    }

    // The logit of an id, if the lane has it.
    __device__ __forceinline__ float of(int32_t id) const {
        const uint32_t wanted = uint32_t(id) - uint32_t(first_id);
        float found = minus_infinity();
#pragma unroll
        for (int i = 0; i < IDS; ++i) {
            if (wanted == uint32_t(offset(i))) found = logit[i];
        }
        return found;
    }

    __device__ __forceinline__ void take_out(int32_t id) {
        const int32_t taken = id - first_id;
#pragma unroll
        for (int i = 0; i < IDS; ++i) {
            if (taken == offset(i)) logit[i] = minus_infinity();
        }
    }

    __device__ __forceinline__ Best sample(const ExitStatesParams& p, int64_t row) {
        const uint32_t position = uint32_t(static_cast<const int32_t*>(p.positions)[row]);
        uint32_t seed[2] = {uint32_t(p.seed_low), uint32_t(p.seed_high)};
        if (p.seeds != nullptr) {
            const uint32_t* own = static_cast<const uint32_t*>(p.seeds) + row * p.seeds_row_stride;
            seed[0] = own[0];
            seed[1] = own[1];
        }
        Best best = Best::none();
#pragma unroll 1
        for (int four = 0; four < IDS; four += 4) {
            const int32_t id = first_id + offset(four);
            const Philox noise = philox(position, uint32_t(id) / 4, PURPOSE_TOKEN, 0, seed[0], seed[1]);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool is_masked = logit[i] == minus_infinity();
                const float score = is_masked ? logit[i] : fmaf(logit[i], p.inv_temperature, gumbel(noise.word[i]));
                if (score > best.value) best = Best{score, id + i};
            }
            next_four();
        }
        return best;
    }
};

// The state of one tile and row, by LANES lanes that have its logits; called by whole warps, of which each LANES lanes
// may have another row. Rows that are not to be written are summarised as if.
template <int LANES>
__device__ __forceinline__ void summarise(const ExitStatesParams& p, int tile, int row, LaneLogits<LANES>& lane,
                                          bool is_selected, bool is_written) {
    float* values = static_cast<float*>(p.state_values) + tile * p.values_tile_stride + row * p.values_row_stride;
    int32_t* tokens = static_cast<int32_t*>(p.state_tokens) + tile * p.tokens_tile_stride + row * p.tokens_row_stride;
    const bool has_no_token = any_of_lanes<LANES>(!is_selected || lane.is_without_token());
    const bool is_writer = is_written && lane.lane() == 0;
    const auto write_value = [&](int column, float value) {
        if (is_writer) values[column] = has_no_token ? not_a_number() : value;
    };
    const auto write_token = [&](int column, int32_t id) {
        if (is_writer) tokens[column] = has_no_token ? -1 : id;
    };
    const Best own = lane.best();
    const Best best = best_of_lanes<LANES>(own);
    const float second = second_of_lanes<LANES>(own.value, lane.second());
    const float base = best.id < 0 ? 0.0f : best.value;
    float sum = 0.0f, weighted = 0.0f;
#pragma unroll
    for (int i = 0; i < LaneLogits<LANES>::IDS; ++i) {
        // exp vanishes further below, where -inf times 0 would not be 0.
        const float below = fmaxf(lane.logit[i] - base, -110.0f);
        const float e = expf(below);
        sum += e;
        weighted = fmaf(below, e, weighted);
    }
    sum = sum_of_lanes<LANES>(sum);
    weighted = sum_of_lanes<LANES>(weighted);
    float gathered = minus_infinity();
    if (p.gather_tokens != nullptr) {
        gathered = max_of_lanes<LANES>(lane.of(static_cast<const int32_t*>(p.gather_tokens)[row]));
    }
    Best sampled = Best::none();
    if (p.positions != nullptr) sampled = best_of_lanes<LANES>(lane.sample(p, row));
    write_value(VALUE_MAX, best.value);
    write_value(VALUE_SECOND, second);
    write_value(VALUE_SUM, best.id < 0 ? 0.0f : sum);
    write_value(VALUE_WEIGHTED, best.id < 0 ? 0.0f : weighted);
    write_value(VALUE_GATHERED, gathered);
    write_value(VALUE_SCORE, sampled.value);
    write_token(TOKEN_MAX, best.id);
    write_token(TOKEN_SAMPLED, sampled.id);
    for (int k = 0; k < p.top_k; ++k) {
        const Best next = best_of_lanes<LANES>(lane.best());
        write_value(VALUES + k, next.value);
        write_token(TOKENS + k, next.id);
        lane.take_out(next.id);
    }
}

// States, and logits if they are wanted, of the block's rows; `sums` [rows][TILE_PITCH] lie in shared memory.
template <class W>
__device__ __forceinline__ void finish_tile(const ExitStatesParams& p, const Place& place, const float* sums,
                                            int rows_per_block) {
    for (int local = int(threadIdx.x) / 32; local < rows_per_block; local += TILE_WARPS) {
        const int row = place.first_row + local;
        if (row >= p.output_rows) break;
        const bool is_selected = source_row(p, row) >= 0;
        LaneLogits<32> lane;
        lane.first_id = p.vocab_offset + int32_t(place.weight_row);
        const float4 four = *reinterpret_cast<const float4*>(sums + local * TILE_PITCH + lane.offset(0));
        lane.logit[0] = four.x;
        lane.logit[1] = four.y;
        lane.logit[2] = four.z;
        lane.logit[3] = four.w;
        lane.finish<W>(p, place.weight_row, row, is_selected, true);
        summarise(p, place.tile, row, lane, is_selected, true);
    }
}
