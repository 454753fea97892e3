// A tile of what a GRU's gates take from its input, x W^T + b: gru_input's work, and that of selective_branches.
#pragma once
#include "product_tile.cuh"

template <class A> __device__ __forceinline__ const A* token_row(const GruInputParams& p, int64_t token) {
    if (token >= int64_t(p.batch) * p.steps) return nullptr;
    return static_cast<const A*>(p.x) + token / p.steps * p.x_batch_stride + token % p.steps * p.x_token_stride;
}

// Row `row` of both matrices, one below the other, or null behind them.
template <class W> __device__ __forceinline__ const W* weight_row(const GruInputParams& p, int row) {
    if (row >= p.directions * p.outputs) return nullptr;
    const bool reverse = row >= p.outputs;
    const W* weight = static_cast<const W*>(reverse ? p.reverse.weight : p.forward.weight);
    return weight + (reverse ? (row - p.outputs) * p.reverse.row_stride : row * p.forward.row_stride);
}

template <class W> __device__ __forceinline__ float bias_of(const GruInputParams& p, int row) {
    return row < p.outputs ? load_or_zero<W>(p.forward.bias, row) : load_or_zero<W>(p.reverse.bias, row - p.outputs);
}

// 32 tokens by 64 rows to the gates; called by the whole block. Tokens and rows behind the last ones are left out.
template <class A, class W>
__device__ __forceinline__ void input_tile(const GruInputParams& p, const InputTile& tile, int64_t first_token,
                                           int first_row) {
    const A* x = token_row<A>(p, first_token + tile.loaded());
    const W* weight[INPUT_PANELS];
#pragma unroll
    for (int panel = 0; panel < INPUT_PANELS; ++panel) {
        weight[panel] = weight_row<W>(p, first_row + panel * INPUT_LOADED + tile.loaded());
    }
    const auto load_x = [&](int column, float (&value)[4]) {
        load_or_clear(x, column, p.features, p.x_vectorised, value);
    };
    float sum[INPUT_OWN][INPUT_OWN] = {};
    sum_tile(tile, p.features, load_x, weight, p.weight_vectorised, sum);

    float* gates = static_cast<float*>(p.gates);
    const int64_t token = first_token + tile.own_token();
    const int row = first_row + tile.own_row();
    const int rows = p.directions * p.outputs;
#pragma unroll
    for (int i = 0; i < INPUT_OWN * INPUT_OWN; ++i) {
        if (token + i / INPUT_OWN >= int64_t(p.batch) * p.steps || row + i % INPUT_OWN >= rows) continue;
        const float bias = bias_of<W>(p, row + i % INPUT_OWN);
        gates[(token + i / INPUT_OWN) * rows + row + i % INPUT_OWN] = sum[i / INPUT_OWN][i % INPUT_OWN] + bias;
    }
}
