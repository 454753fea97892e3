// exit_head_states of many rows on sm_90a, by TMA and wgmma: of each tile of 128 ids and each row, the state of
//   softcap(n W^T + b)
//
// exit_states_wgmma  n  [M, D], W  [V, D], b  [V]  all f16 or all bf16; rows and pointers of n and W 16-byte aligned
// state_values  [ceil(V / 128), M, 6 + k]  f32      state_tokens  [ceil(V / 128), M, 2 + k]  int32_t
// logits  [M, V]  f32, optional
//
// grid, block, shared memory and the order of tiles: those of wgmma_product.cuh, with 128 rows of W and the next 128 for
// panels, so that a panel is a tile of the vocabulary
// Row m of n is that of output m: TMA follows no list of rows. Selected rows come from exit_prepare.
// W is mapped up to its last row that is not masked; what TMA delivers behind is masked, or nobody's.
//
// Epilogue, without shared memory: of a panel, a quad of lanes has two rows, 32 ids a lane. The four parts of a thread's
// sums, two panels of two rows, are finished one after another, each by the same code.
// A logit is summed along the columns in wgmma's own order, a state's sums by lane and then over the quad: other orders
// than those of the kernels in exit_states.cu, and the same for every M.
#include "device.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "tile.cuh"
#include "wgmma_product.cuh"

#if SILUETTE_HAS_WGMMA

constexpr int QUAD = 4;
static_assert(WGMMA_PANEL == VOCABULARY_TILE, "a panel is a tile of the vocabulary");
static_assert(LaneLogits<QUAD>::NEIGHBOURS == 8, "as wgmma_neighbours deals them out");

// What is part 0 becomes the last, each other one the part before.
__device__ __forceinline__ void next_part(WgmmaSums& sum) {
#pragma unroll
    for (int i = 0; i < WGMMA_PANEL / 2; i += 4) {
#pragma unroll
        for (int j = i; j < i + 2; ++j) {
            const float part0 = sum[0][j];
            sum[0][j] = sum[0][j + 2];
            sum[0][j + 2] = sum[1][j];
            sum[1][j] = sum[1][j + 2];
            sum[1][j + 2] = part0;
        }
    }
}

// The states of part 0, which lies in the first panel's upper rows.
template <class T>
__device__ __forceinline__ void finish_part(const ExitStatesParams& p, int weight_row, int row,
                                            const float (&panel)[WGMMA_PANEL / 2]) {
    const bool is_written = row < p.output_rows;
    // Quads without a row of their own stay with their warp, and read another's.
    row = min(row, p.output_rows - 1);
    const bool is_selected = source_row(p, row) >= 0;
    LaneLogits<QUAD> lane;
    lane.first_id = p.vocab_offset + weight_row;
#pragma unroll
    for (int block = 0; block < WGMMA_PANEL / 32; ++block) {
        float value[8];
        wgmma_neighbours(panel, block, 0, value);
#pragma unroll
        for (int i = 0; i < 8; ++i) lane.logit[block * 8 + i] = value[i];
    }
    lane.finish<T>(p, weight_row, row, is_selected, is_written);
    summarise(p, weight_row / VOCABULARY_TILE, row, lane, is_selected, is_written);
}

template <class T> __device__ __forceinline__ void states_wgmma(const ExitStatesWgmmaParams& maps) {
    const ExitStatesParams& p = maps.other;
    const WgmmaProblem problem(&maps.activations, &maps.head_weight, &maps.head_weight, p.output_rows, p.vocabulary,
                               p.features, 1);
    wgmma_run<T>(problem, [&](const WgmmaTile& tile, WgmmaSums& sum) {
        const int row = tile.token0 + wgmma_thread_token();
#pragma unroll 1
        for (int part = 0; part < 4; ++part) {
            const int weight_row = tile.row0 + part / 2 * WGMMA_PANEL;
            // The last tile's second panel may be none of the vocabulary's.
            if (weight_row >= p.vocabulary) break;
            finish_part<T>(p, weight_row, row + part % 2 * 8, sum[0]);
            next_part(sum);
        }
    });
}

WGMMA_KERNEL(exit_states_wgmma_f16, ExitStatesWgmmaParams, states_wgmma<f16>)
WGMMA_KERNEL(exit_states_wgmma_bf16, ExitStatesWgmmaParams, states_wgmma<bf16>)

#endif // SILUETTE_HAS_WGMMA
