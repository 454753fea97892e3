// Scatters in gather form: each element of the wide row asks for its place in the narrow one, so that no two threads
// ever write the same address, and the result does not depend on the schedule.
#pragma once
#include "numeric.cuh"

// The first place in ascending `indices` whose index is not below `column`; `count` if there is none.
__device__ __forceinline__ int lower_bound(const uint32_t* indices, int count, int64_t column) {
    int low = 0;
    int high = count;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (int64_t(indices[middle]) < column) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// Places of the columns first, first + step, ... (N of them) in `indices`, -1 for those that are no members. Whatever
// the values in `rank` or `indices` are, a place is below `count`.
template <int N>
__device__ __forceinline__ void find_places(const uint32_t* indices, const int* rank, int count, int64_t first,
                                            int step, int64_t columns, int (&place)[N]) {
    int next = rank == nullptr && first < columns ? lower_bound(indices, count, first) : 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int64_t column = first + int64_t(i) * step;
        place[i] = -1;
        if (column >= columns) continue;
        if (rank != nullptr) {
            const int found = rank[column];
            place[i] = found >= 0 && found < count ? found : -1;
        } else {
            // Neighbours follow each other; columns further apart are searched for.
            if (i > 0 && step > 1) next = lower_bound(indices, count, column);
            if (next < count && int64_t(indices[next]) == column) place[i] = next++;
        }
    }
}

// residual + y where there is a place, else the residual as it is; not yet rounded.
template <class T, int N>
__device__ __forceinline__ void add_places(const T* y, const int (&place)[N], float (&value)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (place[i] >= 0) value[i] += to_float(y[place[i]]);
    }
}
