// The one argument of the kernels that move features between rows of different widths: a struct by value.
//
// Pointers and strides come first, 4-byte fields after them, one field a line, so that the `#[repr(C)]` twins on the
// host agree by construction; a test compares name, type and order.
//
// Row strides are in elements of the tensor they belong to. Indices are uint32_t, ranks int32_t; a null pointer means
// "absent". A = activation dtype, W = weight dtype.
#pragma once
#include "device.cuh"

// out[r,c] = x[rows[r], columns[c]]
struct GatherPlainParams {
    const void* x;
    const void* rows;  // null: row r
    const void* columns;  // null: column c
    void* out;
    int64_t x_row_stride;
    int64_t out_row_stride;
    int64_t x_rows;
    int64_t out_rows;
    int32_t x_columns;
    int32_t selected;  // columns of out that come from x; zeros behind
    int32_t out_columns;
    int32_t x_vectorised;
    int32_t out_vectorised;
    int32_t out_dtype;  // 0 f32, 1 f16, 2 bf16
};

// out[m,i] = rms_norm(x[m,:])[indices[i]]
struct GatherNormParams {
    const void* x;
    const void* indices;
    const void* norm_weight;
    void* out;
    int64_t x_row_stride;
    int64_t out_row_stride;
    int32_t features;
    int32_t selected;
    int32_t norm_scope;  // see norm_scope.cuh
    int32_t x_vectorised;
    int32_t out_vectorised;
    int32_t out_dtype;
    float norm_epsilon;
};

// out = residual + scatter(y)
struct ScatterAddParams {
    const void* residual;
    const void* y;
    const void* indices;
    const void* rank;  // null: places are searched in indices
    void* out;
    int64_t residual_row_stride;
    int64_t y_row_stride;
    int64_t out_row_stride;
    int64_t rows;
    int32_t features;
    int32_t selected;
    int32_t vectorised;  // residual and out
    int32_t out_dtype;  // 0 f32, 1 f16, 2 bf16
};

// residual_out = residual + scatter(y), gathered[m,i] = rms_norm(residual_out[m,:])[in_indices[i]]
struct ScatterNormGatherParams {
    const void* residual;
    const void* y;
    const void* out_indices;
    const void* out_rank;  // null: places are searched in out_indices
    const void* norm_weight;
    const void* in_indices;
    void* residual_out;
    void* gathered;
    int64_t residual_row_stride;
    int64_t y_row_stride;
    int64_t residual_out_row_stride;
    int64_t gathered_row_stride;
    int32_t features;
    int32_t out_selected;
    int32_t in_selected;
    int32_t norm_scope;  // see norm_scope.cuh
    int32_t staged;  // 1: dynamic shared memory holds a row of A; 0: it is read again from residual_out
    int32_t residual_vectorised;
    int32_t residual_out_vectorised;
    int32_t gathered_vectorised;
    int32_t residual_out_dtype;  // A's, or 0 for f32
    int32_t gathered_dtype;
    float norm_epsilon;
};

// h[m,j] = silu(n[m,:] . Wg[j,:]) * (n[m,:] . Wu[j,:]) where token m selects neuron j
struct SparseGateUpParams {
    const void* x;
    const void* norm_weight;
    const void* gate_weight;
    const void* up_weight;
    const void* neurons;
    const void* neuron_offsets;  // null: the threshold selects
    void* h;
    int64_t x_row_stride;
    int64_t gate_row_stride;
    int64_t up_row_stride;
    int64_t h_row_stride;
    int64_t listed;  // length of neurons
    int32_t hidden;
    int32_t ffn;
    int32_t x_tile;  // columns of x in shared memory at a time, a multiple of 256
    int32_t vectorised;  // x, norm_weight and both weights
    int32_t round_gate_up;  // 0: Rounding::KeepF32, 1: Rounding::RoundGateUp
    float norm_epsilon;
    float threshold;
};

// h[m,j] = silu(gate[m,j]) * up[m,j] where token m selects neuron j; gate and up are f32 without gaps
struct SparseSelectParams {
    const void* gate;
    const void* up;
    const void* neurons;
    const void* neuron_offsets;  // null: the threshold selects
    void* h;
    int64_t h_row_stride;
    int64_t listed;
    int32_t ffn;
    int32_t round_gate_up;
    float threshold;
};

// out[m,c] = residual[m,c] + sum_j h[m,j] Wd[j,c]
struct SparseDownParams {
    const void* h;
    const void* down_weight;
    const void* residual;
    void* out;
    int64_t h_row_stride;
    int64_t down_row_stride;
    int64_t residual_row_stride;
    int64_t out_row_stride;
    int32_t hidden;
    int32_t ffn;
    int32_t vectorised;  // down_weight
    int32_t out_dtype;  // 0 f32, 1 f16, 2 bf16
};
