// A tile of a product x W^T in f32, as gru_input and selective_expand compute it: 32 tokens by 64 rows of W, 16 deep, a
// thread 4 tokens by 4 rows. Sums run over the columns in order, by FMAs. A block may hold several such groups of threads
// side by side, each with a tile of its own, as long as all sum over equally many columns: they meet at the same barriers.
#pragma once
#include "gru.cuh"

constexpr int INPUT_THREADS = 128;
constexpr int INPUT_TOKENS = 32;
constexpr int INPUT_ROWS = 64;
constexpr int INPUT_DEPTH = 16;
constexpr int INPUT_OWN = 4;                         // tokens and rows of a thread
constexpr int INPUT_QUARTERS = INPUT_DEPTH / 4;      // threads that load one row
constexpr int INPUT_LOADED = INPUT_THREADS / INPUT_QUARTERS; // rows that all of them load at once
constexpr int INPUT_PANELS = INPUT_ROWS / INPUT_LOADED;
// 4 more than the rows: what a thread reads stays 16-byte aligned.
constexpr int INPUT_TOKEN_PITCH = INPUT_TOKENS + 4;
constexpr int INPUT_ROW_PITCH = INPUT_ROWS + 4;
static_assert(INPUT_LOADED == INPUT_TOKENS, "one load of x a thread");

// Whether any of the tile's tokens is valid.
__device__ __forceinline__ bool has_valid_token(const void* lengths, int batch, int steps, int64_t first) {
    const int64_t end = min(first + INPUT_TOKENS, int64_t(batch) * steps);
    for (int64_t row = first / steps; row * steps < end; ++row) {
        if (row_length(lengths, int(row), steps) > first - row * steps) return true;
    }
    return false;
}

template <class T>
__device__ __forceinline__ void load_or_clear(const T* row, int column, int columns, bool vectorised,
                                              float (&value)[4]) {
    load_four(row, column, row == nullptr ? 0 : columns, vectorised, value);
}

// Four elements of a row to four rows of a tile that has k outermost.
template <int PITCH>
__device__ __forceinline__ void store_transposed(float* tile, int k, int row, const float (&value)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) tile[(k + i) * PITCH + row] = value[i];
}

// What a tile's threads share, and which of them this one is.
struct InputTile {
    float* x;      // [INPUT_DEPTH][INPUT_TOKEN_PITCH]
    float* weight; // [INPUT_DEPTH][INPUT_ROW_PITCH]
    int thread;

    // The row that the thread loads, of x and of each panel, and its first column.
    __device__ __forceinline__ int loaded() const { return thread / INPUT_QUARTERS; }
    __device__ __forceinline__ int quarter() const { return thread % INPUT_QUARTERS * 4; }
    // The first of the tokens and of the rows whose sums the thread has.
    __device__ __forceinline__ int own_token() const { return thread / 16 * INPUT_OWN; }
    __device__ __forceinline__ int own_row() const { return thread % 16 * INPUT_OWN; }
};

__device__ __forceinline__ void multiply(const InputTile& tile, float (&sum)[INPUT_OWN][INPUT_OWN]) {
    const int own_token = tile.own_token();
    const int own_row = tile.own_row();
#pragma unroll
    for (int k = 0; k < INPUT_DEPTH; ++k) {
        const float4 x4 = *reinterpret_cast<const float4*>(tile.x + k * INPUT_TOKEN_PITCH + own_token);
        const float4 w4 = *reinterpret_cast<const float4*>(tile.weight + k * INPUT_ROW_PITCH + own_row);
        const float x[INPUT_OWN] = {x4.x, x4.y, x4.z, x4.w};
        const float w[INPUT_OWN] = {w4.x, w4.y, w4.z, w4.w};
#pragma unroll
        for (int token = 0; token < INPUT_OWN; ++token) {
#pragma unroll
            for (int row = 0; row < INPUT_OWN; ++row) sum[token][row] = fmaf(x[token], w[row], sum[token][row]);
        }
    }
}

// The sums over all columns. `load_x(column, value)` gives four columns of the token that the thread loads, and
// `weight[panel]` is a row of W or null, for zeros. Called by the whole block.
template <class W, class LoadX>
__device__ __forceinline__ void sum_tile(const InputTile& tile, int columns, const LoadX& load_x,
                                         const W* const (&weight)[INPUT_PANELS], bool weight_vectorised,
                                         float (&sum)[INPUT_OWN][INPUT_OWN]) {
    const int quarter = tile.quarter();
    float next_x[4], next_weight[INPUT_PANELS][4];
    const auto load = [&](int column) {
        load_x(column, next_x);
#pragma unroll
        for (int panel = 0; panel < INPUT_PANELS; ++panel) {
            load_or_clear(weight[panel], column, columns, weight_vectorised, next_weight[panel]);
        }
    };
    load(quarter);
    for (int start = 0; start < columns; start += INPUT_DEPTH) {
        store_transposed<INPUT_TOKEN_PITCH>(tile.x, quarter, tile.loaded(), next_x);
#pragma unroll
        for (int panel = 0; panel < INPUT_PANELS; ++panel) {
            const int row = panel * INPUT_LOADED + tile.loaded();
            store_transposed<INPUT_ROW_PITCH>(tile.weight, quarter, row, next_weight[panel]);
        }
        __syncthreads();
        // Past the end these are zeros that nobody stores; the loads fly while this tile is multiplied.
        load(start + INPUT_DEPTH + quarter);
        multiply(tile, sum);
        // Everybody must have read the tile before the next one replaces it.
        __syncthreads();
    }
}
