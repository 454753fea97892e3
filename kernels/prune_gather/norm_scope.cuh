// The RMS norm of a row of which only some features are wanted.
#pragma once
#include "gather.cuh"
#include "rms_norm.cuh"

// NormScope: the features that the mean square is over.
constexpr int SCOPE_FULL = 0;                 // all of them
constexpr int SCOPE_SELECTED = 1;             // the selected ones
constexpr int SCOPE_SELECTED_SUM_OVER_D = 2;  // the selected ones, divided by the number of all

// 1 / sqrt(sum / divisor + epsilon) over the selected features, by a block of RMS_NORM_WARPS warps; `value_at(j)` is
// feature j, asked for only below `features`.
template <class ValueAt>
__device__ __forceinline__ float inverse_rms_selected(ValueAt value_at, const uint32_t* indices, int selected,
                                                      int features, int scope, float epsilon, float* scratch) {
    float sum = 0.0f;
    for (int place = int(threadIdx.x); place < selected; place += RMS_NORM_WARPS * 32) {
        const uint32_t index = indices[place];
        if (index >= uint32_t(features)) continue;
        const float value = value_at(index);
        sum = fmaf(value, value, sum);
    }
    const int divisor = scope == SCOPE_SELECTED ? selected : features;
    return rsqrtf(block_sum<RMS_NORM_WARPS>(sum, scratch) / float(divisor) + epsilon);
}

// out[start + i] = w[j] * value_at(j) * inverse for the selected features j, by a block of RMS_NORM_WARPS warps; A is
// the type of `out` where `vectorised` says that it may be stored 16 bytes at a time.
template <class W, class A, class ValueAt>
__device__ __forceinline__ void gather_normalised(ValueAt value_at, const W* weight, const uint32_t* indices,
                                                  int features, int selected, float inverse, void* out, int64_t start,
                                                  int out_dtype, bool vectorised) {
    constexpr int N = CHUNK<A>;
    constexpr int THREADS = RMS_NORM_WARPS * 32;
    for (int64_t block_first = 0; block_first < selected; block_first += THREADS * N) {
        const ChunkColumns columns = chunk_columns<N>(block_first, THREADS, vectorised);
        float value[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int64_t column = columns.first + i * columns.step;
            const uint32_t index = column < selected ? indices[column] : uint32_t(features);
            value[i] = 0.0f;
            // The order of the products is that of normalise8.
            if (index < uint32_t(features)) value[i] = to_float(weight[index]) * (value_at(index) * inverse);
        }
        if (vectorised && columns.first + N <= selected) {
            store_floats_aligned<A, N>(static_cast<A*>(out) + start + columns.first, value);
            continue;
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int64_t column = columns.first + i * columns.step;
            if (column < selected) store_as(out, start + column, out_dtype, value[i]);
        }
    }
}
