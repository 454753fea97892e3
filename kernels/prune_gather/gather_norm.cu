// gather_norm:  out[m,i] = w[j] * x[m,j] / sqrt(mean(x[m,:]^2) + epsilon),  j = indices[i]
//
// x    [M, d]  activation dtype A, row stride >= d        w  [d]  weight dtype W        indices  [k]  uint32_t
// out  [M, k]  f32, f16 or bf16
//
// grid  (M)   block 128 = 4 warps; a block owns a row
// shared  16 bytes, for the sum across warps
// The row is read twice, the second time from L1 or L2. norm_scope.cuh says which features the mean is over; over all
// of them the statistics are those of mlp_prepare, so that selecting all features gives its bits.
// f32 arithmetic in a fixed order, one rounding to the output type. An index that is not below d gives 0.
#include "gather.cuh"
#include "norm_scope.cuh"
#include "params.cuh"

constexpr int GATHER_NORM_THREADS = RMS_NORM_WARPS * 32;

template <class A, class W> __device__ __forceinline__ void gather_norm(const GatherNormParams& p) {
    SHARED_ARRAY(float, scratch, [RMS_NORM_WARPS]);
    const A* x = static_cast<const A*>(p.x) + blockIdx.x * p.x_row_stride;
    const W* weight = static_cast<const W*>(p.norm_weight);
    const uint32_t* indices = static_cast<const uint32_t*>(p.indices);
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    float inverse;
    if (p.norm_scope == SCOPE_FULL) {
        inverse = inverse_rms(x, p.features, p.norm_epsilon, p.x_vectorised, scratch);
    } else {
        inverse = inverse_rms_selected([x](uint32_t index) { return to_float(x[index]); }, indices, p.selected,
                                       p.features, p.norm_scope, p.norm_epsilon, scratch);
    }
    gather_normalised<W, A>(
        [x](uint32_t index) { return to_float(x[index]); }, weight, indices, p.features, p.selected, inverse, p.out,
        int64_t(blockIdx.x) * p.out_row_stride, p.out_dtype, p.out_vectorised);
}

#define GATHER_NORM_KERNEL(NAME, A, W)                                                                                \
    extern "C" __global__ void __launch_bounds__(GATHER_NORM_THREADS)                                                 \
        NAME(const __grid_constant__ GatherNormParams p) {                                                            \
        gather_norm<A, W>(p);                                                                                         \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

GATHER_NORM_KERNEL(gather_norm_f32, f32, f32)
GATHER_NORM_KERNEL(gather_norm_f16, f16, f16)
GATHER_NORM_KERNEL(gather_norm_bf16, bf16, bf16)
GATHER_NORM_KERNEL(gather_norm_f32_f16, f32, f16)
GATHER_NORM_KERNEL(gather_norm_f32_bf16, f32, bf16)
