// sparse_gated_mlp, many tokens, between the dense projections:  h[m,j] = silu(gate[m,j]) * up[m,j] where token m selects
// neuron j, and 0 elsewhere. Selected is |silu(gate[m,j])| > threshold, NaN included, or what the token's list says.
//
// gate, up  [M, F]  f32      h  [M, F]  activation dtype A
// offsets  [M + 1], neurons  [total]  u32: see sparse_gate_up.cu; or absent
//
// grid  (M)   block 256   no shared memory
// With lists, a block writes zeros to its row and then the members over them.
#include "device.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "sparse_lists.cuh"

constexpr int SELECT_THREADS = 256;

template <class A> __device__ __forceinline__ void sparse_select(const SparseSelectParams& p) {
    const int64_t token = blockIdx.x;
    const float* gate = static_cast<const float*>(p.gate) + token * p.ffn;
    const float* up = static_cast<const float*>(p.up) + token * p.ffn;
    A* h = static_cast<A*>(p.h) + token * p.h_row_stride;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    const bool listed = p.neuron_offsets != nullptr;
    for (int neuron = int(threadIdx.x); neuron < p.ffn; neuron += SELECT_THREADS) {
        // What is not a number is not at most the threshold either, and is kept.
        const bool keep = !listed && !(fabsf(silu(gate[neuron])) <= p.threshold);
        const float value = keep ? silu_gate<A>(gate[neuron], up[neuron], p.round_gate_up) : 0.0f;
        h[neuron] = from_float<A>(value);
    }
    if (!listed) return;
    __syncthreads();
    const SparseList list(p.neuron_offsets, p.listed, token);
    for (int64_t member = list.begin + threadIdx.x; member < list.end; member += SELECT_THREADS) {
        const uint32_t neuron = static_cast<const uint32_t*>(p.neurons)[member];
        if (neuron >= uint32_t(p.ffn)) continue;
        h[neuron] = from_float<A>(silu_gate<A>(gate[neuron], up[neuron], p.round_gate_up));
    }
}

#define SPARSE_SELECT_KERNEL(NAME, A)                                                                                 \
    extern "C" __global__ void __launch_bounds__(SELECT_THREADS)                                                      \
        NAME(const __grid_constant__ SparseSelectParams p) {                                                          \
        sparse_select<A>(p);                                                                                          \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

SPARSE_SELECT_KERNEL(sparse_gated_mlp_select_f32, f32)
SPARSE_SELECT_KERNEL(sparse_gated_mlp_select_f16, f16)
SPARSE_SELECT_KERNEL(sparse_gated_mlp_select_bf16, bf16)
