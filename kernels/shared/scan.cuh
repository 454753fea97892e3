// Prefix sums over a block, and the compaction of a tile built on them: whatever the schedule, kept elements stay in
// their order.
#pragma once
#include "reduce.cuh"

// The sum of the values of all threads before this one, and of all threads in `total`; `scratch` holds WARPS words of
// shared memory.
template <int WARPS>
__device__ __forceinline__ uint32_t block_scan(uint32_t value, uint32_t* scratch, uint32_t& total) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t through = value;
#pragma unroll
    for (uint32_t distance = 1; distance < 32; distance *= 2) {
        const uint32_t other = __shfl_up_sync(FULL_WARP, through, distance);
        if (lane >= distance) through += other;
    }
    // The last call's readers may still be at work.
    __syncthreads();
    if (lane == 31) scratch[warp] = through;
    __syncthreads();
    uint32_t before = 0;
    total = 0;
#pragma unroll
    for (uint32_t other = 0; other < WARPS; ++other) {
        const uint32_t sum = scratch[other];
        if (other < warp) before += sum;
        total += sum;
    }
    return before + through - value;
}

// Elements that a thread looks at in a tile: a warp takes 32 * TILE_ITEMS consecutive ones, 32 at a time.
constexpr int TILE_ITEMS = 16;
template <int WARPS> constexpr uint32_t TILE = WARPS * 32 * TILE_ITEMS;

// Looks at the elements first .. min(first + TILE, end) and calls `kept(index, position)` for those that `keep(index)`
// holds of, positions counting up from `base`, and `dropped(index)` for the others. Returns how many were kept.
template <int WARPS, class Keep, class Kept, class Dropped>
__device__ __forceinline__ uint32_t compact_tile(uint32_t first, uint32_t end, uint32_t base, uint32_t* scratch,
                                                 Keep keep, Kept kept, Dropped dropped) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t own = first + warp * 32 * TILE_ITEMS + lane;
    uint32_t votes[TILE_ITEMS];
    uint32_t count = 0;
#pragma unroll
    for (int item = 0; item < TILE_ITEMS; ++item) {
        const uint32_t index = own + item * 32;
        votes[item] = __ballot_sync(FULL_WARP, index < end && keep(index));
        count += __popc(votes[item]);
    }
    uint32_t total;
    // One lane speaks for its warp: the others add nothing.
    const uint32_t before = block_scan<WARPS>(lane == 0 ? count : 0, scratch, total);
    uint32_t position = base + __shfl_sync(FULL_WARP, before, 0);
#pragma unroll
    for (int item = 0; item < TILE_ITEMS; ++item) {
        const uint32_t index = own + item * 32;
        if (votes[item] >> lane & 1u) {
            kept(index, position + __popc(votes[item] & ((1u << lane) - 1u)));
        } else if (index < end) {
            dropped(index);
        }
        position += __popc(votes[item]);
    }
    return total;
}
