// What the host passes to the kernels of this family; src/ops/feature_attention/cuda_parameters.rs has the twins.
// Strides are in elements. Fields of 8 bytes come first.
#pragma once
#include "device.cuh"

struct FeatureAttentionParams {
    const void* x;
    const void* w1;
    const void* w2;
    const void* b1;       // may be null
    const void* b2;       // may be null
    const void* lengths;  // may be null: all texts are `tokens` long
    void* out;
    void* workspace;  // null: the state lies in shared memory
    int64_t x_text_stride;
    int64_t x_row_stride;
    int64_t out_text_stride;
    int64_t out_row_stride;
    int64_t w1_row_stride;
    int64_t w2_row_stride;
    int32_t tokens;
    int32_t features;
    int32_t reduced;
    int32_t groups;  // of tokens, summed apart
    int32_t staged;  // whether shared memory holds a text
    int32_t tanh;
    int32_t x_vectorised;
    int32_t out_vectorised;  // only where `out` is of the type of `x`
    int32_t w1_vectorised;
    int32_t w2_vectorised;
    int32_t out_dtype;
};
