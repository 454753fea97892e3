// mlp_prepare, before the skinny, tile and plain kernels:  n[m,i] = mask[j] * w[j] * x[m,j] / sqrt(s + epsilon)
// with j = indices[i], or i where nothing is selected; s = mean_j(x[m,:]^2), or of the selected features alone.
// Mask, norm (w and the root) and selection are optional.
//
// x  [M, H], n  [M, I]  activation dtype A, row strides >= H, I      w  [H]  weight dtype W
// mask  [H]  f32, not together with indices  [I]  u32
//
// grid  (M)   block 128 = 4 warps; a block owns a row
// shared  16 bytes, for the sum across warps
// x is read twice, the second time from L1 or L2. Statistics in f32 in a fixed order, the same for a selection of every
// feature as for none; n is rounded once, to A. An index that is out of range selects a zero.
#include "device.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "prepare.cuh"

constexpr int PREPARE_THREADS = RMS_NORM_WARPS * 32;

template <class A, class W> __device__ __forceinline__ void prepare(const PrepareParams& p) {
    SHARED_ARRAY(float, scratch, [RMS_NORM_WARPS]);
    const A* x = static_cast<const A*>(p.x) + blockIdx.x * p.x_row_stride;
    A* n = static_cast<A*>(p.n) + blockIdx.x * p.n_row_stride;
    const Preparation<A, W, PrepareParams> preparation(p);
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    const float inverse = preparation.scale(p, x, scratch);
    for (int column = int(threadIdx.x) * 8; column < p.inputs; column += PREPARE_THREADS * 8) {
        float value[8];
        preparation.load8(p, x, inverse, column, p.inputs, value);
        if (p.vectorised && column + 8 <= p.inputs) {
            store_floats_aligned<A, 8>(n + column, value);
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if (column + i < p.inputs) n[column + i] = from_float<A>(value[i]);
            }
        }
    }
}

#define PREPARE_KERNEL(NAME, A, W)                                                                                    \
    extern "C" __global__ void __launch_bounds__(PREPARE_THREADS) NAME(const __grid_constant__ PrepareParams p) {     \
        prepare<A, W>(p);                                                                                             \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

PREPARE_KERNEL(mlp_prepare_f32, f32, f32)
PREPARE_KERNEL(mlp_prepare_f16, f16, f16)
PREPARE_KERNEL(mlp_prepare_bf16, bf16, bf16)
PREPARE_KERNEL(mlp_prepare_f32_f16, f32, f16)
PREPARE_KERNEL(mlp_prepare_f32_bf16, f32, bf16)
