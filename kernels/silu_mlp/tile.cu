// The MLPs for prefill on tensor cores, sm_80 and later: a multistage cp.async GEMM, the activation in its epilogue.
//
// gated_mlp_gate_up_tile  h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f]) * (n[m,:] . Wu[f,:] + bu[f])
// silu_mlp_up_tile        h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f])
// mlp_down_tile           out[m,d] = residual[m,d] + h[m,:] . Wd[j,:] + bd[j], or its partial sums over a range of F
// mlp_down_reduce         out = residual + the partial sums + bd
// with d = indices[j], or j where nothing is selected; features that no j is written to are the residual. h is times
// mid_mask[f]^2, the last sum times out_mask[j].
//
// n  [M, I], h  [M, F], residual  [M, D], Wg, Wu  [F, I], Wd  [O, F]  all f16 or all bf16      out  f32, f16 or bf16
// indices  [O]  u32, masks  f32: optional. Rows and pointers 16-byte aligned.
//
// grid  (ceil(M / 128), ceil(N / 64) gated or ceil(N / 128) others, splits)   block 128 = 4 warps; N = F or O
//       reduce: (ceil(O / 256), min(M, 65535)), block 256
// shared  49,152 dynamic: 3 stages of 128 tokens and two panels of 64 weight rows, 32 deep
// A block makes 128 tokens x (64 + 64) weight rows: the two panels are Wg and Wu at the same f, or, with one matrix,
// 64 rows and the next 64. A warp owns 64 tokens x 32 rows of each panel, so gate meets up in a thread's registers.
// Tokens run fastest through the grid: neighbours share their weights, and the weights come from DRAM once.
// Swizzle: a row is four 16-byte chunks; chunk c of row r lies at c ^ (r / 2 % 4), so that the 8 rows of an ldmatrix
// matrix meet no bank twice.
// Sums in f32 along the depth in order, splits in order: deterministic.
#include "device.cuh"
#include "finish.cuh"
#include "numeric.cuh"
#include "params.cuh"

#if SILUETTE_HAS_MMA

constexpr int TILE_THREADS = 128;
constexpr int REDUCE_THREADS = 256;
constexpr int TILE_TOKENS = 128;
constexpr int TILE_PANEL = 64;
constexpr int TILE_DEPTH = 32;
constexpr int TILE_STAGES = 3;
constexpr int TILE_STAGE_ELEMENTS = (TILE_TOKENS + 2 * TILE_PANEL) * TILE_DEPTH;
constexpr int TILE_WARP_TOKENS = 64;
constexpr int TILE_WARP_ROWS = 32; // of each panel
constexpr int TILE_CHUNKS = TILE_DEPTH / 8;
constexpr int TILE_ROWS_PER_PASS = TILE_THREADS / TILE_CHUNKS;

// Of one thread: [panel][16 tokens][8 rows][fragment of mma_m16n8k16].
typedef float TileSums[2][TILE_WARP_TOKENS / 16][TILE_WARP_ROWS / 8][4];

// Element offset of a 16-byte chunk in a stage.
__device__ __forceinline__ int tile_offset(int row, int chunk) {
    return row * TILE_DEPTH + (chunk ^ (row / 2 % TILE_CHUNKS)) * 8;
}

// Rows of one operand, from the block's first on.
template <class T> struct TileOperand {
    const T* thread_source; // this thread's first row and chunk
    int64_t row_stride;
    int thread_rows; // rows from this thread's first to the end; not positive where none exists

    __device__ __forceinline__ TileOperand(const void* matrix, int64_t stride, int first_row, int rows)
        : row_stride(stride) {
        const int64_t row = first_row + int(threadIdx.x) / TILE_CHUNKS;
        thread_source = static_cast<const T*>(matrix) + row * stride + int(threadIdx.x) % TILE_CHUNKS * 8;
        thread_rows = rows - int(row);
    }

    // ROWS rows at depth `start` into the stage; rows and columns outside arrive as zeros, nothing is read for them.
    template <int ROWS>
    __device__ __forceinline__ void copy(int start, int depth, const T* stage, int first_row) const {
        const int chunk = int(threadIdx.x) % TILE_CHUNKS;
        const int bytes = 2 * max(0, min(8, depth - start - chunk * 8));
#pragma unroll
        for (int pass = 0; pass < ROWS / TILE_ROWS_PER_PASS; ++pass) {
            const int row = first_row + int(threadIdx.x) / TILE_CHUNKS + pass * TILE_ROWS_PER_PASS;
            cp_async16(smem_address(stage + tile_offset(row, chunk)),
                       thread_source + pass * TILE_ROWS_PER_PASS * row_stride + start,
                       pass * TILE_ROWS_PER_PASS < thread_rows ? bytes : 0);
        }
    }
};

template <class T> struct TileProblem {
    TileOperand<T> tokens;
    TileOperand<T> panel0;
    TileOperand<T> panel1;

    __device__ __forceinline__ void copy(int start, int depth, const T* stage) const {
        tokens.template copy<TILE_TOKENS>(start, depth, stage, 0);
        panel0.template copy<TILE_PANEL>(start, depth, stage, TILE_TOKENS);
        panel1.template copy<TILE_PANEL>(start, depth, stage, TILE_TOKENS + TILE_PANEL);
    }
};

__device__ __forceinline__ int tile_warp_token() { return int(threadIdx.x) / 64 * TILE_WARP_TOKENS; }
__device__ __forceinline__ int tile_warp_row() { return int(threadIdx.x) / 32 % 2 * TILE_WARP_ROWS; }

template <class T> __device__ __forceinline__ void tile_multiply(const T* stage, TileSums& sum) {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int first_chunk = 0; first_chunk < TILE_CHUNKS; first_chunk += 2) {
        uint32_t token[TILE_WARP_TOKENS / 16][4];
#pragma unroll
        for (int i = 0; i < TILE_WARP_TOKENS / 16; ++i) {
            const int row = tile_warp_token() + i * 16 + lane % 16;
            ldmatrix_x4(token[i], smem_address(stage + tile_offset(row, first_chunk + lane / 16)));
        }
#pragma unroll
        for (int panel = 0; panel < 2; ++panel) {
            uint32_t weight[TILE_WARP_ROWS / 8][2];
#pragma unroll
            for (int j = 0; j < TILE_WARP_ROWS / 8; j += 2) {
                const int panel_row = tile_warp_row() + j * 8 + lane / 16 * 8 + lane % 8;
                const int row = TILE_TOKENS + panel * TILE_PANEL + panel_row;
                uint32_t pair[4];
                ldmatrix_x4(pair, smem_address(stage + tile_offset(row, first_chunk + lane / 8 % 2)));
                weight[j][0] = pair[0];
                weight[j][1] = pair[1];
                weight[j + 1][0] = pair[2];
                weight[j + 1][1] = pair[3];
            }
#pragma unroll
            for (int i = 0; i < TILE_WARP_TOKENS / 16; ++i) {
#pragma unroll
                for (int j = 0; j < TILE_WARP_ROWS / 8; ++j) mma_m16n8k16<T>(sum[panel][i][j], token[i], weight[j]);
            }
        }
    }
}

// sum = tokens . panels^T over columns [start, end); start is a multiple of the depth of a stage.
template <class T>
__device__ __forceinline__ void tile_product(const TileProblem<T>& problem, int start, int end, TileSums& sum) {
    DYNAMIC_SHARED(shared);
    T* ring = reinterpret_cast<T*>(shared);
    const int steps = (end - start + TILE_DEPTH - 1) / TILE_DEPTH;
#pragma unroll
    for (int step = 0; step < TILE_STAGES - 1; ++step) {
        if (step < steps) problem.copy(start + step * TILE_DEPTH, end, ring + step * TILE_STAGE_ELEMENTS);
        cp_async_commit();
    }
    for (int step = 0; step < steps; ++step) {
        cp_async_wait<TILE_STAGES - 2>();
        // After this barrier everybody's copies of this step are visible, and nobody reads the last step's stage.
        __syncthreads();
        const int ahead = step + TILE_STAGES - 1;
        if (ahead < steps) {
            problem.copy(start + ahead * TILE_DEPTH, end, ring + ahead % TILE_STAGES * TILE_STAGE_ELEMENTS);
        }
        // Committed even when empty, so that the count of pending groups stays the same.
        cp_async_commit();
        tile_multiply(ring + step % TILE_STAGES * TILE_STAGE_ELEMENTS, sum);
    }
}

// finish(token, row, value of panel 0, value of panel 1) for all that the thread owns; token and row within the block.
template <class Finish> __device__ __forceinline__ void tile_for_each(const TileSums& sum, const Finish& finish) {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int token_tile = 0; token_tile < TILE_WARP_TOKENS / 16; ++token_tile) {
#pragma unroll
        for (int row_tile = 0; row_tile < TILE_WARP_ROWS / 8; ++row_tile) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int token = tile_warp_token() + token_tile * 16 + i / 2 * 8 + lane / 4;
                const int row = tile_warp_row() + row_tile * 8 + lane % 4 * 2 + i % 2;
                finish(token, row, sum[0][token_tile][row_tile][i], sum[1][token_tile][row_tile][i]);
            }
        }
    }
}

template <class T, bool GATED> __device__ __forceinline__ void gate_up_tile(const GateUpParams& p) {
    const int token0 = int(blockIdx.x) * TILE_TOKENS;
    const int row0 = int(blockIdx.y) * (GATED ? TILE_PANEL : 2 * TILE_PANEL);
    const TileProblem<T> problem = {
        TileOperand<T>(p.x, p.x_row_stride, token0, p.rows),
        TileOperand<T>(p.gate_weight, p.gate_row_stride, row0, p.ffn),
        TileOperand<T>(GATED ? p.up_weight : p.gate_weight, GATED ? p.up_row_stride : p.gate_row_stride,
                       GATED ? row0 : row0 + TILE_PANEL, p.ffn)};
    TileSums sum = {};
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    tile_product(problem, 0, p.inputs, sum);
    tile_for_each(sum, [&](int tile_token, int tile_row, float first, float second) {
        const int row = row0 + tile_row;
        if (token0 + tile_token >= p.rows || row >= p.ffn) return;
        T* h = static_cast<T*>(p.h) + (token0 + tile_token) * p.h_row_stride + row;
        const float gate = first + load_or_zero<T>(p.gate_bias, row);
        if (GATED) {
            const float value = silu_gate<T>(gate, second + load_or_zero<T>(p.up_bias, row), p.round_gate_up);
            *h = from_float<T>(mask_neuron(p, row, value));
            return;
        }
        *h = from_float<T>(silu_plain<T>(gate, p.round_gate_up));
        if (row + TILE_PANEL >= p.ffn) return;
        const float next_gate = second + load_or_zero<T>(p.gate_bias, row + TILE_PANEL);
        h[TILE_PANEL] = from_float<T>(silu_plain<T>(next_gate, p.round_gate_up));
    });
}

template <class T> __device__ __forceinline__ void down_tile(const DownParams& p) {
    const int token0 = int(blockIdx.x) * TILE_TOKENS;
    const int row0 = int(blockIdx.y) * 2 * TILE_PANEL;
    const TileProblem<T> problem = {TileOperand<T>(p.h, p.h_row_stride, token0, p.rows),
                                    TileOperand<T>(p.down_weight, p.down_row_stride, row0, p.outputs),
                                    TileOperand<T>(p.down_weight, p.down_row_stride, row0 + TILE_PANEL, p.outputs)};
    const int steps = (p.depth + TILE_DEPTH - 1) / TILE_DEPTH;
    const int split_columns = (steps + p.splits - 1) / p.splits * TILE_DEPTH;
    const int start = min(int(blockIdx.z) * split_columns, p.depth);
    TileSums sum = {};
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    tile_product(problem, start, min(start + split_columns, p.depth), sum);
    if (p.splits == 1) copy_residual<T, TILE_THREADS, 2 * TILE_PANEL>(p, row0, token0, 1, min(token0 + TILE_TOKENS, p.rows));
    tile_for_each(sum, [&](int tile_token, int tile_row, float first, float second) {
        const int64_t token = token0 + tile_token;
        const int row = row0 + tile_row;
        if (token >= p.rows || row >= p.outputs) return;
        const bool second_exists = row + TILE_PANEL < p.outputs;
        if (p.splits == 1) {
            finish_output<T, T>(p, token, row, first);
            if (second_exists) finish_output<T, T>(p, token, row + TILE_PANEL, second);
        } else {
            float* partial = static_cast<float*>(p.partials) + (blockIdx.z * int64_t(p.rows) + token) * p.outputs + row;
            partial[0] = first;
            if (second_exists) partial[TILE_PANEL] = second;
        }
    });
}

template <class T> __device__ __forceinline__ void down_reduce(const DownParams& p) {
    const int row0 = int(blockIdx.x) * REDUCE_THREADS;
    const int row = row0 + int(threadIdx.x);
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    copy_residual<T, REDUCE_THREADS, REDUCE_THREADS>(p, row0, blockIdx.y, gridDim.y, p.rows);
    if (row >= p.outputs) return;
    for (int64_t token = blockIdx.y; token < p.rows; token += gridDim.y) {
        const float* partial = static_cast<const float*>(p.partials) + token * p.outputs + row;
        float sum = 0.0f;
        for (int split = 0; split < p.splits; ++split) sum += partial[split * (int64_t(p.rows) * p.outputs)];
        finish_output<T, T>(p, token, row, sum);
    }
}

#define TILE_KERNEL(NAME, BOUNDS, PARAMS, BODY)                                                                       \
    extern "C" __global__ void __launch_bounds__ BOUNDS NAME(const __grid_constant__ PARAMS p) { BODY(p); }           \
    SIMULATED_KERNEL(NAME)
#define TILE_KERNELS(T)                                                                                               \
    TILE_KERNEL(gated_mlp_gate_up_tile_##T, (TILE_THREADS, 2), GateUpParams, (gate_up_tile<T, true>))                 \
    TILE_KERNEL(silu_mlp_up_tile_##T, (TILE_THREADS, 2), GateUpParams, (gate_up_tile<T, false>))                      \
    TILE_KERNEL(mlp_down_tile_##T, (TILE_THREADS, 2), DownParams, down_tile<T>)                                       \
    TILE_KERNEL(mlp_down_reduce_##T, (REDUCE_THREADS), DownParams, down_reduce<T>)

TILE_KERNELS(f16)
TILE_KERNELS(bf16)

#endif // SILUETTE_HAS_MMA
