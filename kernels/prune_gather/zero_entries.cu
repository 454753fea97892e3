// zero_entries:  out = weight, and out[i] = +0 for the i in indices[0..count]
//
// weight   [n] or [R, C], f32, f16 or bf16, any row stride        out  the same
// indices  [entries] u32, flat; those that are out of range are skipped
// count    [1] u32 in device memory, or null: all of them
//
//   zero_copy     grid (ceil(C / (256 * E)), min(R, 65535))  out = weight, E = elements in 16 bytes
//   zero_entries  grid min(ceil(entries / 256), 65535)       the zeros, after the copy
//
// block 256, no shared memory. Values are moved as bits: nothing is rounded, and NaN stays what it is.
#include "numeric.cuh"
#include "selection_params.cuh"

constexpr int ZERO_THREADS = 256;

template <class T> __device__ __forceinline__ void zero_copy(const ZeroEntriesParams& p) {
    const int64_t block_column = int64_t(blockIdx.x) * ZERO_THREADS * CHUNK<T>;
    for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const T* weight = static_cast<const T*>(p.weight) + row * p.weight_row_stride;
        T* out = static_cast<T*>(p.out) + row * p.out_row_stride;
        const int64_t column = block_column + int64_t(threadIdx.x) * CHUNK<T>;
        if (p.vectorised && column + CHUNK<T> <= p.columns) {
            store16(out + column, load_streaming16(weight + column));
            continue;
        }
        // Where nothing is aligned, neighbours take neighbours; the end of an aligned row is one thread's.
        const int64_t first = p.vectorised ? column : block_column + int64_t(threadIdx.x);
        const int64_t step = p.vectorised ? 1 : ZERO_THREADS;
#pragma unroll
        for (int i = 0; i < CHUNK<T>; ++i) {
            const int64_t at = first + i * step;
            if (at < p.columns) out[at] = weight[at];
        }
    }
}

template <class T> __device__ __forceinline__ void zero_entries(const ZeroEntriesParams& p) {
    const uint32_t* indices = static_cast<const uint32_t*>(p.indices);
    int64_t entries = p.entries;
    if (p.count != nullptr) entries = min(entries, int64_t(static_cast<const uint32_t*>(p.count)[0]));
    const int64_t step = int64_t(gridDim.x) * ZERO_THREADS;
    for (int64_t entry = int64_t(blockIdx.x) * ZERO_THREADS + threadIdx.x; entry < entries; entry += step) {
        const int64_t index = indices[entry];
        if (index >= p.rows * p.columns) continue;
        static_cast<T*>(p.out)[index / p.columns * p.out_row_stride + index % p.columns] = T{};
    }
}

#define ZERO_KERNEL(name, T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(ZERO_THREADS) name##_##T(const __grid_constant__ ZeroEntriesParams p) { \
        name<T>(p);                                                                                                   \
    }                                                                                                                 \
    SIMULATED_KERNEL(name##_##T)

#define ZERO_KERNELS(T)                                                                                               \
    ZERO_KERNEL(zero_copy, T)                                                                                         \
    ZERO_KERNEL(zero_entries, T)

ZERO_KERNELS(f32)
ZERO_KERNELS(f16)
ZERO_KERNELS(bf16)
