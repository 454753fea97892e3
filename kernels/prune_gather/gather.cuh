// Rows that are written 16 bytes a thread, whatever their alignment.
#pragma once
#include "numeric.cuh"

// The columns of a chunk that one thread of a block writes: neighbours of each other where chunks are stored whole,
// else `threads` apart, so that neighbouring threads touch neighbouring elements.
struct ChunkColumns {
    int64_t first;
    int step;
};

template <int N> __device__ __forceinline__ ChunkColumns chunk_columns(int64_t block_first, int threads, bool whole) {
    ChunkColumns columns;
    columns.first = block_first + int64_t(threadIdx.x) * (whole ? N : 1);
    columns.step = whole ? 1 : threads;
    return columns;
}
