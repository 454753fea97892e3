// The MLPs for prefill on sm_90a: a persistent, warp-specialised TMA and wgmma GEMM, the activation in its epilogue.
//
// gated_mlp_gate_up_wgmma  h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f]) * (n[m,:] . Wu[f,:] + bu[f])
// silu_mlp_up_wgmma        h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f])
// mlp_down_wgmma           out[m,d] = residual[m,d] + h[m,:] . Wd[j,:] + bd[j], or its partial sums over a range of F
// with d = indices[j], or j where nothing is selected; features that no j is written to are the residual. h is times
// mid_mask[f]^2, the last sum times out_mask[j]. Partial sums are added up by mlp_down_reduce, in tile.cu.
//
// n  [M, I], h  [M, F], residual  [M, D], Wg, Wu  [F, I], Wd  [O, F]  all f16 or all bf16      out  f32, f16 or bf16
// indices  [O]  u32, masks  f32: optional. Rows and pointers of n, h and weights 16-byte aligned.
//
// grid, block, shared memory and the order of tiles: those of wgmma_product.cuh. The two panels are Wg and Wu at the same
// f, so that gate meets up in a thread's registers, or, with one matrix, 128 rows and the next 128.
// Sums in f32 along the depth in order, splits in order: deterministic.
#include "device.cuh"
#include "finish.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "wgmma_product.cuh"

#if SILUETTE_HAS_WGMMA

template <class T>
__device__ __forceinline__ void store_neurons(const GateUpParams& p, int64_t token, int row, const float (&value)[8]) {
    // Rows of h start on multiples of 16 bytes, so that the eight end before the next row; what is behind the last
    // neuron is nobody's.
    store_floats_aligned<T, 8>(static_cast<T*>(p.h) + token * p.h_row_stride + row, value);
}

template <class T> __device__ __forceinline__ void gate_neurons(const GateUpParams& p, int row, const float (&up)[8],
                                                                float (&gate)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (row + i >= p.ffn) return;
        const float biased = up[i] + load_or_zero<T>(p.up_bias, row + i);
        const float value = silu_gate<T>(gate[i] + load_or_zero<T>(p.gate_bias, row + i), biased, p.round_gate_up);
        gate[i] = mask_neuron(p, row + i, value);
    }
}

template <class T> __device__ __forceinline__ void plain_neurons(const GateUpParams& p, int row, float (&gate)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (row + i < p.ffn) gate[i] = silu_plain<T>(gate[i] + load_or_zero<T>(p.gate_bias, row + i), p.round_gate_up);
    }
}

template <class T, bool GATED> __device__ __forceinline__ void gate_up_wgmma(const GateUpWgmmaParams& maps) {
    const GateUpParams& p = maps.other;
    const WgmmaProblem problem(&maps.n, &maps.gate_weight, GATED ? &maps.up_weight : &maps.gate_weight, p.rows, p.ffn,
                               p.inputs, 1);
    wgmma_run<T>(problem, [&](const WgmmaTile& tile, const WgmmaSums& sum) {
        wgmma_for_each(sum, [&](int tile_token, int tile_row, float (&first)[8], float (&second)[8]) {
            const int token = tile.token0 + tile_token;
            const int row = tile.row0 + tile_row;
            if (token >= p.rows || row >= p.ffn) return;
            if (GATED) {
                gate_neurons<T>(p, row, second, first);
                store_neurons<T>(p, token, row, first);
                return;
            }
            plain_neurons<T>(p, row, first);
            store_neurons<T>(p, token, row, first);
            if (row + WGMMA_PANEL >= p.ffn) return;
            plain_neurons<T>(p, row + WGMMA_PANEL, second);
            store_neurons<T>(p, token, row + WGMMA_PANEL, second);
        });
    });
}

__device__ __forceinline__ bool rows_are_aligned(const void* matrix, int64_t row_stride) {
    return (reinterpret_cast<uint64_t>(matrix) | uint64_t(row_stride) * 2) % 16 == 0;
}

// Whether eight outputs that are neighbours in the weight are so in out and in the residual, 16 bytes on multiples of 16.
template <class T> __device__ __forceinline__ bool outputs_are_dense(const DownParams& p) {
    return p.out_indices == nullptr && p.out_dtype == DTYPE_CODE<T> && rows_are_aligned(p.out, p.out_row_stride) &&
           (p.residual == nullptr || rows_are_aligned(p.residual, p.residual_row_stride));
}

// As finish_output for eight rows, of which all exist.
template <class T>
__device__ __forceinline__ void finish_dense(const DownParams& p, int64_t token, int row, float (&value)[8]) {
    float residual[8] = {};
    if (p.residual != nullptr) {
        const T* of_token = static_cast<const T*>(p.residual) + token * p.residual_row_stride;
        load_floats<T, 8>(of_token, row, p.width, true, residual);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        value[i] += load_or_zero<T>(p.down_bias, row + i);
        if (p.out_mask != nullptr) value[i] *= static_cast<const float*>(p.out_mask)[row + i];
        value[i] += residual[i];
    }
    store_floats_aligned<T, 8>(static_cast<T*>(p.out) + token * p.out_row_stride + row, value);
}

template <class T>
__device__ __forceinline__ void finish_outputs(const DownParams& p, bool dense, int64_t token, int row,
                                               float (&value)[8]) {
    if (dense && row + 8 <= p.outputs) {
        finish_dense<T>(p, token, row, value);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (row + i < p.outputs) finish_output<T, T>(p, token, row + i, value[i]);
    }
}

__device__ __forceinline__ void store_partials(const DownParams& p, int split, int64_t token, int row,
                                               const float (&value)[8]) {
    float* partial = static_cast<float*>(p.partials) + (split * int64_t(p.rows) + token) * p.outputs + row;
    if (p.outputs % 4 == 0 && row + 8 <= p.outputs) {
        store_floats_aligned<float, 8>(partial, value);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (row + i < p.outputs) partial[i] = value[i];
    }
}

// The residual to a tile's features that are not written, by each warpgroup for its own tokens.
template <class T> __device__ __forceinline__ void copy_residual_wgmma(const DownParams& p, const WgmmaTile& tile) {
    if (p.out_indices == nullptr) return;
    const int group = int(threadIdx.x) / WGMMA_GROUP;
    const int token0 = tile.token0 + group * WGMMA_GROUP_TOKENS;
    copy_residual_of<T, WGMMA_GROUP, 2 * WGMMA_PANEL>(p, int(threadIdx.x) % WGMMA_GROUP, tile.row0, token0, 1,
                                                      min(token0 + WGMMA_GROUP_TOKENS, p.rows));
    named_barrier_sync(1 + group, WGMMA_GROUP);
}

template <class T> __device__ __forceinline__ void down_wgmma(const DownWgmmaParams& maps) {
    const DownParams& p = maps.other;
    const WgmmaProblem problem(&maps.h, &maps.down_weight, &maps.down_weight, p.rows, p.outputs, p.depth, p.splits);
    const bool dense = outputs_are_dense<T>(p);
    wgmma_run<T>(problem, [&](const WgmmaTile& tile, const WgmmaSums& sum) {
        if (p.splits == 1) copy_residual_wgmma<T>(p, tile);
        wgmma_for_each(sum, [&](int tile_token, int tile_row, float (&first)[8], float (&second)[8]) {
            const int token = tile.token0 + tile_token;
            const int row = tile.row0 + tile_row;
            if (token >= p.rows || row >= p.outputs) return;
            const bool second_exists = row + WGMMA_PANEL < p.outputs;
            if (p.splits == 1) {
                finish_outputs<T>(p, dense, token, row, first);
                if (second_exists) finish_outputs<T>(p, dense, token, row + WGMMA_PANEL, second);
            } else {
                store_partials(p, tile.split, token, row, first);
                if (second_exists) store_partials(p, tile.split, token, row + WGMMA_PANEL, second);
            }
        });
    });
}

#define WGMMA_KERNELS(T)                                                                                              \
    WGMMA_KERNEL(gated_mlp_gate_up_wgmma_##T, GateUpWgmmaParams, (gate_up_wgmma<T, true>))                            \
    WGMMA_KERNEL(silu_mlp_up_wgmma_##T, GateUpWgmmaParams, (gate_up_wgmma<T, false>))                                 \
    WGMMA_KERNEL(mlp_down_wgmma_##T, DownWgmmaParams, down_wgmma<T>)

WGMMA_KERNELS(f16)
WGMMA_KERNELS(bf16)

#endif // SILUETTE_HAS_WGMMA
