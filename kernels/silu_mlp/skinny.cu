// The MLPs for 3 to 64 tokens on tensor cores: every block reads its weights once, for all tokens.
//
// gated_mlp_gate_up_skinny<T>  h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f]) * (n[m,:] . Wu[f,:] + bu[f])
// silu_mlp_up_skinny<T>        h[m,f] = silu(n[m,:] . Wg[f,:] + bg[f])
// mlp_down_skinny<T>           out[m,d] = residual[m,d] + h[m,:] . Wd[j,:] + bd[j]
// with d = indices[j], or j where nothing is selected; features that no j is written to are the residual. h is times
// mid_mask[f]^2, the last sum times out_mask[j].
//
// n  [M, I], h  [M, F], residual  [M, D], Wg, Wu  [F, I], Wd  [O, F]  all f16 or all bf16      out  f32, f16 or bf16
// indices  [O]  u32, masks  f32: optional. Rows and pointers 16-byte aligned.
//
// grid  (ceil(M / T), ceil(N / 8R) gated or ceil(N / 16R) others)   block 128 = 4 warps; N = F or O, the weights' rows;
//       T = 8, 16, 32, 64 tokens and R tiles of 16 weight rows a block
// shared  STAGES * (16R + T) * DEPTH * 2 dynamic: a ring of cp.async stages; the sums across warps reuse it
// Weights are the A operand of m16n8k16, tokens the B operand: few tokens waste little of the instruction. A gated
// tile holds 8 rows of Wg above the same 8 of Wu; an accumulator's rows r and r + 8 belong to one thread, so gate
// meets up without a shuffle. With one matrix a tile is 16 consecutive rows.
// The four warps take turns along the depth and add up warp 0 to 3: deterministic, independent of the other tokens.
// Swizzle: 16-byte chunk c of row r lies at c ^ (r % 8), so the 8 rows of an ldmatrix matrix meet no bank twice.
#include "device.cuh"
#include "finish.cuh"
#include "numeric.cuh"
#include "params.cuh"

#if SILUETTE_HAS_MMA

constexpr int SKINNY_WARPS = 4;
constexpr int SKINNY_THREADS = SKINNY_WARPS * 32;

template <int Tokens, int RowTiles, int Depth, int Stages> struct SkinnyShape {
    static constexpr int TOKENS = Tokens;
    static constexpr int ROW_TILES = RowTiles;
    static constexpr int DEPTH = Depth; // columns of a stage
    static constexpr int STAGES = Stages;
    static constexpr int WEIGHT_ROWS = 16 * ROW_TILES;
    static constexpr int TOKEN_TILES = TOKENS / 8;
    static constexpr int FRAGMENTS = ROW_TILES * TOKEN_TILES;
    static constexpr int CHUNKS = DEPTH / 8; // 16-byte chunks of a stage's row
    static constexpr int ROWS_PER_PASS = SKINNY_THREADS / CHUNKS;
    static constexpr int STAGE_ELEMENTS = (WEIGHT_ROWS + TOKENS) * DEPTH;
    static_assert(TOKENS % ROWS_PER_PASS == 0 && WEIGHT_ROWS % ROWS_PER_PASS == 0, "whole passes of loads");
    static_assert(DEPTH % (16 * SKINNY_WARPS) == 0, "every warp has its share of a stage");
    static_assert(STAGES * STAGE_ELEMENTS * 2 >= SKINNY_WARPS * FRAGMENTS * 32 * 16, "the ring holds the sums");
};

struct SkinnyProblem {
    const void* tokens;
    int64_t token_stride;
    int token_rows;
    int first_token;
    const void* weight[2]; // Wg and Wu; the second is unused with one matrix
    int64_t weight_stride[2];
    int weight_rows;
    int first_row;
    int depth; // columns of both operands
};

// One thread's copies from global memory into the ring.
template <class T, class Shape, bool GATED> struct SkinnyLoader {
    static constexpr int WEIGHT_PASSES = Shape::WEIGHT_ROWS / Shape::ROWS_PER_PASS;
    static constexpr int TOKEN_PASSES = Shape::TOKENS / Shape::ROWS_PER_PASS;
    const T* weight[WEIGHT_PASSES];
    const T* token[TOKEN_PASSES];
    bool weight_exists[WEIGHT_PASSES];
    bool token_exists[TOKEN_PASSES];
    int depth;

    __device__ __forceinline__ SkinnyLoader(const SkinnyProblem& problem) : depth(problem.depth) {
        const int row = int(threadIdx.x) / Shape::CHUNKS;
#pragma unroll
        for (int pass = 0; pass < WEIGHT_PASSES; ++pass) {
            const int r = row + pass * Shape::ROWS_PER_PASS;
            // A gated tile of 16 rows: 8 of Wg, then the same 8 of Wu.
            const bool second = GATED && r / 8 % 2 == 1;
            const int64_t weight_row = problem.first_row + (GATED ? r / 16 * 8 + r % 8 : r);
            const void* matrix = second ? problem.weight[1] : problem.weight[0];
            const int64_t stride = second ? problem.weight_stride[1] : problem.weight_stride[0];
            weight[pass] = static_cast<const T*>(matrix) + weight_row * stride;
            weight_exists[pass] = weight_row < problem.weight_rows;
        }
#pragma unroll
        for (int pass = 0; pass < TOKEN_PASSES; ++pass) {
            const int64_t token_row = problem.first_token + row + pass * Shape::ROWS_PER_PASS;
            token[pass] = static_cast<const T*>(problem.tokens) + token_row * problem.token_stride;
            token_exists[pass] = token_row < problem.token_rows;
        }
    }

    // Rows and columns outside the matrices arrive as zeros, and nothing is read for them.
    template <int PASSES>
    __device__ __forceinline__ void copy(const T* const (&source)[PASSES], const bool (&exists)[PASSES], int step,
                                         int first_row, const T* stage) const {
        const int chunk = int(threadIdx.x) % Shape::CHUNKS;
        const int column = step * Shape::DEPTH + chunk * 8;
        const int bytes = 2 * max(0, min(8, depth - column));
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
            const int r = first_row + int(threadIdx.x) / Shape::CHUNKS + pass * Shape::ROWS_PER_PASS;
            const T* destination = stage + r * Shape::DEPTH + (chunk ^ (r % 8)) * 8;
            cp_async16(smem_address(destination), source[pass] + column, exists[pass] ? bytes : 0);
        }
    }
    __device__ __forceinline__ void copy_weights(int step, const T* ring) const {
        copy(weight, weight_exists, step, 0, ring + step % Shape::STAGES * Shape::STAGE_ELEMENTS);
    }
    __device__ __forceinline__ void copy_tokens(int step, const T* ring) const {
        copy(token, token_exists, step, Shape::WEIGHT_ROWS, ring + step % Shape::STAGES * Shape::STAGE_ELEMENTS);
    }
};

// The warp's share of one stage.
template <class T, class Shape>
__device__ __forceinline__ void skinny_multiply(const T* stage,
                                                float (&sum)[Shape::ROW_TILES][Shape::TOKEN_TILES][4]) {
    const int warp = int(threadIdx.x) / 32;
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int slice = 0; slice < Shape::DEPTH / 16; slice += SKINNY_WARPS) {
        const int first_chunk = (slice + warp) * 2;
        uint32_t token[Shape::TOKEN_TILES][2];
        if constexpr (Shape::TOKENS == 8) {
            const int r = Shape::WEIGHT_ROWS + lane % 8;
            const int chunk = first_chunk + lane / 8 % 2;
            ldmatrix_x2(token[0], smem_address(stage + r * Shape::DEPTH + (chunk ^ (r % 8)) * 8));
        } else {
#pragma unroll
            for (int tile = 0; tile < Shape::TOKEN_TILES; tile += 2) {
                const int r = Shape::WEIGHT_ROWS + tile * 8 + lane / 16 * 8 + lane % 8;
                const int chunk = first_chunk + lane / 8 % 2;
                uint32_t pair[4];
                ldmatrix_x4(pair, smem_address(stage + r * Shape::DEPTH + (chunk ^ (r % 8)) * 8));
                token[tile][0] = pair[0];
                token[tile][1] = pair[1];
                token[tile + 1][0] = pair[2];
                token[tile + 1][1] = pair[3];
            }
        }
#pragma unroll
        for (int row_tile = 0; row_tile < Shape::ROW_TILES; ++row_tile) {
            const int r = row_tile * 16 + lane % 16;
            const int chunk = first_chunk + lane / 16;
            uint32_t weight[4];
            ldmatrix_x4(weight, smem_address(stage + r * Shape::DEPTH + (chunk ^ (r % 8)) * 8));
#pragma unroll
            for (int tile = 0; tile < Shape::TOKEN_TILES; ++tile) {
                mma_m16n8k16<T>(sum[row_tile][tile], weight, token[tile]);
            }
        }
    }
}

// Leaves in shared memory the four warps' sums: [warp][fragment][lane] of 4 floats; returns their address.
template <class T, class Shape, bool GATED>
__device__ __forceinline__ const float4* skinny_product(const SkinnyProblem& problem, unsigned char* shared) {
    T* ring = reinterpret_cast<T*>(shared);
    const SkinnyLoader<T, Shape, GATED> loader(problem);
    const int steps = (problem.depth + Shape::DEPTH - 1) / Shape::DEPTH;
    grid_dependency_launch_dependents();
    // Weights depend on no earlier kernel: the ring's share of them is under way before the tokens are awaited.
    for (int step = 0; step < Shape::STAGES - 1 && step < steps; ++step) loader.copy_weights(step, ring);
    grid_dependency_wait();
    for (int step = 0; step < Shape::STAGES - 1; ++step) {
        if (step < steps) loader.copy_tokens(step, ring);
        cp_async_commit();
    }
    float sum[Shape::ROW_TILES][Shape::TOKEN_TILES][4] = {};
    for (int step = 0; step < steps; ++step) {
        cp_async_wait<Shape::STAGES - 2>();
        // After this barrier everybody's copies of this step are visible, and nobody reads the last step's stage.
        __syncthreads();
        const int ahead = step + Shape::STAGES - 1;
        if (ahead < steps) {
            loader.copy_weights(ahead, ring);
            loader.copy_tokens(ahead, ring);
        }
        // Committed even when empty, so that the count of pending groups stays the same.
        cp_async_commit();
        skinny_multiply<T, Shape>(ring + step % Shape::STAGES * Shape::STAGE_ELEMENTS, sum);
    }
    // The sums overwrite stages that other warps may still be reading.
    __syncthreads();
    float4* sums = reinterpret_cast<float4*>(shared);
#pragma unroll
    for (int fragment = 0; fragment < Shape::FRAGMENTS; ++fragment) {
        const float(&own)[4] = sum[fragment / Shape::TOKEN_TILES][fragment % Shape::TOKEN_TILES];
        sums[(int(threadIdx.x) / 32 * Shape::FRAGMENTS + fragment) * 32 + int(threadIdx.x) % 32] =
            make_float4(own[0], own[1], own[2], own[3]);
    }
    __syncthreads();
    return sums;
}

// Adds a fragment's sums, warp 0 to 3: values of rows g and g + 8 of its tile, tokens 2t and 2t + 1.
template <class Shape>
__device__ __forceinline__ void skinny_total(const float4* sums, int fragment, float (&total)[4]) {
    float4 value = sums[fragment * 32 + int(threadIdx.x) % 32];
#pragma unroll
    for (int warp = 1; warp < SKINNY_WARPS; ++warp) {
        const float4 other = sums[(warp * Shape::FRAGMENTS + fragment) * 32 + int(threadIdx.x) % 32];
        value = make_float4(value.x + other.x, value.y + other.y, value.z + other.z, value.w + other.w);
    }
    total[0] = value.x;
    total[1] = value.y;
    total[2] = value.z;
    total[3] = value.w;
}

template <class T, class Shape, bool GATED> __device__ __forceinline__ void gate_up_skinny(const GateUpParams& p) {
    DYNAMIC_SHARED(shared);
    const int token0 = int(blockIdx.x) * Shape::TOKENS;
    const int row0 = int(blockIdx.y) * (GATED ? Shape::WEIGHT_ROWS / 2 : Shape::WEIGHT_ROWS);
    SkinnyProblem problem;
    problem.tokens = p.x;
    problem.token_stride = p.x_row_stride;
    problem.token_rows = p.rows;
    problem.first_token = token0;
    problem.weight[0] = p.gate_weight;
    problem.weight[1] = p.up_weight;
    problem.weight_stride[0] = p.gate_row_stride;
    problem.weight_stride[1] = p.up_row_stride;
    problem.weight_rows = p.ffn;
    problem.first_row = row0;
    problem.depth = p.inputs;
    const float4* sums = skinny_product<T, Shape, GATED>(problem, shared);
    T* h = static_cast<T*>(p.h);
    for (int fragment = int(threadIdx.x) / 32; fragment < Shape::FRAGMENTS; fragment += SKINNY_WARPS) {
        float total[4];
        skinny_total<Shape>(sums, fragment, total);
        const int row_tile = fragment / Shape::TOKEN_TILES;
        const int row = row0 + row_tile * (GATED ? 8 : 16) + int(threadIdx.x) % 32 / 4;
        const int token = token0 + fragment % Shape::TOKEN_TILES * 8 + int(threadIdx.x) % 4 * 2;
#pragma unroll
        for (int i = 0; i < (GATED ? 2 : 4); ++i) {
            const int feature = row + i / 2 * 8;
            if (feature >= p.ffn || token + i % 2 >= p.rows) continue;
            const float gate = total[i] + load_or_zero<T>(p.gate_bias, feature);
            const float value =
                GATED ? silu_gate<T>(gate, total[(i + 2) % 4] + load_or_zero<T>(p.up_bias, feature), p.round_gate_up)
                      : silu_plain<T>(gate, p.round_gate_up);
            h[(token + i % 2) * p.h_row_stride + feature] = from_float<T>(mask_neuron(p, feature, value));
        }
    }
}

template <class T, class Shape> __device__ __forceinline__ void down_skinny(const DownParams& p) {
    DYNAMIC_SHARED(shared);
    const int token0 = int(blockIdx.x) * Shape::TOKENS;
    const int row0 = int(blockIdx.y) * Shape::WEIGHT_ROWS;
    SkinnyProblem problem;
    problem.tokens = p.h;
    problem.token_stride = p.h_row_stride;
    problem.token_rows = p.rows;
    problem.first_token = token0;
    problem.weight[0] = p.down_weight;
    problem.weight_stride[0] = p.down_row_stride;
    problem.weight_rows = p.outputs;
    problem.first_row = row0;
    problem.depth = p.depth;
    const float4* sums = skinny_product<T, Shape, false>(problem, shared);
    copy_residual<T, SKINNY_THREADS, Shape::WEIGHT_ROWS>(p, row0, token0, 1, min(token0 + Shape::TOKENS, p.rows));
    for (int fragment = int(threadIdx.x) / 32; fragment < Shape::FRAGMENTS; fragment += SKINNY_WARPS) {
        float total[4];
        skinny_total<Shape>(sums, fragment, total);
        const int first_row = row0 + fragment / Shape::TOKEN_TILES * 16 + int(threadIdx.x) % 32 / 4;
        const int first_token = token0 + fragment % Shape::TOKEN_TILES * 8 + int(threadIdx.x) % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = first_row + i / 2 * 8;
            const int64_t token = first_token + i % 2;
            if (row >= p.outputs || token >= p.rows) continue;
            finish_output<T, T>(p, token, row, total[i]);
        }
    }
}

// Shapes <tokens, row tiles, depth, stages>: 28 to 56 KiB of weights in flight a block, in at most 96 KiB of shared
// memory. More row tiles mean that a token is fetched less often; fewer mean more blocks, and `down` has few rows.
typedef SkinnyShape<8, 1, 128, 8> Skinny8;
typedef SkinnyShape<16, 2, 128, 6> Skinny16;
typedef SkinnyShape<32, 4, 64, 8> Skinny32;
typedef SkinnyShape<32, 2, 128, 6> SkinnyDown32;
typedef SkinnyShape<64, 4, 64, 6> Skinny64;
typedef SkinnyShape<64, 2, 64, 8> SkinnyDown64;

#define SKINNY_KERNEL(NAME, PARAMS, BODY)                                                                             \
    extern "C" __global__ void __launch_bounds__(SKINNY_THREADS) NAME(const __grid_constant__ PARAMS p) { BODY(p); }  \
    SIMULATED_KERNEL(NAME)
#define SKINNY_KERNELS(TOKENS, T, SHAPE, DOWN_SHAPE)                                                                  \
    SKINNY_KERNEL(gated_mlp_gate_up_skinny##TOKENS##_##T, GateUpParams, (gate_up_skinny<T, SHAPE, true>))             \
    SKINNY_KERNEL(silu_mlp_up_skinny##TOKENS##_##T, GateUpParams, (gate_up_skinny<T, SHAPE, false>))                  \
    SKINNY_KERNEL(mlp_down_skinny##TOKENS##_##T, DownParams, (down_skinny<T, DOWN_SHAPE>))

SKINNY_KERNELS(8, f16, Skinny8, Skinny8)
SKINNY_KERNELS(8, bf16, Skinny8, Skinny8)
SKINNY_KERNELS(16, f16, Skinny16, Skinny16)
SKINNY_KERNELS(16, bf16, Skinny16, Skinny16)
SKINNY_KERNELS(32, f16, Skinny32, SkinnyDown32)
SKINNY_KERNELS(32, bf16, Skinny32, SkinnyDown32)
SKINNY_KERNELS(64, f16, Skinny64, SkinnyDown64)
SKINNY_KERNELS(64, bf16, Skinny64, SkinnyDown64)

#endif // SILUETTE_HAS_MMA
