// The one argument of each kernel that chooses elements: a struct by value. Fields of 8 bytes come first, one field a
// line, so that the `#[repr(C)]` twins on the host have the same layout; a test compares name, type and order.
//
// Row strides are in elements.
#pragma once
#include "device.cuh"

// indices and rank of one mask, or of several
struct CompactMaskParams {
    const void* mask;
    void* indices;
    void* rank;  // null: not wanted
    void* count;  // null: not wanted
    int64_t mask_row_stride;
    int64_t indices_row_stride;
    int64_t rank_row_stride;
    int64_t rows;
    int64_t columns;
};

// the inverse of indices
struct InvertIndicesParams {
    const void* indices;
    void* rank;
    void* first_invalid;  // null: not wanted
    int64_t selected;
    int64_t features;
};

// The k largest of up to three tensors of scores of one shape, and what follows from them. Absent tensors are null.
struct SelectionParams {
    const void* scores_0;  // select_top: its scores; coupled_neurons: general
    const void* scores_1;  // first
    const void* scores_2;  // second
    void* state;  // [sets, 4] u32: the threshold's key, how many of its equals are taken, index behind the last of them
    void* histogram;  // [sets, 2^digit_bits] u32
    void* selected;  // [sets, tiles + 1] u32: keys above the threshold in a tile; then how many are selected before it
    void* equal;  // [sets, tiles + 1] u32: keys equal to the threshold in a tile; then before it
    void* members;  // [tiles + 1] u32: coupled entries in a tile; then before it
    void* lists;  // positional only: [8, capacity] u32, see coupled_neurons.cu
    void* indices;  // [capacity] u32
    void* count;  // [1] u32, or null
    int64_t row_stride_0;
    int64_t row_stride_1;
    int64_t row_stride_2;
    int32_t elements;
    int32_t columns;  // of a row; 0 where no tensor has gaps between its rows
    int32_t tiles;
    int32_t k_0;
    int32_t k_1;
    int32_t k_2;
    int32_t digit_bits;
    int32_t digit_shift;
    int32_t first_digit;  // 1: nothing is known of the threshold yet
    int32_t capacity;
};

// out = weight with zeros in some places
struct ZeroEntriesParams {
    const void* weight;
    const void* indices;  // [entries] u32, flat
    const void* count;  // [1] u32, how many of them; or null: all
    void* out;
    int64_t weight_row_stride;
    int64_t out_row_stride;
    int64_t rows;
    int64_t columns;
    int64_t entries;
    int64_t vectorised;  // 1: 16-byte accesses are allowed
};
