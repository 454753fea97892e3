// exit_head_states:  of each tile of 128 ids and each row, the state of  softcap(n W^T + b)
//
// n  [M, D]  activation dtype A, any row stride      W  [V, D], b  [V]  weight dtype W
// state_values  [ceil(V / 128), M, 6 + k]  f32      state_tokens  [ceil(V / 128), M, 2 + k]  int32_t
// logits  [M, V]  f32, optional
//
//   exit_states_mma<N>  f16, bf16 on tensor cores from sm_80 on: N = 8, 16, 32 or 64 rows a block
//   exit_states_dot<N>  plain FMAs: any dtypes, any device; N = 1 or 8 rows a block
// grid  (ceil(M / N) * ceil(V / 128)), blocks of one tile side by side, so that the second finds the weight in L2
// block 256 = 8 warps, each 16 rows of the weight      shared  N * 528 bytes: the tile's sums
//
// mma: weights are the A operand of m16n8k16, tokens the B operand, both straight from global memory: a lane loads 16
// bytes of rows g and g + 8 at column 8 (lane % 4) of 32; words 0 and 1 serve the first instruction, 2 and 3 the second,
// in weights and tokens alike, which permutes the terms of a sum but pairs the right ones. The weight is read once and
// never again; tokens come from L1.
// A logit is summed in one order whatever M and N: its row's results do not depend on the batch.
#include "device.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "reduce.cuh"
#include "tile.cuh"

// ---------------------------------------------------------------------------------------------- plain FMAs

template <class A, class W, int N> __device__ __forceinline__ void states_dot(const ExitStatesParams& p) {
    constexpr int GROUP = 4; // rows of the weight at once
    SHARED_ARRAY(float, sums, [N * TILE_PITCH]);
    const Place place(p, N);
    const int lane = int(threadIdx.x) % 32;
    grid_dependency_wait();
    const A* x[N];
#pragma unroll
    for (int n = 0; n < N; ++n) x[n] = activation_row<A>(p, place.first_row + n);
    for (int group = 0; group < WARP_ROWS; group += GROUP) {
        const int first = int(threadIdx.x) / 32 * WARP_ROWS + group;
        const W* weight[GROUP];
#pragma unroll
        for (int r = 0; r < GROUP; ++r) {
            const int64_t row = place.weight_row + first + r;
            weight[r] = row < p.valid_rows ? static_cast<const W*>(p.head_weight) + row * p.weight_row_stride : nullptr;
        }
        float sum[GROUP][N] = {};
        for (int column = lane * 8; column < p.features; column += 32 * 8) {
            float w[GROUP][8];
#pragma unroll
            for (int r = 0; r < GROUP; ++r) {
                const int columns = weight[r] == nullptr ? 0 : p.features;
                load_floats<W, 8>(weight[r], column, columns, p.weight_vectorised, w[r]);
            }
#pragma unroll
            for (int n = 0; n < N; ++n) {
                float value[8];
                const int columns = x[n] == nullptr ? 0 : p.features;
                load_floats<A, 8>(x[n], column, columns, p.activations_vectorised, value);
#pragma unroll
                for (int r = 0; r < GROUP; ++r) {
#pragma unroll
                    for (int i = 0; i < 8; ++i) sum[r][n] = fmaf(w[r][i], value[i], sum[r][n]);
                }
            }
        }
#pragma unroll
        for (int r = 0; r < GROUP; ++r) {
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const float total = warp_sum(sum[r][n]);
                if (lane == 0) sums[n * TILE_PITCH + first + r] = total;
            }
        }
    }
    grid_dependency_launch_dependents();
    __syncthreads();
    finish_tile<W>(p, place, sums, N);
}

// Two blocks a multiprocessor: left to itself, the compiler spills for a third.
#define STATES_KERNEL(NAME, BODY)                                                                                     \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2) NAME(const __grid_constant__ ExitStatesParams p) {  \
        BODY(p);                                                                                                      \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)
#define DOT_KERNELS(SUFFIX, A, W)                                                                                     \
    STATES_KERNEL(exit_states_dot1_##SUFFIX, (states_dot<A, W, 1>))                                                   \
    STATES_KERNEL(exit_states_dot8_##SUFFIX, (states_dot<A, W, 8>))

DOT_KERNELS(f32, f32, f32)
DOT_KERNELS(f16, f16, f16)
DOT_KERNELS(bf16, bf16, bf16)
DOT_KERNELS(f32_f16, f32, f16)
DOT_KERNELS(f32_bf16, f32, bf16)

// ---------------------------------------------------------------------------------------------- tensor cores

#if SILUETTE_HAS_MMA

// Sixteen bytes of a row, zeros past its end; a null row is all zeros.
template <class T>
__device__ __forceinline__ uint4 load_operand(const T* row, int column, int columns, bool vectorised) {
    if (row == nullptr || column >= columns) return make_uint4(0, 0, 0, 0);
    return load_chunk(row, column, columns, vectorised);
}

// The same of the weight, which nobody reads again.
template <class T>
__device__ __forceinline__ uint4 load_weight(const T* row, int column, int columns, bool vectorised) {
    if (row == nullptr || column >= columns) return make_uint4(0, 0, 0, 0);
    if (vectorised && column + 8 <= columns) return load_streaming16(row + column);
    return load_chunk_elements(row, column, columns);
}

template <class T, int N> __device__ __forceinline__ void states_mma(const ExitStatesParams& p) {
    constexpr int STEP = 32;             // columns of two instructions
    constexpr int AHEAD = 4;             // steps whose weights are in flight: 128 bytes of each row
    constexpr int TOKEN_TILES = N / 8;
    SHARED_ARRAY(float, sums, [N * TILE_PITCH]);
    const Place place(p, N);
    const int lane = int(threadIdx.x) % 32;
    const int warp_row = int(threadIdx.x) / 32 * WARP_ROWS;
    const int group = lane / 4;
    const int offset = lane % 4 * 8;
    const T* weight[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int64_t row = place.weight_row + warp_row + group + 8 * half;
        weight[half] = row < p.valid_rows ? static_cast<const T*>(p.head_weight) + row * p.weight_row_stride : nullptr;
    }
    // Prepared rows are the previous kernel's.
    grid_dependency_wait();
    const T* token[TOKEN_TILES];
#pragma unroll
    for (int tile = 0; tile < TOKEN_TILES; ++tile) {
        token[tile] = activation_row<T>(p, place.first_row + tile * 8 + group);
    }
    float sum[TOKEN_TILES][4] = {};
    for (int first = 0; first < p.features; first += STEP * AHEAD) {
        uint4 rows[AHEAD][2];
#pragma unroll
        for (int step = 0; step < AHEAD; ++step) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                rows[step][half] = load_weight(weight[half], first + step * STEP + offset, p.features,
                                               p.weight_vectorised);
            }
        }
#pragma unroll
        for (int step = 0; step < AHEAD; ++step) {
            const uint4(&w)[2] = rows[step];
            const uint32_t even[4] = {w[0].x, w[1].x, w[0].y, w[1].y};
            const uint32_t odd[4] = {w[0].z, w[1].z, w[0].w, w[1].w};
#pragma unroll
            for (int tile = 0; tile < TOKEN_TILES; ++tile) {
                const uint4 x = load_operand(token[tile], first + step * STEP + offset, p.features,
                                             p.activations_vectorised);
                const uint32_t x_even[2] = {x.x, x.y};
                const uint32_t x_odd[2] = {x.z, x.w};
                mma_m16n8k16<T>(sum[tile], even, x_even);
                mma_m16n8k16<T>(sum[tile], odd, x_odd);
            }
        }
    }
    // Of a fragment, a lane has rows g and g + 8, tokens 2t and 2t + 1.
#pragma unroll
    for (int tile = 0; tile < TOKEN_TILES; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            sums[(tile * 8 + lane % 4 * 2 + i % 2) * TILE_PITCH + warp_row + group + i / 2 * 8] = sum[tile][i];
        }
    }
    grid_dependency_launch_dependents();
    __syncthreads();
    finish_tile<T>(p, place, sums, N);
}

#define MMA_KERNELS(T)                                                                                                \
    STATES_KERNEL(exit_states_mma8_##T, (states_mma<T, 8>))                                                           \
    STATES_KERNEL(exit_states_mma16_##T, (states_mma<T, 16>))                                                         \
    STATES_KERNEL(exit_states_mma32_##T, (states_mma<T, 32>))                                                         \
    STATES_KERNEL(exit_states_mma64_##T, (states_mma<T, 64>))

MMA_KERNELS(f16)
MMA_KERNELS(bf16)

#endif // SILUETTE_HAS_MMA
