// gru_input: what a GRU's gates take from its input, hoisted out of time and for both directions at once
//   gates[b,t, d*N + j] = x[b,t,:] . W_d[j,:] + b_d[j]     of every valid token t < length[b]
//
// x  [B, L, I]  activation dtype A, batch and token strides      W_d  [N, I], b_d  [N]  weight dtype W, nn.Linear layout
// gates  [B, L, D * N]  f32, dense; what belongs to padding is not written, or is of no use
// D = 2 directions, or 1: then this is a plain product
// N = 3h, gates in the order r, z, n; b_d is b_ih alone: b_hn must stay inside r * (...), the recurrence adds b_hh
//
// grid  (ceil(B L / 32), ceil(D N / 64))   block 128
// shared  6,656 bytes: 32 tokens and 64 rows of W, 16 deep, as f32
// A thread owns 4 tokens x 4 rows; tokens are counted through the batch, so that short rows fill tiles; a tile without a
// valid token returns at once. A product is summed over I in f32, in order, by FMAs: its bits depend on its token and
// row of W alone, neither on the batch, on L nor on the tile.
#include "gru_input.cuh"

template <class A, class W> __device__ __forceinline__ void gru_input(const GruInputParams& p) {
    SHARED_ARRAY(float, x_tile, [INPUT_DEPTH * INPUT_TOKEN_PITCH]);
    SHARED_ARRAY(float, weight_tile, [INPUT_DEPTH * INPUT_ROW_PITCH]);
    const int64_t first_token = int64_t(blockIdx.x) * INPUT_TOKENS;
    const int first_row = int(blockIdx.y) * INPUT_ROWS;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    if (!has_valid_token(p.lengths, p.batch, p.steps, first_token)) return;
    input_tile<A, W>(p, InputTile{x_tile, weight_tile, int(threadIdx.x)}, first_token, first_row);
}

#define INPUT_KERNEL(SUFFIX, A, W)                                                                                    \
    extern "C" __global__ void __launch_bounds__(INPUT_THREADS, 4)                                                    \
        gru_input_##SUFFIX(const __grid_constant__ GruInputParams p) {                                                \
        gru_input<A, W>(p);                                                                                           \
    }                                                                                                                 \
    SIMULATED_KERNEL(gru_input_##SUFFIX)

INPUT_KERNEL(f32, f32, f32)
INPUT_KERNEL(f16, f16, f16)
INPUT_KERNEL(bf16, bf16, bf16)
INPUT_KERNEL(f32_f16, f32, f16)
INPUT_KERNEL(f32_bf16, f32, bf16)
