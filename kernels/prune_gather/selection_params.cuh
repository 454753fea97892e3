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
