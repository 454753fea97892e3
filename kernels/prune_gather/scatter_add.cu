// scatter_add:  out[m,j] = residual[m,j] + y[m,i] where indices[i] = j, else residual[m,j]
//
// residual  [M, d]  dtype T        y  [M, k]  T        indices  [k]  uint32_t, ascending
// rank      [d]     int32_t, j's place in indices or -1; null: found by binary search
// out       [M, d]  f32, f16 or bf16
//
// grid  (ceil(d / (256 * N)), min(ceil(M / 4), 65535))   block 256; N = elements in 16 bytes
// shared  none
// One thread fills 16 bytes of a row of out, and of every gridDim.y-th row after it: it looks its columns' places up
// once. Tensors that are not aligned go element by element, neighbouring threads on neighbouring elements.
// The sum is in f32, rounded once. A place that is not below k adds nothing.
#include "gather.cuh"
#include "params.cuh"
#include "scatter.cuh"

constexpr int SCATTER_THREADS = 256;

template <class T> __device__ __forceinline__ void scatter_add(const ScatterAddParams& p) {
    constexpr int N = CHUNK<T>;
    const int64_t block_first = int64_t(blockIdx.x) * SCATTER_THREADS * N;
    const ChunkColumns columns = chunk_columns<N>(block_first, SCATTER_THREADS, p.vectorised);
    const bool whole = p.vectorised && columns.first + N <= p.features;
    int place[N];
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    find_places(static_cast<const uint32_t*>(p.indices), static_cast<const int*>(p.rank), p.selected, columns.first,
                columns.step, p.features, place);
    for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const T* residual = static_cast<const T*>(p.residual) + row * p.residual_row_stride;
        const T* y = static_cast<const T*>(p.y) + row * p.y_row_stride;
        float value[N];
        if (whole) {
            Chunk<T>::unpack(load_streaming16(residual + columns.first), value);
            add_places(y, place, value);
            store16(static_cast<T*>(p.out) + row * p.out_row_stride + columns.first, Chunk<T>::pack(value));
            continue;
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int64_t column = columns.first + i * columns.step;
            value[i] = column < p.features ? to_float(residual[column]) : 0.0f;
        }
        add_places(y, place, value);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int64_t column = columns.first + i * columns.step;
            if (column < p.features) store_as(p.out, row * p.out_row_stride + column, p.out_dtype, value[i]);
        }
    }
}

#define SCATTER_ADD_KERNEL(T)                                                                                         \
    extern "C" __global__ void __launch_bounds__(SCATTER_THREADS)                                                     \
        scatter_add_##T(const __grid_constant__ ScatterAddParams p) {                                                 \
        scatter_add<T>(p);                                                                                            \
    }                                                                                                                 \
    SIMULATED_KERNEL(scatter_add_##T)

SCATTER_ADD_KERNEL(f32)
SCATTER_ADD_KERNEL(f16)
SCATTER_ADD_KERNEL(bf16)
