// The one argument of every kernel of this family: a struct by value.
//
// Pointers and strides come first, 4-byte fields after them, one field a line: no padding between fields, so the
// `#[repr(C)]` twins on the host agree by construction, and a test compares name, type and order.
//
// Row strides are in elements of the tensor they belong to. A null bias, norm weight, residual, mask or list of indices
// means "absent". A = activation dtype, W = weight dtype: x, n, h, residual are A; weights, biases, norm weight are W;
// masks are f32, indices u32. Indices may hold anything: what is out of range reads as 0 and is not written.
#pragma once
#include "device.cuh"

// out = silu(gate) * up
struct SiluMulParams {
    const void* gate;
    const void* up;
    void* out;
    int64_t gate_row_stride;
    int64_t up_row_stride;
    int64_t out_row_stride;
    int64_t rows;
    int64_t columns;
    int32_t vectorised;  // 1: 16-byte accesses are allowed, see README, "Alignment"
    int32_t out_dtype;  // 0 f32, 1 f16, 2 bf16
};

// n = mask * rms_norm(x), of the features that indices name
struct PrepareParams {
    const void* x;
    const void* norm_weight;
    const void* in_indices;
    const void* in_mask;
    void* n;
    int64_t x_row_stride;
    int64_t n_row_stride;
    int32_t rows;
    int32_t hidden;  // features of x
    int32_t inputs;  // columns of n
    int32_t norms_selection;  // 1: the norm's sum is over the selected features, 0: over all
    int32_t norm_divisor;  // what the norm's sum is divided by
    int32_t vectorised;
    float norm_epsilon;
};

// h = silu(n Wg^T + bg) * (n Wu^T + bu); the plain MLP passes its only projection as gate_weight and gate_bias and
// leaves up_weight and up_bias null: h = silu(n Wg^T + bg)
struct GateUpParams {
    const void* x;
    const void* norm_weight;  // gemv only: null, or normalise x here; the other kernels are given n as x
    const void* in_indices;  // gemv only, as norm_weight
    const void* in_mask;  // gemv only, as norm_weight
    const void* mid_mask;
    const void* gate_weight;
    const void* up_weight;
    const void* gate_bias;
    const void* up_bias;
    void* h;
    int64_t x_row_stride;
    int64_t gate_row_stride;
    int64_t up_row_stride;
    int64_t h_row_stride;
    int32_t rows;
    int32_t hidden;  // features of x
    int32_t inputs;  // columns of n and of the weights
    int32_t ffn;
    int32_t norms_selection;  // gemv only, as norm_weight
    int32_t norm_divisor;
    int32_t x_tile;  // gemv only: columns of x in shared memory at a time, a multiple of 256
    int32_t vectorised;
    int32_t round_gate_up;  // 0: Rounding::KeepF32, 1: Rounding::RoundGateUp
    float norm_epsilon;
};

// out = residual + mask * (h Wd^T + bd); with indices, row j of Wd is written to feature indices[j], and all other
// features are copied from the residual
struct DownParams {
    const void* h;
    const void* down_weight;
    const void* down_bias;
    const void* residual;
    const void* out_indices;
    const void* out_mask;
    void* out;
    void* partials;  // tile with splits > 1 and reduce: [splits, rows, outputs] f32, dense
    int64_t h_row_stride;
    int64_t down_row_stride;
    int64_t residual_row_stride;
    int64_t out_row_stride;
    int32_t rows;
    int32_t outputs;  // rows of the weight
    int32_t depth;  // its columns
    int32_t width;  // features of out and residual
    int32_t splits;  // tile and reduce only; 1: no workspace, the tile kernel writes out itself
    int32_t vectorised;
    int32_t out_dtype;  // 0 f32, 1 f16, 2 bf16
};

#if SILUETTE_HAS_WGMMA

// What the wgmma kernels take: tensor maps of f16 or bf16 with the 128-byte swizzle, boxes of 64 columns x 128 rows and
// zeros outside, and what the other kernels of their half take. The plain MLP leaves up_weight unused.
struct GateUpWgmmaParams {
    TensorMap n;
    TensorMap gate_weight;
    TensorMap up_weight;
    GateUpParams other;
};

struct DownWgmmaParams {
    TensorMap h;
    TensorMap down_weight;
    DownParams other;
};

#endif // SILUETTE_HAS_WGMMA
