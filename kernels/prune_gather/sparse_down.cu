// sparse_gated_mlp, second half, where Wd has a row for each neuron:  out[m,c] = residual[m,c] + sum_j h[m,j] Wd[j,c] over
// the neurons whose h is not zero; rows of the others are not read
//
// h  [M, F]  activation dtype A      Wd  [F, d]  weight dtype W      residual  [M, d]  A or absent
// out  [M, d]  f32, f16 or bf16
//
// grid  (M, min(ceil(d / C), 65535)), C = 4 * CHUNK<W>: 64 bytes of a row   block 256: 64 groups of 4 lanes
// shared  33,920 bytes at most: the neurons of a tile of 4096 whose h is not zero, with their h; sums of the 8 warps
// A group takes every 64th of the tile's survivors, 16 bytes a lane, four loads in flight. A column is summed by group in
// f32 in the order of the survivors, then by a fixed tree: independent of M, and of what other tokens select.
#include "device.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "reduce.cuh"
#include "scan.cuh"

constexpr int SPARSE_WARPS = 8;
constexpr int SPARSE_THREADS = SPARSE_WARPS * 32;
constexpr int SPARSE_LANES = 4;
constexpr int SPARSE_GROUPS = SPARSE_THREADS / SPARSE_LANES;
constexpr int SPARSE_UNROLL = 4;
template <class W> constexpr int SPARSE_COLUMNS = SPARSE_LANES * CHUNK<W>;

// The neurons of a tile whose h is not zero.
struct Survivors {
    uint32_t neuron[TILE<SPARSE_WARPS>];
    float h[TILE<SPARSE_WARPS>];
    uint32_t scratch[SPARSE_WARPS];
};

template <class W>
__device__ __forceinline__ void accumulate(uint4 chunk, float h, float (&sum)[CHUNK<W>]) {
    float weight[CHUNK<W>];
    Chunk<W>::unpack(chunk, weight);
#pragma unroll
    for (int i = 0; i < CHUNK<W>; ++i) sum[i] = fmaf(h, weight[i], sum[i]);
}

// The group's share of a tile's survivors, at the lane's columns.
template <class W>
__device__ __forceinline__ void accumulate_rows(const SparseDownParams& p, const Survivors& survivors, int count,
                                                int column, float (&sum)[CHUNK<W>]) {
    const W* weight = static_cast<const W*>(p.down_weight);
    int k = int(threadIdx.x) / SPARSE_LANES;
    for (; k + (SPARSE_UNROLL - 1) * SPARSE_GROUPS < count; k += SPARSE_UNROLL * SPARSE_GROUPS) {
        uint4 chunk[SPARSE_UNROLL];
#pragma unroll
        for (int u = 0; u < SPARSE_UNROLL; ++u) {
            const W* row = weight + survivors.neuron[k + u * SPARSE_GROUPS] * p.down_row_stride;
            chunk[u] = load_chunk(row, column, p.hidden, p.vectorised);
        }
#pragma unroll
        for (int u = 0; u < SPARSE_UNROLL; ++u) accumulate<W>(chunk[u], survivors.h[k + u * SPARSE_GROUPS], sum);
    }
    for (; k < count; k += SPARSE_GROUPS) {
        const W* row = weight + survivors.neuron[k] * p.down_row_stride;
        accumulate<W>(load_chunk(row, column, p.hidden, p.vectorised), survivors.h[k], sum);
    }
}

// Adds the groups' sums in a fixed order and finishes the block's columns.
template <class A, class W>
__device__ __forceinline__ void store_columns(const SparseDownParams& p, int64_t token, int column0,
                                              float (&sum)[CHUNK<W>], float* scratch) {
    constexpr int COLUMNS = SPARSE_COLUMNS<W>;
    const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
#pragma unroll
    for (int i = 0; i < CHUNK<W>; ++i) {
#pragma unroll
        for (int offset = 16; offset >= SPARSE_LANES; offset /= 2) {
            sum[i] += __shfl_xor_sync(FULL_WARP, sum[i], offset);
        }
        if (lane < SPARSE_LANES) scratch[warp * COLUMNS + lane * CHUNK<W> + i] = sum[i];
    }
    __syncthreads();
    const int column = column0 + int(threadIdx.x);
    if (int(threadIdx.x) < COLUMNS && column < p.hidden) {
        float total = 0.0f;
#pragma unroll
        for (int other = 0; other < SPARSE_WARPS; ++other) total += scratch[other * COLUMNS + int(threadIdx.x)];
        total += load_or_zero<A>(p.residual, token * p.residual_row_stride + column);
        store_as(p.out, token * p.out_row_stride + column, p.out_dtype, total);
    }
    // The next columns' sums go into the same scratch.
    __syncthreads();
}

template <class A, class W>
__device__ __forceinline__ void sparse_down(const SparseDownParams& p, Survivors& survivors, float* scratch) {
    constexpr int COLUMNS = SPARSE_COLUMNS<W>;
    const int64_t token = blockIdx.x;
    const A* h = static_cast<const A*>(p.h) + token * p.h_row_stride;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    for (int column0 = int(blockIdx.y) * COLUMNS; column0 < p.hidden; column0 += int(gridDim.y) * COLUMNS) {
        const int column = column0 + int(threadIdx.x) % SPARSE_LANES * CHUNK<W>;
        float sum[CHUNK<W>] = {};
        for (uint32_t first = 0; first < uint32_t(p.ffn); first += TILE<SPARSE_WARPS>) {
            // The other warps may still be reading the survivors of the tile before.
            __syncthreads();
            const uint32_t count = compact_tile<SPARSE_WARPS>(
                first, uint32_t(p.ffn), 0, survivors.scratch,
                // Also true of NaN.
                [&](uint32_t neuron) { return to_float(h[neuron]) != 0.0f; },
                [&](uint32_t neuron, uint32_t place) {
                    survivors.neuron[place] = neuron;
                    survivors.h[place] = to_float(h[neuron]);
                },
                [](uint32_t) {});
            __syncthreads();
            accumulate_rows<W>(p, survivors, int(count), column, sum);
        }
        store_columns<A, W>(p, token, column0, sum, scratch);
    }
}

#define SPARSE_DOWN_KERNEL(NAME, A, W)                                                                                \
    extern "C" __global__ void __launch_bounds__(SPARSE_THREADS, 2)                                                   \
        NAME(const __grid_constant__ SparseDownParams p) {                                                            \
        SHARED_ARRAY(Survivors, survivors, [1]);                                                                      \
        SHARED_ARRAY(float, scratch, [SPARSE_WARPS * SPARSE_COLUMNS<W>]);                                             \
        sparse_down<A, W>(p, survivors[0], scratch);                                                                  \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

SPARSE_DOWN_KERNEL(sparse_gated_mlp_down_f32, f32, f32)
SPARSE_DOWN_KERNEL(sparse_gated_mlp_down_f16, f16, f16)
SPARSE_DOWN_KERNEL(sparse_gated_mlp_down_bf16, bf16, bf16)
SPARSE_DOWN_KERNEL(sparse_gated_mlp_down_f32_f16, f32, f16)
SPARSE_DOWN_KERNEL(sparse_gated_mlp_down_f32_bf16, f32, bf16)
