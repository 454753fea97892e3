// exit_prepare, before the other kernels of exit_head where there is a norm:
//   prepared[m,:] = w * x / sqrt(mean(x^2) + epsilon),  x = hidden[rows[m],:]
//
// hidden  [R, D], prepared  [M, D]  activation dtype A      w  [D]  weight dtype W      rows  [M]  int32_t or absent
//
// grid  (M)   block 128 = 4 warps; a block owns a row
// shared  16 bytes, for the sum across warps
// Statistics in f32 in a fixed order; rounded once, to A. Rows that are none of hidden's are not written.
#include "device.cuh"
#include "params.cuh"
#include "rms_norm.cuh"

constexpr int PREPARE_THREADS = RMS_NORM_WARPS * 32;

template <class A, class W> __device__ __forceinline__ void prepare(const ExitPrepareParams& p) {
    SHARED_ARRAY(float, scratch, [RMS_NORM_WARPS]);
    const int source = p.rows == nullptr ? int(blockIdx.x) : static_cast<const int32_t*>(p.rows)[blockIdx.x];
    if (source < 0 || source >= p.hidden_rows) return;
    const A* x = static_cast<const A*>(p.hidden) + source * p.hidden_row_stride;
    A* n = static_cast<A*>(p.prepared) + blockIdx.x * p.prepared_row_stride;
    grid_dependency_launch_dependents();
    const float inverse = inverse_rms(x, p.features, p.norm_epsilon, p.vectorised, scratch);
    for (int column = int(threadIdx.x) * 8; column < p.features; column += PREPARE_THREADS * 8) {
        float value[8];
        normalise8(x, static_cast<const W*>(p.norm_weight), column, p.features, inverse, p.vectorised, value);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (column + i < p.features) n[column + i] = from_float<A>(value[i]);
        }
    }
}

#define PREPARE_KERNEL(NAME, A, W)                                                                                    \
    extern "C" __global__ void __launch_bounds__(PREPARE_THREADS) NAME(const __grid_constant__ ExitPrepareParams p) { \
        prepare<A, W>(p);                                                                                             \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

PREPARE_KERNEL(exit_prepare_f32, f32, f32)
PREPARE_KERNEL(exit_prepare_f16, f16, f16)
PREPARE_KERNEL(exit_prepare_bf16, bf16, bf16)
PREPARE_KERNEL(exit_prepare_f32_f16, f32, f16)
PREPARE_KERNEL(exit_prepare_f32_bf16, f32, bf16)
