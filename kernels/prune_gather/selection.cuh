// What the kernels of select_top and coupled_neurons share: keys of scores wherever they lie, and who is selected.
#pragma once
#include "scan.cuh"
#include "score_key.cuh"
#include "selection_params.cuh"

constexpr int SELECT_WARPS = 8;
constexpr int SELECT_THREADS = SELECT_WARPS * 32;
constexpr uint32_t SELECT_TILE = TILE<SELECT_WARPS>;
// Kernels of one block that walk over counts of tiles.
constexpr int OFFSETS_WARPS = 32;
constexpr int OFFSETS_THREADS = OFFSETS_WARPS * 32;
constexpr uint32_t STATE_WORDS = 4;
constexpr uint32_t NO_INDEX = 0xffffffffu;

// One of the tensors of scores.
template <class T> struct Scores {
    const T* data;
    int64_t row_stride;
    uint32_t columns;

    __device__ __forceinline__ Scores(const SelectionParams& p, uint32_t set)
        : data(static_cast<const T*>(set == 0 ? p.scores_0 : set == 1 ? p.scores_1 : p.scores_2)),
          row_stride(set == 0 ? p.row_stride_0 : set == 1 ? p.row_stride_1 : p.row_stride_2),
          columns(uint32_t(p.columns)) {}

    __device__ __forceinline__ uint32_t key(uint32_t index) const {
        if (columns == 0) return score_key(data[index]);
        return score_key(data[int64_t(index / columns) * row_stride + index % columns]);
    }
};

__device__ __forceinline__ uint32_t* state_of(const SelectionParams& p, uint32_t set) {
    return static_cast<uint32_t*>(p.state) + set * STATE_WORDS;
}

// A set's counts by tile.
__device__ __forceinline__ uint32_t* tiles_of(const SelectionParams& p, void* counts, uint32_t set) {
    return static_cast<uint32_t*>(counts) + set * (uint32_t(p.tiles) + 1);
}

// Where the k largest end: ties are selected in the order of their indices.
struct Selected {
    uint32_t threshold;
    uint32_t cut;

    __device__ __forceinline__ Selected(const SelectionParams& p, uint32_t set)
        : threshold(state_of(p, set)[0]), cut(state_of(p, set)[2]) {}

    __device__ __forceinline__ bool holds(uint32_t key, uint32_t index) const {
        return key > threshold || (key == threshold && index < cut);
    }
};
