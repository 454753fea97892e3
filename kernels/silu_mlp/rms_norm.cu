// mlp_rms_norm, before the skinny, tile and plain kernels:  n[m,j] = w[j] * x[m,j] / sqrt(mean_j(x[m,:]^2) + epsilon)
//
// x, n  [M, H]  activation dtype A, row strides >= H      w  [H]  weight dtype W
//
// grid  (M)   block 128 = 4 warps; a block owns a row
// shared  16 bytes, for the sum across warps
// x is read twice, the second time from L1 or L2. Statistics in f32 in a fixed order; n is rounded once, to A.
#include "device.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "rms_norm.cuh"

constexpr int RMS_NORM_THREADS = RMS_NORM_WARPS * 32;

template <class A, class W> __device__ __forceinline__ void rms_norm(const RmsNormParams& p) {
    SHARED_ARRAY(float, scratch, [RMS_NORM_WARPS]);
    const A* x = static_cast<const A*>(p.x) + blockIdx.x * p.x_row_stride;
    A* n = static_cast<A*>(p.n) + blockIdx.x * p.n_row_stride;
    const W* weight = static_cast<const W*>(p.norm_weight);
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    const float inverse = inverse_rms(x, p.hidden, p.norm_epsilon, p.vectorised, scratch);
    for (int column = int(threadIdx.x) * 8; column < p.hidden; column += RMS_NORM_THREADS * 8) {
        float value[8];
        normalise8(x, weight, column, p.hidden, inverse, p.vectorised, value);
        if (p.vectorised && column + 8 <= p.hidden) {
            store_floats_aligned<A, 8>(n + column, value);
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if (column + i < p.hidden) n[column + i] = from_float<A>(value[i]);
            }
        }
    }
}

#define RMS_NORM_KERNEL(NAME, A, W)                                                                                   \
    extern "C" __global__ void __launch_bounds__(RMS_NORM_THREADS) NAME(const __grid_constant__ RmsNormParams p) {    \
        rms_norm<A, W>(p);                                                                                            \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

RMS_NORM_KERNEL(mlp_rms_norm_f32, f32, f32)
RMS_NORM_KERNEL(mlp_rms_norm_f16, f16, f16)
RMS_NORM_KERNEL(mlp_rms_norm_bf16, bf16, bf16)
RMS_NORM_KERNEL(mlp_rms_norm_f32_f16, f32, f16)
RMS_NORM_KERNEL(mlp_rms_norm_f32_bf16, f32, bf16)
