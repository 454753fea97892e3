// Every block's second half, and linear layers, decode:  out[m,d] = residual[m,d] + h[m,:] . Wd[j,:] + bd[j]
// with d = indices[j], or j where nothing is selected; features that no j is written to are the residual. The sum is times
// mask[j].
//
// h  [M, F]  activation dtype A      Wd  [O, F]  weight dtype W, nn.Linear layout      indices  [O]  u32 or absent
// residual  [M, D]  A or absent      out  [M, D]  f32, f16 or bf16; D = O without indices
//
// grid  (ceil(M / 2), min(ceil(O / 4), 65535))   block 128 = 4 warps; a block owns 4 rows j for 2 m, its warps split F
// shared  128 bytes, for the sum across warps
// Eight 16-byte loads a lane are in flight: 4 KiB a warp, 16 KiB a block. A warp needs each h once for four rows of
// weights, so h comes through L1, which keeps it from block to block, and not through shared memory.
// A row is summed thread-strided in f32, by a fixed xor-shuffle tree, then warp 0 to 3: independent of M.
#include "device.cuh"
#include "finish.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "reduce.cuh"

constexpr int GEMV_WARPS = 4;
constexpr int GEMV_THREADS = GEMV_WARPS * 32;
constexpr int GEMV_ROWS = 4;
constexpr int GEMV_TOKENS = 2;
constexpr int GEMV_LOADS_IN_FLIGHT = 8;

template <class A, class W, int TOKENS>
__device__ __forceinline__ void accumulate_chunk(const uint4 (&weight)[GEMV_ROWS], const A* const (&h)[TOKENS],
                                                 int column, int columns, bool vectorised,
                                                 float (&sum)[GEMV_ROWS][TOKENS]) {
    float h_value[TOKENS][CHUNK<W>];
#pragma unroll
    for (int token = 0; token < TOKENS; ++token) {
        load_floats<A, CHUNK<W>>(h[token], column, columns, vectorised, h_value[token]);
    }
#pragma unroll
    for (int r = 0; r < GEMV_ROWS; ++r) {
        float weight_value[CHUNK<W>];
        Chunk<W>::unpack(weight[r], weight_value);
#pragma unroll
        for (int token = 0; token < TOKENS; ++token) {
#pragma unroll
            for (int i = 0; i < CHUNK<W>; ++i) {
                sum[r][token] = fmaf(weight_value[i], h_value[token][i], sum[r][token]);
            }
        }
    }
}

// The thread's share of F for all rows of the block.
template <class A, class W, int TOKENS>
__device__ __forceinline__ void accumulate_rows(const DownParams& p, const W* const (&weights)[GEMV_ROWS],
                                                const A* const (&h)[TOKENS], float (&sum)[GEMV_ROWS][TOKENS]) {
    constexpr int STEP = GEMV_THREADS * CHUNK<W>;
    constexpr int UNROLL = GEMV_LOADS_IN_FLIGHT / GEMV_ROWS;
    int column = int(threadIdx.x) * CHUNK<W>;
    if (p.vectorised) {
        for (; column + (UNROLL - 1) * STEP + CHUNK<W> <= p.depth; column += UNROLL * STEP) {
            uint4 weight[UNROLL][GEMV_ROWS];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
#pragma unroll
                for (int r = 0; r < GEMV_ROWS; ++r) weight[u][r] = load_streaming16(weights[r] + column + u * STEP);
            }
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int first = column + u * STEP;
                // The chunk is known to be whole: saying so drops the branch for tails from the loop.
                accumulate_chunk<A, W>(weight[u], h, first, first + CHUNK<W>, true, sum);
            }
        }
    }
    for (; column < p.depth; column += STEP) {
        uint4 weight[GEMV_ROWS];
#pragma unroll
        for (int r = 0; r < GEMV_ROWS; ++r) weight[r] = load_chunk(weights[r], column, p.depth, p.vectorised);
        accumulate_chunk<A, W>(weight, h, column, p.depth, p.vectorised, sum);
    }
}

// Thread i < GEMV_ROWS * TOKENS adds the warps' sums in order and finishes one element of out.
template <class A, class W, int TOKENS>
__device__ __forceinline__ void store_rows(const DownParams& p, int64_t token0, int row0,
                                           const float (&sum)[GEMV_ROWS][TOKENS], float* scratch) {
    constexpr int SUMS = GEMV_ROWS * TOKENS;
#pragma unroll
    for (int i = 0; i < SUMS; ++i) {
        const float warp_total = warp_sum(sum[i / TOKENS][i % TOKENS]);
        if (int(threadIdx.x % 32) == i) scratch[int(threadIdx.x / 32) * SUMS + i] = warp_total;
    }
    copy_residual<A, GEMV_THREADS, GEMV_ROWS>(p, row0, token0, 1, token0 + TOKENS);
    __syncthreads();
    const int row = row0 + int(threadIdx.x) / TOKENS;
    const int64_t token = token0 + int(threadIdx.x) % TOKENS;
    if (int(threadIdx.x) < SUMS && row < p.outputs) {
        float total = 0.0f;
#pragma unroll
        for (int warp = 0; warp < GEMV_WARPS; ++warp) total += scratch[warp * SUMS + int(threadIdx.x)];
        finish_output<A, W>(p, token, row, total);
    }
    // The next rows' sums go into the same scratch.
    __syncthreads();
}

template <class A, class W, int TOKENS>
__device__ __forceinline__ void down_gemv(const DownParams& p, int64_t token0, float* scratch) {
    const A* h[TOKENS];
#pragma unroll
    for (int token = 0; token < TOKENS; ++token) {
        h[token] = static_cast<const A*>(p.h) + (token0 + token) * p.h_row_stride;
    }
    grid_dependency_launch_dependents();
    bool waited = false;
    for (int row0 = int(blockIdx.y) * GEMV_ROWS; row0 < p.outputs; row0 += int(gridDim.y) * GEMV_ROWS) {
        // Rows past the end repeat the last one: they are read, never stored.
        const W* weights[GEMV_ROWS];
#pragma unroll
        for (int r = 0; r < GEMV_ROWS; ++r) {
            weights[r] = static_cast<const W*>(p.down_weight) + min(row0 + r, p.outputs - 1) * p.down_row_stride;
        }
        if (!waited) {
            // Weights depend on no earlier kernel: 128-byte lines travel to L2 while h is still being made.
            const int line = int(threadIdx.x) * (128 / int(sizeof(W)));
#pragma unroll
            for (int r = 0; r < GEMV_ROWS; ++r) {
                if (line < p.depth) prefetch_l2(weights[r] + line);
            }
            grid_dependency_wait();
            waited = true;
        }
        float sum[GEMV_ROWS][TOKENS] = {};
        accumulate_rows<A, W>(p, weights, h, sum);
        store_rows<A, W>(p, token0, row0, sum, scratch);
    }
}

#define DOWN_GEMV_KERNEL(NAME, A, W)                                                                                  \
    extern "C" __global__ void __launch_bounds__(GEMV_THREADS, 4) NAME(const __grid_constant__ DownParams p) {        \
        SHARED_ARRAY(float, scratch, [GEMV_WARPS * GEMV_ROWS * GEMV_TOKENS]);                                         \
        const int token0 = int(blockIdx.x) * GEMV_TOKENS;                                                             \
        if (token0 + 1 < p.rows) {                                                                                    \
            down_gemv<A, W, 2>(p, token0, scratch);                                                                   \
        } else {                                                                                                      \
            down_gemv<A, W, 1>(p, token0, scratch);                                                                   \
        }                                                                                                             \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

DOWN_GEMV_KERNEL(mlp_down_gemv_f32, f32, f32)
DOWN_GEMV_KERNEL(mlp_down_gemv_f16, f16, f16)
DOWN_GEMV_KERNEL(mlp_down_gemv_bf16, bf16, bf16)
DOWN_GEMV_KERNEL(mlp_down_gemv_f32_f16, f32, f16)
DOWN_GEMV_KERNEL(mlp_down_gemv_f32_bf16, f32, bf16)
