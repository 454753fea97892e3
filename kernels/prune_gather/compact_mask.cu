// compact_mask:  indices[b, rank[b, i]] = i  for every i with mask[b, i] != 0, ascending
//
// mask     [B, n] u8, any start and row stride
// indices  [B, n] u32, 2^32 - 1 behind the row's count
// rank     [B, n] i32, -1 where the mask is 0; or null          count  [B] u32, or null
//
// grid  (min(B, 65535))   block 256; a block strides over rows, and walks a row tile by tile: 4096 elements each
// shared  32 bytes
// Nothing waits for another block. Within a tile a warp votes on 32 elements at a time, so that mask and rank are
// read and written in whole sectors.
#include "scan.cuh"
#include "selection_params.cuh"

constexpr int COMPACT_MASK_WARPS = 8;
constexpr uint32_t NO_INDEX = 0xffffffffu;

extern "C" __global__ void __launch_bounds__(COMPACT_MASK_WARPS * 32)
    compact_mask_u8(const __grid_constant__ CompactMaskParams p) {
    SHARED_ARRAY(uint32_t, scratch, [COMPACT_MASK_WARPS]);
    const uint32_t columns = uint32_t(p.columns);
    for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
        const uint8_t* mask = static_cast<const uint8_t*>(p.mask) + row * p.mask_row_stride;
        uint32_t* indices = static_cast<uint32_t*>(p.indices) + row * p.indices_row_stride;
        int32_t* rank = p.rank == nullptr ? nullptr : static_cast<int32_t*>(p.rank) + row * p.rank_row_stride;
        uint32_t count = 0;
        for (uint32_t first = 0; first < columns; first += TILE<COMPACT_MASK_WARPS>) {
            count += compact_tile<COMPACT_MASK_WARPS>(
                first, columns, count, scratch, [&](uint32_t index) { return mask[index] != 0; },
                [&](uint32_t index, uint32_t position) {
                    indices[position] = index;
                    if (rank != nullptr) rank[index] = int32_t(position);
                },
                [&](uint32_t index) {
                    if (rank != nullptr) rank[index] = -1;
                });
        }
        for (uint32_t position = count + threadIdx.x; position < columns; position += blockDim.x) {
            indices[position] = NO_INDEX;
        }
        if (p.count != nullptr && threadIdx.x == 0) static_cast<uint32_t*>(p.count)[row] = count;
    }
}
SIMULATED_KERNEL(compact_mask_u8)
