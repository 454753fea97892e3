// The one argument of the GRU's kernels: a struct by value.
//
// Pointers and strides come first, 4-byte fields after them, one field a line: no padding between fields, so the
// `#[repr(C)]` twins on the host agree by construction, and a test compares name, type and order.
//
// Strides are in elements of the tensor they belong to. A null pointer means "absent". dtypes: 0 f32, 1 f16, 2 bf16.
#pragma once
#include "device.cuh"

// a linear layer's matrix [rows, columns] and bias [rows]
struct GruPanel {
    const void* weight;
    const void* bias;
    int64_t row_stride;
};

// gates = x W^T + b of both directions
struct GruInputParams {
    GruPanel forward;
    GruPanel reverse;
    const void* x;
    const void* lengths;
    void* gates;  // [tokens, directions * outputs] f32, dense
    int64_t x_batch_stride;
    int64_t x_token_stride;
    int32_t batch;
    int32_t steps;  // tokens of a row
    int32_t features;
    int32_t outputs;  // of one direction
    int32_t directions;
    int32_t x_vectorised;  // 1: rows start on 16 bytes
    int32_t weight_vectorised;
};

// states of both directions, from gates
struct GruRecurrenceParams {
    GruPanel forward;
    GruPanel reverse;
    const void* gates;
    const void* lengths;
    const void* initial;  // [2, B, h]
    void* out;  // [B, L, 2h]
    void* last;  // [2, B, h]
    int64_t initial_direction_stride;
    int64_t initial_batch_stride;
    int64_t out_batch_stride;
    int64_t out_token_stride;
    int64_t last_direction_stride;
    int64_t last_batch_stride;
    int32_t batch;
    int32_t steps;
    int32_t hidden;
    int32_t initial_dtype;
    int32_t out_dtype;
    int32_t last_dtype;
    int32_t weight_vectorised;  // wide only
};
