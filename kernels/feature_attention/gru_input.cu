// gru_input: what a GRU's gates take from its input, hoisted out of time and for both directions at once
//   gates[b,t, d*N + j] = x[b,t,:] . W_d[j,:] + b_d[j]     of every valid token t < length[b]
//
// x  [B, L, I]  activation dtype A, batch and token strides      W_d  [N, I], b_d  [N]  weight dtype W, nn.Linear layout
// gates  [B, L, D * N]  f32, dense; what belongs to padding is not written, or is of no use
// D = 2 directions, or 1: then this is a plain product
// N = 3h, gates in the order r, z, n; b_d is b_ih alone: b_hn must stay inside r * (...), the recurrence adds b_hh
//
// grid  (ceil(B L / 32), ceil(D N / 64))   block 128
// shared  6,656 bytes: 32 tokens and 64 rows of W, 16 deep, as f32
// A thread owns 4 tokens x 4 rows; tokens are counted through the batch, so that short rows fill tiles; a tile without a
// valid token returns at once. A product is summed over I in f32, in order, by FMAs: its bits depend on its token and
// row of W alone, neither on the batch, on L nor on the tile.
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

template <class A, class W> __device__ __forceinline__ void gru_input(const GruInputParams& p) {
    SHARED_ARRAY(float, x_tile, [INPUT_DEPTH * INPUT_TOKEN_PITCH]);
    SHARED_ARRAY(float, weight_tile, [INPUT_DEPTH * INPUT_ROW_PITCH]);
    const int64_t first_token = int64_t(blockIdx.x) * INPUT_TOKENS;
    const int first_row = int(blockIdx.y) * INPUT_ROWS;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    if (!has_valid_token(p.lengths, p.batch, p.steps, first_token)) return;

    const int loaded = int(threadIdx.x) / INPUT_QUARTERS;
    const int quarter = int(threadIdx.x) % INPUT_QUARTERS * 4;
    const A* x = token_row<A>(p, first_token + loaded);
    const W* weight[INPUT_PANELS];
    float next_x[4], next_weight[INPUT_PANELS][4];
    load_or_clear(x, quarter, p.features, p.x_vectorised, next_x);
#pragma unroll
    for (int panel = 0; panel < INPUT_PANELS; ++panel) {
        weight[panel] = weight_row<W>(p, first_row + panel * INPUT_LOADED + loaded);
        load_or_clear(weight[panel], quarter, p.features, p.weight_vectorised, next_weight[panel]);
    }
    float sum[INPUT_OWN][INPUT_OWN] = {};
    for (int start = 0; start < p.features; start += INPUT_DEPTH) {
        store_transposed<INPUT_TOKEN_PITCH>(x_tile, quarter, loaded, next_x);
#pragma unroll
        for (int panel = 0; panel < INPUT_PANELS; ++panel) {
            store_transposed<INPUT_ROW_PITCH>(weight_tile, quarter, panel * INPUT_LOADED + loaded, next_weight[panel]);
        }
        __syncthreads();
        // Past the end these are zeros that nobody stores; the loads fly while this tile is multiplied.
        const int next = start + INPUT_DEPTH + quarter;
        load_or_clear(x, next, p.features, p.x_vectorised, next_x);
#pragma unroll
        for (int panel = 0; panel < INPUT_PANELS; ++panel) {
            load_or_clear(weight[panel], next, p.features, p.weight_vectorised, next_weight[panel]);
        }
        multiply(x_tile, weight_tile, sum);
        // Everybody must have read the tile before the next one replaces it.
        __syncthreads();
    }

    float* gates = static_cast<float*>(p.gates);
    const int64_t token = first_token + int(threadIdx.x) / 16 * INPUT_OWN;
    const int row = first_row + int(threadIdx.x) % 16 * INPUT_OWN;
    const int rows = p.directions * p.outputs;
#pragma unroll
    for (int i = 0; i < INPUT_OWN * INPUT_OWN; ++i) {
        if (token + i / INPUT_OWN >= int64_t(p.batch) * p.steps || row + i % INPUT_OWN >= rows) continue;
        const float bias = bias_of<W>(p, row + i % INPUT_OWN);
        gates[(token + i / INPUT_OWN) * rows + row + i % INPUT_OWN] = sum[i / INPUT_OWN][i % INPUT_OWN] + bias;
    }
}

#define INPUT_KERNEL(SUFFIX, A, W)                                                                                    \
    extern "C" __global__ void __launch_bounds__(INPUT_THREADS, 4)                                                    \
        gru_input_##SUFFIX(const __grid_constant__ GruInputParams p) {                                                \
        gru_input<A, W>(p);                                                                                           \
    }                                                                                                                 \
    SIMULATED_KERNEL(gru_input_##SUFFIX)

INPUT_KERNEL(f32, f32, f32)
INPUT_KERNEL(f16, f16, f16)
INPUT_KERNEL(bf16, bf16, bf16)
INPUT_KERNEL(f32_f16, f32, f16)
INPUT_KERNEL(f32_bf16, f32, bf16)
