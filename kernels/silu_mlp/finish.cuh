// The end of both products: masks, bias and residual, and the features that are written.
#pragma once
#include "numeric.cuh"
#include "params.cuh"

// h of one neuron from silu(gate) * up: a mask multiplies both branches, so it enters squared.
__device__ __forceinline__ float mask_neuron(const GateUpParams& p, int64_t neuron, float value) {
    if (p.mid_mask == nullptr) return value;
    const float mask = static_cast<const float*>(p.mid_mask)[neuron];
    return value * (mask * mask);
}

// out at row `row` of the weight, from the sum of its products. Whoever scatters has called copy_residual.
template <class A, class W>
__device__ __forceinline__ void finish_output(const DownParams& p, int64_t token, int row, float sum) {
    float value = sum + load_or_zero<W>(p.down_bias, row);
    if (p.out_mask != nullptr) value *= static_cast<const float*>(p.out_mask)[row];
    int64_t feature = row;
    if (p.out_indices != nullptr) {
        const uint32_t index = static_cast<const uint32_t*>(p.out_indices)[row];
        if (index >= uint32_t(p.width)) return;
        feature = index;
    }
    value += load_or_zero<A>(p.residual, token * p.residual_row_stride + feature);
    store_as(p.out, token * p.out_row_stride + feature, p.out_dtype, value);
}

// Copies the residual to the features that rows [row0, row0 + ROWS) of the weight own: those that they write, which
// finish_output then writes again, and those before them that no row writes; behind the last row, the rest. Indices
// ascend, so every feature has one owner. Tokens token0, token0 + token_step, ... below token_end.
// By threads 0 to THREADS - 1, who must meet before any of them writes: a row's owner writes over what others copied.
template <class A, int THREADS, int ROWS>
__device__ __forceinline__ void copy_residual_of(const DownParams& p, int thread, int row0, int64_t token0,
                                                 int64_t token_step, int64_t token_end) {
    const uint32_t* indices = static_cast<const uint32_t*>(p.out_indices);
    const uint32_t last = uint32_t(p.width) - 1;
    const int start = row0 == 0 ? 0 : int(min(indices[row0 - 1], last)) + 1;
    const int end = row0 + ROWS >= p.outputs ? p.width : int(min(indices[row0 + ROWS - 1], last)) + 1;
    for (int64_t token = token0; token < token_end; token += token_step) {
        for (int feature = start + thread; feature < end; feature += THREADS) {
            const float residual = load_or_zero<A>(p.residual, token * p.residual_row_stride + feature);
            store_as(p.out, token * p.out_row_stride + feature, p.out_dtype, residual);
        }
    }
}

// The same by a whole block. Every thread must come here; nothing happens where every feature is written.
template <class A, int THREADS, int ROWS>
__device__ __forceinline__ void copy_residual(const DownParams& p, int row0, int64_t token0, int64_t token_step,
                                              int64_t token_end) {
    if (p.out_indices == nullptr) return;
    copy_residual_of<A, THREADS, ROWS>(p, int(threadIdx.x), row0, token0, token_step, token_end);
    __syncthreads();
}
