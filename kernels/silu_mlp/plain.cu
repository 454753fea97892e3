// The MLPs by plain f32 FMAs: any dtype, shape, stride and alignment, any device.
//
// gated_mlp_gate_up_plain  h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f]) * (n[m,:] . Wu[f,:] + bu[f])
// silu_mlp_up_plain        h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f])
// mlp_down_plain           out[m,d] = residual[m,d] + h[m,:] . Wd[j,:] + bd[j]
// with d = indices[j], or j where nothing is selected; features that no j is written to are the residual. h is times
// mid_mask[f]^2, the last sum times out_mask[j].
//
// n  [M, I], h  [M, F], residual  [M, D]  activation dtype A      out  [M, D]  f32, f16 or bf16
// Wg, Wu  [F, I], Wd  [O, F]  weight dtype W, nn.Linear layout      indices  [O]  u32, masks  f32: optional
//
// grid  (ceil(M / 64), ceil(N / 64) gated or ceil(N / 128) others)   block 256; N = F or O, the rows of the weights
// shared  13,056 bytes: 64 tokens and two panels of 64 weight rows, 16 deep, as f32
// A block makes 64 tokens x (64 + 64) weight rows: the two panels are Wg and Wu at the same f, or, with one matrix,
// 64 rows and the next 64. A thread owns 4 tokens x 4 rows of each panel, so gate and up of an element meet in it.
// Products are summed along the depth in f32, in order: a result does not depend on M.
#include "device.cuh"
#include "finish.cuh"
#include "numeric.cuh"
#include "params.cuh"

constexpr int PLAIN_THREADS = 256;
constexpr int PLAIN_TOKENS = 64;
constexpr int PLAIN_ROWS = 64;
constexpr int PLAIN_DEPTH = 16;
constexpr int PLAIN_OWN = 4; // tokens, and weight rows of each panel, of one thread
// 4 more than 64: rows stay 16-byte aligned, and the transposing stores meet in two-way bank conflicts, not sixteen.
constexpr int PLAIN_PITCH = 68;
constexpr int PLAIN_LOADS = PLAIN_TOKENS * PLAIN_DEPTH / PLAIN_THREADS;
static_assert(PLAIN_TOKENS == PLAIN_ROWS, "a thread loads as many elements of x as of a panel");

template <class T> struct PlainMatrix {
    const T* first; // row 0 of the tile, read only where the row exists
    int64_t row_stride;
    int rows;       // from row 0 of the tile to the end of the matrix; not positive where none exists

    __device__ __forceinline__ PlainMatrix(const void* matrix, int64_t stride, int first_row, int all_rows)
        : first(static_cast<const T*>(matrix) + first_row * stride), row_stride(stride), rows(all_rows - first_row) {}
};

// This thread's share of a 64 x 16 tile; consecutive threads run along the depth, zeros outside the matrix.
template <class T>
__device__ __forceinline__ void plain_load(const PlainMatrix<T>& matrix, int start, int depth,
                                           float (&value)[PLAIN_LOADS]) {
    const int column = start + int(threadIdx.x) % PLAIN_DEPTH;
#pragma unroll
    for (int i = 0; i < PLAIN_LOADS; ++i) {
        const int row = int(threadIdx.x) / PLAIN_DEPTH + i * (PLAIN_THREADS / PLAIN_DEPTH);
        const bool inside = row < matrix.rows && column < depth;
        value[i] = inside ? to_float(matrix.first[row * matrix.row_stride + column]) : 0.0f;
    }
}

__device__ __forceinline__ void plain_store(const float (&value)[PLAIN_LOADS], float* tile) {
    const int column = int(threadIdx.x) % PLAIN_DEPTH;
#pragma unroll
    for (int i = 0; i < PLAIN_LOADS; ++i) {
        const int row = int(threadIdx.x) / PLAIN_DEPTH + i * (PLAIN_THREADS / PLAIN_DEPTH);
        tile[column * PLAIN_PITCH + row] = value[i];
    }
}

__device__ __forceinline__ void plain_multiply(const float* x_tile, const float* panels,
                                               float (&sum)[2][PLAIN_OWN][PLAIN_OWN]) {
    const int own_token = int(threadIdx.x) / 16 * PLAIN_OWN;
    const int own_row = int(threadIdx.x) % 16 * PLAIN_OWN;
#pragma unroll
    for (int k = 0; k < PLAIN_DEPTH; ++k) {
        const float4 x4 = *reinterpret_cast<const float4*>(x_tile + k * PLAIN_PITCH + own_token);
        const float x[PLAIN_OWN] = {x4.x, x4.y, x4.z, x4.w};
#pragma unroll
        for (int panel = 0; panel < 2; ++panel) {
            const float* row_values = panels + (panel * PLAIN_DEPTH + k) * PLAIN_PITCH + own_row;
            const float4 w4 = *reinterpret_cast<const float4*>(row_values);
            const float w[PLAIN_OWN] = {w4.x, w4.y, w4.z, w4.w};
#pragma unroll
            for (int token = 0; token < PLAIN_OWN; ++token) {
#pragma unroll
                for (int row = 0; row < PLAIN_OWN; ++row) {
                    sum[panel][token][row] = fmaf(x[token], w[row], sum[panel][token][row]);
                }
            }
        }
    }
}

// sum[panel] = x . panel^T for the thread's tokens and rows.
template <class A, class W>
__device__ __forceinline__ void plain_product(const PlainMatrix<A>& x, const PlainMatrix<W>& panel0,
                                              const PlainMatrix<W>& panel1, int depth,
                                              float (&sum)[2][PLAIN_OWN][PLAIN_OWN]) {
    SHARED_ARRAY(float, x_tile, [PLAIN_DEPTH * PLAIN_PITCH]);
    SHARED_ARRAY(float, panels, [2 * PLAIN_DEPTH * PLAIN_PITCH]);
    float next_x[PLAIN_LOADS];
    float next_row[2][PLAIN_LOADS];
    plain_load(x, 0, depth, next_x);
    plain_load(panel0, 0, depth, next_row[0]);
    plain_load(panel1, 0, depth, next_row[1]);
    for (int start = 0; start < depth; start += PLAIN_DEPTH) {
        plain_store(next_x, x_tile);
        plain_store(next_row[0], panels);
        plain_store(next_row[1], panels + PLAIN_DEPTH * PLAIN_PITCH);
        __syncthreads();
        // Past the end these are zeros that nobody stores; the loads fly while this tile is multiplied.
        plain_load(x, start + PLAIN_DEPTH, depth, next_x);
        plain_load(panel0, start + PLAIN_DEPTH, depth, next_row[0]);
        plain_load(panel1, start + PLAIN_DEPTH, depth, next_row[1]);
        plain_multiply(x_tile, panels, sum);
        // Everybody must have read the tile before the next one replaces it.
        __syncthreads();
    }
}

template <class A, class W, bool GATED> __device__ __forceinline__ void gate_up_plain(const GateUpParams& p) {
    const int token0 = int(blockIdx.x) * PLAIN_TOKENS;
    const int row0 = int(blockIdx.y) * (GATED ? PLAIN_ROWS : 2 * PLAIN_ROWS);
    const PlainMatrix<A> x(p.x, p.x_row_stride, token0, p.rows);
    const PlainMatrix<W> panel0(p.gate_weight, p.gate_row_stride, row0, p.ffn);
    const PlainMatrix<W> panel1(GATED ? p.up_weight : p.gate_weight, GATED ? p.up_row_stride : p.gate_row_stride,
                                GATED ? row0 : row0 + PLAIN_ROWS, p.ffn);
    float sum[2][PLAIN_OWN][PLAIN_OWN] = {};
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    plain_product<A, W>(x, panel0, panel1, p.inputs, sum);
    A* h = static_cast<A*>(p.h);
#pragma unroll
    for (int i = 0; i < PLAIN_OWN * PLAIN_OWN; ++i) {
        const int token = token0 + int(threadIdx.x) / 16 * PLAIN_OWN + i / PLAIN_OWN;
        const int row = row0 + int(threadIdx.x) % 16 * PLAIN_OWN + i % PLAIN_OWN;
        if (token >= p.rows || row >= p.ffn) continue;
        const int64_t index = token * p.h_row_stride + row;
        const float first = sum[0][i / PLAIN_OWN][i % PLAIN_OWN] + load_or_zero<W>(p.gate_bias, row);
        const float second = sum[1][i / PLAIN_OWN][i % PLAIN_OWN];
        if (GATED) {
            const float up = second + load_or_zero<W>(p.up_bias, row);
            const float value = silu_gate<A>(first, up, p.round_gate_up);
            h[index] = from_float<A>(mask_neuron(p, row, value));
        } else {
            h[index] = from_float<A>(silu_plain<A>(first, p.round_gate_up));
            if (row + PLAIN_ROWS >= p.ffn) continue;
            const float gate = second + load_or_zero<W>(p.gate_bias, row + PLAIN_ROWS);
            h[index + PLAIN_ROWS] = from_float<A>(silu_plain<A>(gate, p.round_gate_up));
        }
    }
}

template <class A, class W> __device__ __forceinline__ void down_plain(const DownParams& p) {
    const int token0 = int(blockIdx.x) * PLAIN_TOKENS;
    const int row0 = int(blockIdx.y) * 2 * PLAIN_ROWS;
    const PlainMatrix<A> h(p.h, p.h_row_stride, token0, p.rows);
    const PlainMatrix<W> panel0(p.down_weight, p.down_row_stride, row0, p.outputs);
    const PlainMatrix<W> panel1(p.down_weight, p.down_row_stride, row0 + PLAIN_ROWS, p.outputs);
    float sum[2][PLAIN_OWN][PLAIN_OWN] = {};
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    plain_product<A, W>(h, panel0, panel1, p.depth, sum);
    copy_residual<A, PLAIN_THREADS, 2 * PLAIN_ROWS>(p, row0, token0, 1, min(token0 + PLAIN_TOKENS, p.rows));
#pragma unroll
    for (int i = 0; i < 2 * PLAIN_OWN * PLAIN_OWN; ++i) {
        const int panel = i / (PLAIN_OWN * PLAIN_OWN);
        const int own_token = i / PLAIN_OWN % PLAIN_OWN;
        const int64_t token = token0 + int(threadIdx.x) / 16 * PLAIN_OWN + own_token;
        const int row = row0 + panel * PLAIN_ROWS + int(threadIdx.x) % 16 * PLAIN_OWN + i % PLAIN_OWN;
        if (token >= p.rows || row >= p.outputs) continue;
        finish_output<A, W>(p, token, row, sum[panel][own_token][i % PLAIN_OWN]);
    }
}

#define PLAIN_KERNEL(NAME, PARAMS, BODY)                                                                              \
    extern "C" __global__ void __launch_bounds__(PLAIN_THREADS, 2) NAME(const __grid_constant__ PARAMS p) { BODY(p); } \
    SIMULATED_KERNEL(NAME)
#define PLAIN_KERNELS(SUFFIX, A, W)                                                                                   \
    PLAIN_KERNEL(gated_mlp_gate_up_plain_##SUFFIX, GateUpParams, (gate_up_plain<A, W, true>))                         \
    PLAIN_KERNEL(silu_mlp_up_plain_##SUFFIX, GateUpParams, (gate_up_plain<A, W, false>))                              \
    PLAIN_KERNEL(mlp_down_plain_##SUFFIX, DownParams, (down_plain<A, W>))

PLAIN_KERNELS(f32, f32, f32)
PLAIN_KERNELS(f16, f16, f16)
PLAIN_KERNELS(bf16, bf16, bf16)
PLAIN_KERNELS(f32_f16, f32, f16)
PLAIN_KERNELS(f32_bf16, f32, bf16)
