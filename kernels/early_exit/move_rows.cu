// compact_rows:  to[i] = from[permutation[i]]  for i < count, else 0
// scatter_rows:  to[permutation[i]] = from[i]  for i < count; other rows stay as they are
//
// compact_rows  from [M, D], to [M', D]      scatter_rows  from [M', D], to [M, D]      any row stride >= D
// permutation  [M']  int32_t      count  [1]  int32_t, may be anything; null: M'
//
// grid  (ceil(D / (256 * N)), min(M', 65535))   block 256; N = elements in 16 bytes; a block strides over the rows
// shared  none
// Bits are copied: `_f32` is for all types of 4 bytes, `_f16` for those of 2. A thread moves 16 bytes of a row; rows that
// are not aligned go element by element, neighbouring threads on neighbouring elements.
// An index outside of 0..M is nowhere: such a row is zero, or goes nowhere. Of two rows with one index either may win,
// element by element.
#include "gate_params.cuh"
#include "numeric.cuh"

constexpr int MOVE_THREADS = 256;

// A row's part of this thread; `from` null: zeros.
template <class E>
__device__ __forceinline__ void move_part(const MoveRowsParams& p, const E* from, E* to, int64_t block_first) {
    constexpr int N = 16 / int(sizeof(E));
    const int64_t chunk = block_first + int64_t(threadIdx.x) * N;
    if (p.vectorised && chunk + N <= p.columns) {
        store16(to + chunk, from == nullptr ? make_uint4(0, 0, 0, 0) : load16(from + chunk));
        return;
    }
    const int64_t first = p.vectorised ? chunk : block_first + threadIdx.x;
    const int64_t step = p.vectorised ? 1 : MOVE_THREADS;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int64_t column = first + i * step;
        if (column < p.columns) to[column] = from == nullptr ? E(0) : from[column];
    }
}

template <class E, bool SCATTERS> __device__ __forceinline__ void move_rows(const MoveRowsParams& p) {
    const int64_t block_first = int64_t(blockIdx.x) * MOVE_THREADS * (16 / int(sizeof(E)));
    const E* from = static_cast<const E*>(p.from);
    E* to = static_cast<E*>(p.to);
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    const int64_t count = p.count == nullptr ? p.listed : *static_cast<const int32_t*>(p.count);
    for (int64_t row = blockIdx.y; row < p.listed; row += gridDim.y) {
        const int64_t index = row < count ? static_cast<const int32_t*>(p.permutation)[row] : -1;
        const bool is_somewhere = index >= 0 && index < p.rows;
        if (SCATTERS) {
            if (is_somewhere) {
                move_part(p, from + row * p.from_row_stride, to + index * p.to_row_stride, block_first);
            }
        } else {
            const E* source = is_somewhere ? from + index * p.from_row_stride : nullptr;
            move_part(p, source, to + row * p.to_row_stride, block_first);
        }
    }
}

#define MOVE_ROWS_KERNEL(NAME, E, SCATTERS)                                                                           \
    extern "C" __global__ void __launch_bounds__(MOVE_THREADS) NAME(const __grid_constant__ MoveRowsParams p) {       \
        move_rows<E, SCATTERS>(p);                                                                                    \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

MOVE_ROWS_KERNEL(compact_rows_f32, uint32_t, false)
MOVE_ROWS_KERNEL(compact_rows_f16, uint16_t, false)
MOVE_ROWS_KERNEL(scatter_rows_f32, uint32_t, true)
MOVE_ROWS_KERNEL(scatter_rows_f16, uint16_t, true)
