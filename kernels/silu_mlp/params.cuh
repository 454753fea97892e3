// The one argument of every kernel of this family: a struct by value.
//
// Pointers and strides come first, 4-byte fields after them, one field a line: no padding between fields, so the
// `#[repr(C)]` twins on the host agree by construction, and a test compares name, type and order.
//
// Row strides are in elements of the tensor they belong to. A null bias, norm weight or residual means "absent".
// A = activation dtype, W = weight dtype: x, n, h, residual are A; weights, biases, norm weight are W.
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

// n = rms_norm(x)
struct RmsNormParams {
    const void* x;
    const void* norm_weight;
    void* n;
    int64_t x_row_stride;
    int64_t n_row_stride;
    int32_t rows;
    int32_t hidden;
    int32_t vectorised;
    float norm_epsilon;
};

// h = silu(n Wg^T + bg) * (n Wu^T + bu); the plain MLP passes its only projection as gate_weight and gate_bias and
// leaves up_weight and up_bias null: h = silu(n Wg^T + bg)
struct GateUpParams {
    const void* x;
    const void* norm_weight;  // gemv only: null, or normalise x here; the other kernels are given n as x
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
    int32_t hidden;
    int32_t ffn;
    int32_t x_tile;  // gemv only: columns of x in shared memory at a time, a multiple of 256
    int32_t vectorised;
    int32_t round_gate_up;  // 0: Rounding::KeepF32, 1: Rounding::RoundGateUp
    float norm_epsilon;
};

// out = residual + h Wd^T + bd
struct DownParams {
    const void* h;
    const void* down_weight;
    const void* down_bias;
    const void* residual;
    void* out;
    void* partials;  // tile with splits > 1 and reduce: [splits, rows, hidden] f32, dense
    int64_t h_row_stride;
    int64_t down_row_stride;
    int64_t residual_row_stride;
    int64_t out_row_stride;
    int32_t rows;
    int32_t hidden;
    int32_t ffn;
    int32_t splits;  // tile and reduce only; 1: no workspace, the tile kernel writes out itself
    int32_t vectorised;
    int32_t out_dtype;  // 0 f32, 1 f16, 2 bf16
};
