// gated_mlp, decode, first half:  h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f]) * (n[m,:] . Wu[f,:] + bu[f])
// silu_mlp, decode, first half:   h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f])
// with n = x or rms_norm(x), of the features that indices name, times a mask: see prepare.cu. h is times mid_mask[f]^2.
//
// x  [M, H]  activation dtype A      Wg, Wu  [F, I]  weight dtype W, nn.Linear layout      h  [M, F]  A
// indices  [I]  u32, masks  f32: optional; I = H without indices
//
// grid  (ceil(M / 2), min(ceil(F / 8), 65535))   block 128 = 4 warps; a warp owns 2 rows f of both Wg and Wu for 2 m
// shared  min(M, 2) * x_tile * sizeof(A) dynamic: n, normalised and gathered by the block itself; 16 bytes static
// Eight 16-byte loads a lane are in flight: 4 KiB a warp, 16 KiB a block. The m of one f are neighbours in the grid,
// so with M > 2 the weights still come from DRAM once.
// A row is summed lane-strided in f32, then by a fixed xor-shuffle tree: the result does not depend on M or x_tile.
#include "device.cuh"
#include "finish.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "prepare.cuh"
#include "reduce.cuh"

constexpr int GEMV_WARPS = RMS_NORM_WARPS;
constexpr int GEMV_THREADS = GEMV_WARPS * 32;
constexpr int GEMV_FEATURES_PER_WARP = 2;
constexpr int GEMV_FEATURES = GEMV_WARPS * GEMV_FEATURES_PER_WARP;
constexpr int GEMV_TOKENS = 2;
constexpr int GEMV_LOADS_IN_FLIGHT = 8;

// The rows of a warp: features f and f + 1 of Wg, then of Wu where there is one.
template <class W, int ROWS> struct WeightRows {
    const W* row[ROWS];

    // Rows past the end repeat the last one: they are read, never stored.
    __device__ __forceinline__ WeightRows(const GateUpParams& p, int feature) {
#pragma unroll
        for (int i = 0; i < GEMV_FEATURES_PER_WARP; ++i) {
            const int64_t in_bounds = min(feature + i, p.ffn - 1);
            row[i] = static_cast<const W*>(p.gate_weight) + in_bounds * p.gate_row_stride;
            if (ROWS > GEMV_FEATURES_PER_WARP) {
                row[ROWS / 2 + i] = static_cast<const W*>(p.up_weight) + in_bounds * p.up_row_stride;
            }
        }
    }
};

// Columns [start, end) of n into shared memory, zeros up to a whole chunk.
template <class A, class W, int TOKENS>
__device__ __forceinline__ void fill_x_tile(const GateUpParams& p, const A* const (&x)[TOKENS],
                                            const float (&inverse)[TOKENS], int start, int end, A* x_tile) {
    const Preparation<A, W, GateUpParams> preparation(p);
    for (int column = start + int(threadIdx.x) * 8; column < end; column += GEMV_THREADS * 8) {
#pragma unroll
        for (int token = 0; token < TOKENS; ++token) {
            float value[8];
            preparation.load8(p, x[token], inverse[token], column, end, value);
            store_floats_aligned<A, 8>(x_tile + token * p.x_tile + (column - start), value);
        }
    }
}

template <class A, class W, int ROWS, int TOKENS>
__device__ __forceinline__ void accumulate_chunk(const uint4 (&weight)[ROWS], const A* x, int x_stride,
                                                 float (&sum)[ROWS][TOKENS]) {
    float x_value[TOKENS][CHUNK<W>];
#pragma unroll
    for (int token = 0; token < TOKENS; ++token) {
        load_floats<A, CHUNK<W>>(x + token * x_stride, 0, CHUNK<W>, true, x_value[token]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        float weight_value[CHUNK<W>];
        Chunk<W>::unpack(weight[r], weight_value);
#pragma unroll
        for (int token = 0; token < TOKENS; ++token) {
#pragma unroll
            for (int i = 0; i < CHUNK<W>; ++i) {
                sum[r][token] = fmaf(weight_value[i], x_value[token][i], sum[r][token]);
            }
        }
    }
}

// Columns [start, end) of the warp's rows times the tile of x that holds them.
template <class A, class W, int ROWS, int TOKENS>
__device__ __forceinline__ void accumulate_tile(const GateUpParams& p, const WeightRows<W, ROWS>& weights,
                                                const A* x_tile, int start, int end, float (&sum)[ROWS][TOKENS]) {
    constexpr int STEP = 32 * CHUNK<W>;
    constexpr int UNROLL = GEMV_LOADS_IN_FLIGHT / ROWS;
    int column = start + int(threadIdx.x % 32) * CHUNK<W>;
    if (p.vectorised) {
        for (; column + (UNROLL - 1) * STEP + CHUNK<W> <= end; column += UNROLL * STEP) {
            uint4 weight[UNROLL][ROWS];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
#pragma unroll
                for (int r = 0; r < ROWS; ++r) weight[u][r] = load_streaming16(weights.row[r] + column + u * STEP);
            }
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                accumulate_chunk<A, W>(weight[u], x_tile + (column + u * STEP - start), p.x_tile, sum);
            }
        }
    }
    for (; column < end; column += STEP) {
        uint4 weight[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) weight[r] = load_chunk(weights.row[r], column, end, p.vectorised);
        accumulate_chunk<A, W>(weight, x_tile + (column - start), p.x_tile, sum);
    }
}

template <class A, class W, int ROWS, int TOKENS>
__device__ __forceinline__ void store_features(const GateUpParams& p, int token0, int feature0,
                                               const float (&sum)[ROWS][TOKENS]) {
#pragma unroll
    for (int i = 0; i < GEMV_FEATURES_PER_WARP * TOKENS; ++i) {
        const int feature = feature0 + i / TOKENS;
        const float gate = warp_sum(sum[i / TOKENS][i % TOKENS]);
        const float up = ROWS > GEMV_FEATURES_PER_WARP ? warp_sum(sum[ROWS / 2 + i / TOKENS][i % TOKENS]) : 0.0f;
        if (int(threadIdx.x % 32) != i || feature >= p.ffn) continue;
        const float gate_biased = gate + load_or_zero<W>(p.gate_bias, feature);
        const float value = ROWS > GEMV_FEATURES_PER_WARP
                                ? silu_gate<A>(gate_biased, up + load_or_zero<W>(p.up_bias, feature), p.round_gate_up)
                                : silu_plain<A>(gate_biased, p.round_gate_up);
        const float masked = mask_neuron(p, feature, value);
        static_cast<A*>(p.h)[(token0 + i % TOKENS) * p.h_row_stride + feature] = from_float<A>(masked);
    }
}

template <class A, class W, int ROWS, int TOKENS>
__device__ __forceinline__ void gate_up_gemv(const GateUpParams& p, int64_t token0, A* x_tile, float* scratch) {
    const int warp_feature = int(threadIdx.x / 32) * GEMV_FEATURES_PER_WARP;
    const int first_feature = int(blockIdx.y) * GEMV_FEATURES;
    grid_dependency_launch_dependents();
    // Weights depend on no earlier kernel: their first 128-byte lines travel to L2 while x is still being made.
    const WeightRows<W, ROWS> first_rows(p, first_feature + warp_feature);
    const int line = int(threadIdx.x % 32) * (128 / int(sizeof(W)));
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (line < p.inputs) prefetch_l2(first_rows.row[r] + line);
    }
    grid_dependency_wait();

    const A* x[TOKENS];
    float inverse[TOKENS];
#pragma unroll
    for (int token = 0; token < TOKENS; ++token) {
        x[token] = static_cast<const A*>(p.x) + (token0 + token) * p.x_row_stride;
        inverse[token] = Preparation<A, W, GateUpParams>(p).scale(p, x[token], scratch);
    }
    const bool x_stays = p.inputs <= p.x_tile;
    for (int block_feature = first_feature; block_feature < p.ffn; block_feature += int(gridDim.y) * GEMV_FEATURES) {
        const WeightRows<W, ROWS> weights(p, block_feature + warp_feature);
        float sum[ROWS][TOKENS] = {};
        for (int start = 0; start < p.inputs; start += p.x_tile) {
            const int end = min(p.inputs, start + p.x_tile);
            if (!x_stays || block_feature == first_feature) {
                // The other warps may still be reading the tile that this one replaces.
                __syncthreads();
                fill_x_tile<A, W>(p, x, inverse, start, end, x_tile);
                __syncthreads();
            }
            accumulate_tile<A, W>(p, weights, x_tile, start, end, sum);
        }
        store_features<A, W>(p, token0, block_feature + warp_feature, sum);
    }
}

#define GATE_UP_GEMV_KERNEL(NAME, A, W, MATRICES)                                                                     \
    extern "C" __global__ void __launch_bounds__(GEMV_THREADS, 4) NAME(const __grid_constant__ GateUpParams p) {      \
        constexpr int ROWS = MATRICES * GEMV_FEATURES_PER_WARP;                                                       \
        DYNAMIC_SHARED(dynamic_shared);                                                                               \
        SHARED_ARRAY(float, scratch, [GEMV_WARPS]);                                                                   \
        A* x_tile = reinterpret_cast<A*>(dynamic_shared);                                                             \
        const int token0 = int(blockIdx.x) * GEMV_TOKENS;                                                             \
        if (token0 + 1 < p.rows) {                                                                                    \
            gate_up_gemv<A, W, ROWS, 2>(p, token0, x_tile, scratch);                                                  \
        } else {                                                                                                      \
            gate_up_gemv<A, W, ROWS, 1>(p, token0, x_tile, scratch);                                                  \
        }                                                                                                             \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

GATE_UP_GEMV_KERNEL(gated_mlp_gate_up_gemv_f32, f32, f32, 2)
GATE_UP_GEMV_KERNEL(gated_mlp_gate_up_gemv_f16, f16, f16, 2)
GATE_UP_GEMV_KERNEL(gated_mlp_gate_up_gemv_bf16, bf16, bf16, 2)
GATE_UP_GEMV_KERNEL(gated_mlp_gate_up_gemv_f32_f16, f32, f16, 2)
GATE_UP_GEMV_KERNEL(gated_mlp_gate_up_gemv_f32_bf16, f32, bf16, 2)
GATE_UP_GEMV_KERNEL(silu_mlp_up_gemv_f32, f32, f32, 1)
GATE_UP_GEMV_KERNEL(silu_mlp_up_gemv_f16, f16, f16, 1)
GATE_UP_GEMV_KERNEL(silu_mlp_up_gemv_bf16, bf16, bf16, 1)
GATE_UP_GEMV_KERNEL(silu_mlp_up_gemv_f32_f16, f32, f16, 1)
GATE_UP_GEMV_KERNEL(silu_mlp_up_gemv_f32_bf16, f32, bf16, 1)
