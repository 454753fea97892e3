// From x to n: norm, selection and mask, for the kernels that make n and the one that keeps it in shared memory.
#pragma once
#include "numeric.cuh"
#include "rms_norm.cuh"

// Eight elements of a row at the features of columns [column, column + 8), zeros where there is no such column or feature.
template <class T>
__device__ __forceinline__ void gather8(const T* row, const uint32_t* indices, int column, int columns, int features,
                                        float (&value)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const uint32_t feature = column + i < columns ? indices[column + i] : 0xffffffffu;
        value[i] = feature < uint32_t(features) ? to_float(row[feature]) : 0.0f;
    }
}

// What turns x into n; P is PrepareParams or GateUpParams. A block of RMS_NORM_WARPS warps works on a row.
template <class A, class W, class P> struct Preparation {
    const W* norm_weight;
    const uint32_t* indices;
    const float* mask;

    __device__ __forceinline__ Preparation(const P& p)
        : norm_weight(static_cast<const W*>(p.norm_weight)), indices(static_cast<const uint32_t*>(p.in_indices)),
          mask(static_cast<const float*>(p.in_mask)) {}

    // 1 / rms(x) over the features that the norm's scope names; 1 without a norm.
    __device__ __forceinline__ float scale(const P& p, const A* x, float* scratch) const {
        if (norm_weight == nullptr) return 1.0f;
        if (!p.norms_selection) return inverse_rms(x, p.hidden, p.norm_epsilon, p.vectorised, scratch);
        float sum = 0.0f;
        for (int column = int(threadIdx.x) * 8; column < p.inputs; column += RMS_NORM_WARPS * 32 * 8) {
            float value[8];
            gather8(x, indices, column, p.inputs, p.hidden, value);
#pragma unroll
            for (int i = 0; i < 8; ++i) sum = fmaf(value[i], value[i], sum);
        }
        return rsqrtf(block_sum<RMS_NORM_WARPS>(sum, scratch) / float(p.norm_divisor) + p.norm_epsilon);
    }

    // n at columns [column, column + 8), not yet rounded; zeros from `end` on.
    __device__ __forceinline__ void load8(const P& p, const A* x, float inverse, int column, int end,
                                          float (&value)[8]) const {
        if (indices != nullptr) {
            gather8(x, indices, column, end, p.hidden, value);
            if (norm_weight != nullptr) {
                float weight[8];
                gather8(norm_weight, indices, column, end, p.hidden, weight);
#pragma unroll
                for (int i = 0; i < 8; ++i) value[i] = weight[i] * (value[i] * inverse);
            }
        } else if (norm_weight != nullptr) {
            normalise8(x, norm_weight, column, end, inverse, p.vectorised, value);
        } else {
            load_floats<A, 8>(x, column, end, p.vectorised, value);
        }
        if (mask != nullptr) {
#pragma unroll
            for (int i = 0; i < 8; ++i) value[i] *= column + i < end ? mask[column + i] : 0.0f;
        }
    }
};
