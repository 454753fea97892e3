// selective_expand: the selected branches, back to all features
//   out[b,t,:] = W (sum_i w[b,i,:] * o[b,t,i,:]) + bias     for t < length[b], 0 behind
//
// states o  [B, L, N, d1]  f32      weights w  [B, N, d1]  f32      W  [D, d1], bias  [D]  weight dtype W, bias optional
// out  [B, L, D]  f32, f16 or bf16, batch and token strides
//
// grid  (ceil(B L / 32), ceil(D / 64))   block 128
// shared  6,656 bytes: 32 tokens' selected states and 64 rows of W, 16 deep, as f32
// A thread owns 4 tokens x 4 rows, as in gru_input; the sum over the branches is made where the tile is loaded, by FMAs
// in order, and the product is summed over d1 in order: a token's bits are its own. A tile without a valid token is
// filled with zeros and nothing is read. One rounding, to the output's type.
#include "product_tile.cuh"
#include "selective_params.cuh"

struct SelectedToken {
    const float* states;  // null: the token is padding, or behind the batch
    const float* weights;
};

__device__ __forceinline__ bool is_valid(const SelectiveExpandParams& p, int64_t token) {
    if (token >= int64_t(p.batch) * p.steps) return false;
    return token % p.steps < row_length(p.lengths, int(token / p.steps), p.steps);
}

__device__ __forceinline__ SelectedToken selected_token(const SelectiveExpandParams& p, int64_t token) {
    SelectedToken place = {nullptr, nullptr};
    if (is_valid(p, token)) {
        const int64_t row = int64_t(p.branches) * p.reduced;
        place.states = static_cast<const float*>(p.states) + token * row;
        place.weights = static_cast<const float*>(p.weights) + token / p.steps * row;
    }
    return place;
}

// Four channels of what is selected from a token; zeros past their end.
__device__ __forceinline__ void load_selected(const SelectiveExpandParams& p, const SelectedToken& place, int column,
                                              float (&value)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = 0.0f;
    if (place.states == nullptr) return;
    const bool vectorised = p.reduced % 4 == 0;
    for (int branch = 0; branch < p.branches; ++branch) {
        const int64_t row = int64_t(branch) * p.reduced;
        float state[4], weight[4];
        load_four(place.states + row, column, p.reduced, vectorised, state);
        load_four(place.weights + row, column, p.reduced, vectorised, weight);
#pragma unroll
        for (int i = 0; i < 4; ++i) value[i] = fmaf(weight[i], state[i], value[i]);
    }
}

template <class W>
__device__ __forceinline__ void expand_tile(const SelectiveExpandParams& p, const InputTile& tile, int64_t first_token,
                                            int first_row, float (&sum)[INPUT_OWN][INPUT_OWN]) {
    const SelectedToken place = selected_token(p, first_token + tile.loaded());
    const W* weight[INPUT_PANELS];
#pragma unroll
    for (int panel = 0; panel < INPUT_PANELS; ++panel) {
        const int row = first_row + panel * INPUT_LOADED + tile.loaded();
        weight[panel] = nullptr;
        if (row < p.features) weight[panel] = static_cast<const W*>(p.expand.weight) + row * p.expand.row_stride;
    }
    const auto load_x = [&](int column, float (&value)[4]) { load_selected(p, place, column, value); };
    sum_tile(tile, p.reduced, load_x, weight, p.weight_vectorised, sum);
}

template <class W> __device__ __forceinline__ void selective_expand(const SelectiveExpandParams& p) {
    SHARED_ARRAY(float, x_tile, [INPUT_DEPTH * INPUT_TOKEN_PITCH]);
    SHARED_ARRAY(float, weight_tile, [INPUT_DEPTH * INPUT_ROW_PITCH]);
    const InputTile tile = {x_tile, weight_tile, int(threadIdx.x)};
    const int64_t first_token = int64_t(blockIdx.x) * INPUT_TOKENS;
    const int first_row = int(blockIdx.y) * INPUT_ROWS;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    float sum[INPUT_OWN][INPUT_OWN] = {};
    if (has_valid_token(p.lengths, p.batch, p.steps, first_token)) {
        expand_tile<W>(p, tile, first_token, first_row, sum);
    }

    const int64_t own_token = first_token + tile.own_token();
    const int own_row = first_row + tile.own_row();
#pragma unroll
    for (int i = 0; i < INPUT_OWN * INPUT_OWN; ++i) {
        const int64_t token = own_token + i / INPUT_OWN;
        const int row = own_row + i % INPUT_OWN;
        if (token >= int64_t(p.batch) * p.steps || row >= p.features) continue;
        const float value = sum[i / INPUT_OWN][i % INPUT_OWN] + load_or_zero<W>(p.expand.bias, row);
        const int64_t place = token / p.steps * p.out_batch_stride + token % p.steps * p.out_token_stride + row;
        store_as(p.out, place, p.out_dtype, is_valid(p, token) ? value : 0.0f);
    }
}

#define EXPAND_KERNEL(W)                                                                                              \
    extern "C" __global__ void __launch_bounds__(INPUT_THREADS, 4)                                                    \
        selective_expand_##W(const __grid_constant__ SelectiveExpandParams p) {                                       \
        selective_expand<W>(p);                                                                                       \
    }                                                                                                                 \
    SIMULATED_KERNEL(selective_expand_##W)

EXPAND_KERNEL(f32)
EXPAND_KERNEL(f16)
EXPAND_KERNEL(bf16)
