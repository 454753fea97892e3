// gather_plain:  out[r,c] = x[rows[r], columns[c]]; zeros from column `selected` on
//
// x    [R, C]          dtype T, any row stride >= C        rows, columns  uint32_t; null: all of them in order
// out  [r, c or more]  T: bits are copied; another float type: rounded once
//
// grid  (ceil(columns / (256 * N)), min(r, 65535))   block 256; N = elements in 16 bytes; a block strides over the rows
// shared  none
// One thread fills 16 bytes of a row of out. Its columns' indices are read once and kept for all its rows. Tensors that
// are not aligned go element by element, neighbouring threads on neighbouring elements.
// An index that is not below R or C gives 0.
#include "gather.cuh"
#include "params.cuh"

constexpr int GATHER_THREADS = 256;

// A storage type by its bits, so that copies change none.
template <class T> struct Bits {
    typedef uint16_t type;
    __device__ __forceinline__ static float to_float(uint16_t bits) { return ::to_float(T{bits}); }
};

template <> struct Bits<f32> {
    typedef uint32_t type;
    __device__ __forceinline__ static float to_float(uint32_t bits) { return __uint_as_float(bits); }
};

template <class T> constexpr int DTYPE = 0;
template <> constexpr int DTYPE<f16> = 1;
template <> constexpr int DTYPE<bf16> = 2;

// The column of x that column `column` of out comes from; -1: none, a zero.
__device__ __forceinline__ int source_column(const GatherPlainParams& p, int64_t column) {
    if (column >= p.selected) return -1;
    if (p.columns == nullptr) return int(column);
    const uint32_t index = static_cast<const uint32_t*>(p.columns)[column];
    return index < uint32_t(p.x_columns) ? int(index) : -1;
}

// Where row `row` of out comes from; null: nowhere, zeros.
template <class E> __device__ __forceinline__ const E* source_row(const GatherPlainParams& p, int64_t row) {
    const int64_t from = p.rows == nullptr ? row : int64_t(static_cast<const uint32_t*>(p.rows)[row]);
    return from < p.x_rows ? static_cast<const E*>(p.x) + from * p.x_row_stride : nullptr;
}

template <class T>
__device__ __forceinline__ void write_element(const GatherPlainParams& p, int64_t at, typename Bits<T>::type bits) {
    if (p.out_dtype == DTYPE<T>) {
        static_cast<typename Bits<T>::type*>(p.out)[at] = bits;
    } else {
        store_as(p.out, at, p.out_dtype, Bits<T>::to_float(bits));
    }
}

template <class T> __device__ __forceinline__ void gather_plain(const GatherPlainParams& p) {
    typedef typename Bits<T>::type E;
    constexpr int N = CHUNK<T>;
    const int64_t block_first = int64_t(blockIdx.x) * GATHER_THREADS * N;
    const bool whole = p.out_vectorised && block_first + (int64_t(threadIdx.x) + 1) * N <= p.out_columns;
    const ChunkColumns columns = chunk_columns<N>(block_first, GATHER_THREADS, p.out_vectorised);
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    const bool copy16 = whole && p.columns == nullptr && p.x_vectorised && columns.first + N <= p.selected;
    int from[N];
#pragma unroll
    for (int i = 0; i < N; ++i) from[i] = source_column(p, columns.first + i * columns.step);
    for (int64_t row = blockIdx.y; row < p.out_rows; row += gridDim.y) {
        const E* x = source_row<E>(p, row);
        E* out = static_cast<E*>(p.out) + row * p.out_row_stride;
        if (copy16 && x != nullptr) {
            store16(out + columns.first, load_streaming16(x + columns.first));
            continue;
        }
        E element[N];
#pragma unroll
        for (int i = 0; i < N; ++i) element[i] = x != nullptr && from[i] >= 0 ? x[from[i]] : E(0);
        if (whole) {
            constexpr int PER_WORD = 4 / int(sizeof(E));
            uint32_t word[4] = {0, 0, 0, 0};
#pragma unroll
            for (int i = 0; i < N; ++i) word[i / PER_WORD] |= uint32_t(element[i]) << (i % PER_WORD * 16);
            store16(out + columns.first, make_uint4(word[0], word[1], word[2], word[3]));
            continue;
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int64_t column = columns.first + i * columns.step;
            if (column < p.out_columns) write_element<T>(p, row * p.out_row_stride + column, element[i]);
        }
    }
}

#define GATHER_PLAIN_KERNEL(T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(GATHER_THREADS)                                                      \
        gather_plain_##T(const __grid_constant__ GatherPlainParams p) {                                               \
        gather_plain<T>(p);                                                                                           \
    }                                                                                                                 \
    SIMULATED_KERNEL(gather_plain_##T)

GATHER_PLAIN_KERNEL(f32)
GATHER_PLAIN_KERNEL(f16)
GATHER_PLAIN_KERNEL(bf16)
