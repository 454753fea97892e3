// scatter_norm_gather, from one pruned block to the next in one launch:
//   residual_out[m,j] = residual[m,j] + y[m,i] where out_indices[i] = j, else residual[m,j]
//   gathered[m,i] = w[j] * r[m,j] / sqrt(mean(r[m,:]^2) + epsilon),  j = in_indices[i],  r = residual_out rounded to A
//
// residual, y   [M, d], [M, k]  activation dtype A       w  [d]  weight dtype W
// out_indices   [k]  uint32_t, ascending                 in_indices  [k']  uint32_t
// out_rank      [d]  int32_t, j's place in out_indices or -1; null: found by binary search
// residual_out  [M, d]  A or f32                         gathered  [M, k']  f32, f16 or bf16
//
// grid  (M)   block 128 = 4 warps; a block owns a row, an SM has several of them in flight
// shared  16 bytes for the sum across warps; d * sizeof(A) dynamic where `staged`
// The rounded row stays in shared memory where that is large enough; otherwise it is read again from residual_out.
// Sums and statistics have the order of scatter_add and gather_norm: one launch gives the bits of the two.
// A place or an index out of range adds nothing and gives 0.
#include "gather.cuh"
#include "norm_scope.cuh"
#include "params.cuh"
#include "scatter.cuh"

constexpr int FUSED_THREADS = RMS_NORM_WARPS * 32;

// Eight columns of the row from `first` on: adds, writes residual_out, keeps the rounded values. Returns the sum of
// their squares, in the order of inverse_rms, on top of `sum`.
template <class A>
__device__ __forceinline__ float update_chunk(const ScatterNormGatherParams& p, const A* residual, const A* y,
                                              int64_t out_start, A* staged, int first, float sum) {
    float value[8];
    int place[8];
    load_floats<A, 8>(residual, first, p.features, p.residual_vectorised, value);
    find_places(static_cast<const uint32_t*>(p.out_indices), static_cast<const int*>(p.out_rank), p.out_selected, first,
                1, p.features, place);
    add_places(y, place, value);
    const bool whole = first + 8 <= p.features;
    if (p.residual_out_vectorised && whole) {
        store_floats_aligned<A, 8>(static_cast<A*>(p.residual_out) + out_start + first, value);
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (first + i < p.features) store_as(p.residual_out, out_start + first + i, p.residual_out_dtype, value[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const A rounded = from_float<A>(value[i]);
        if (p.staged && first + i < p.features) staged[first + i] = rounded;
        sum = fmaf(to_float(rounded), to_float(rounded), sum);
    }
    return sum;
}

template <class A, class W> __device__ __forceinline__ void scatter_norm_gather(const ScatterNormGatherParams& p) {
    DYNAMIC_SHARED(dynamic);
    SHARED_ARRAY(float, scratch, [RMS_NORM_WARPS]);
    A* staged = reinterpret_cast<A*>(dynamic);
    const A* residual = static_cast<const A*>(p.residual) + blockIdx.x * p.residual_row_stride;
    const A* y = static_cast<const A*>(p.y) + blockIdx.x * p.y_row_stride;
    const uint32_t* in_indices = static_cast<const uint32_t*>(p.in_indices);
    const int64_t out_start = int64_t(blockIdx.x) * p.residual_out_row_stride;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    float sum = 0.0f;
    for (int first = int(threadIdx.x) * 8; first < p.features; first += FUSED_THREADS * 8) {
        sum = update_chunk(p, residual, y, out_start, staged, first, sum);
    }
    // Also makes the whole row visible to every thread.
    const float total = block_sum<RMS_NORM_WARPS>(sum, scratch);
    const auto value_at = [&](uint32_t index) {
        if (p.staged) return to_float(staged[index]);
        if (p.residual_out_dtype != 0) return to_float(static_cast<const A*>(p.residual_out)[out_start + index]);
        return round_to<A>(static_cast<const float*>(p.residual_out)[out_start + index]);
    };
    float inverse = rsqrtf(total / float(p.features) + p.norm_epsilon);
    if (p.norm_scope != SCOPE_FULL) {
        inverse = inverse_rms_selected(value_at, in_indices, p.in_selected, p.features, p.norm_scope, p.norm_epsilon,
                                       scratch);
    }
    gather_normalised<W, A>(value_at, static_cast<const W*>(p.norm_weight), in_indices, p.features, p.in_selected,
                            inverse, p.gathered, int64_t(blockIdx.x) * p.gathered_row_stride, p.gathered_dtype,
                            p.gathered_vectorised);
}

#define SCATTER_NORM_GATHER_KERNEL(NAME, A, W)                                                                        \
    extern "C" __global__ void __launch_bounds__(FUSED_THREADS)                                                       \
        NAME(const __grid_constant__ ScatterNormGatherParams p) {                                                     \
        scatter_norm_gather<A, W>(p);                                                                                 \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

SCATTER_NORM_GATHER_KERNEL(scatter_norm_gather_f32, f32, f32)
SCATTER_NORM_GATHER_KERNEL(scatter_norm_gather_f16, f16, f16)
SCATTER_NORM_GATHER_KERNEL(scatter_norm_gather_bf16, bf16, bf16)
SCATTER_NORM_GATHER_KERNEL(scatter_norm_gather_f32_f16, f32, f16)
SCATTER_NORM_GATHER_KERNEL(scatter_norm_gather_f32_bf16, f32, bf16)
