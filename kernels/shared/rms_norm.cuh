// RMSNorm: one definition, so that every kernel that normalises agrees with every other to the bit.
#pragma once
#include "numeric.cuh"
#include "reduce.cuh"

constexpr int RMS_NORM_WARPS = 4;

// 1 / sqrt(mean(row^2) + epsilon) in f32, by a block of RMS_NORM_WARPS warps; `scratch` holds as many shared floats.
template <class T>
__device__ __forceinline__ float inverse_rms(const T* row, int columns, float epsilon, bool vectorised,
                                             float* scratch) {
    float sum = 0.0f;
    for (int column = int(threadIdx.x) * 8; column < columns; column += RMS_NORM_WARPS * 32 * 8) {
        float value[8];
        load_floats<T, 8>(row, column, columns, vectorised, value);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum = fmaf(value[i], value[i], sum);
    }
    return rsqrtf(block_sum<RMS_NORM_WARPS>(sum, scratch) / float(columns) + epsilon);
}

// w_j * x_j * inverse_rms for the eight elements at `column`, not yet rounded; zeros past the row's end.
template <class T, class W>
__device__ __forceinline__ void normalise8(const T* row, const W* weight, int column, int columns, float inverse,
                                           bool vectorised, float (&value)[8]) {
    float scale[8];
    load_floats<T, 8>(row, column, columns, vectorised, value);
    load_floats<W, 8>(weight, column, columns, vectorised, scale);
#pragma unroll
    for (int i = 0; i < 8; ++i) value[i] = scale[i] * (value[i] * inverse);
}
