// coupled_neurons:  indices = (Top_q(first) \ Top_p(general)) ∩ (Top_q(second) \ Top_p(general)), ascending
//
// general, first, second  [n] or [R, C], f32, f16 or bf16, any row strides: sets 0, 1 and 2 of select_top.cu, whose
//                         kernels find the three thresholds first
// indices                 [capacity] u32, 2^32 - 1 behind the count          count  [1] u32, or null
//
// Intersect: membership of an element is two comparisons a set, so no list is needed.
//   coupled_count      grid tiles             coupled entries by tile, where set 1 has any
//   coupled_offsets    grid 1, block 1024     those before each tile, the count and the filler
//   coupled_neurons    grid tiles             indices, from tiles that have some
//
// PositionalCompat: the lists T1 and T2 of Top_q(first) and Top_q(second), by descending score; T1[r] is an entry if
// neither T1[r] nor T2[r] is in Top_p(general). With K = capacity, `lists` holds [index, key, outside] x [T1, T2] x K in
// ascending order of the indices, `place` (T1's position by score) x K and `outside by place` (of T2) x K.
//   positional_list    grid (tiles, 2)        lists
//   positional_rank    grid (ceil(K / 256), 2)  positions by score: how many entries come before, K^2 comparisons
//   positional_select  grid 1                 indices, the count and the filler
//
// block 256 where nothing is said, a tile is 4096 elements; shared: 4 KiB at most. No atomics.
#include "selection.cuh"

constexpr uint32_t LIST_INDEX = 0, LIST_KEY = 2, LIST_OUTSIDE = 4, LIST_PLACE = 6, LIST_OUTSIDE_BY_PLACE = 7;

template <class T> struct Coupled {
    const Scores<T> general, first, second;
    const Selected in_general, in_first, in_second;

    __device__ __forceinline__ explicit Coupled(const SelectionParams& p)
        : general(p, 0), first(p, 1), second(p, 2), in_general(p, 0), in_first(p, 1), in_second(p, 2) {}

    __device__ __forceinline__ bool holds(uint32_t index) const {
        return in_first.holds(first.key(index), index) && in_second.holds(second.key(index), index) &&
               !in_general.holds(general.key(index), index);
    }
};

// Whether set 1 has a member in a tile.
__device__ __forceinline__ bool is_empty(const SelectionParams& p, uint32_t tile) {
    const uint32_t* before = tiles_of(p, p.selected, 1) + tile;
    return before[0] == before[1];
}

template <class T> __device__ __forceinline__ void coupled_count(const SelectionParams& p) {
    SHARED_ARRAY(uint32_t, scratch, [SELECT_WARPS]);
    const uint32_t tile = blockIdx.x;
    uint32_t total = 0;
    // The same for the whole block.
    if (!is_empty(p, tile)) {
        const Coupled<T> coupled(p);
        total = compact_tile<SELECT_WARPS>(
            tile * SELECT_TILE, uint32_t(p.elements), 0, scratch, [&](uint32_t index) { return coupled.holds(index); },
            [](uint32_t, uint32_t) {}, [](uint32_t) {});
    }
    if (threadIdx.x == 0) static_cast<uint32_t*>(p.members)[tile] = total;
}

__device__ __forceinline__ void finish_list(const SelectionParams& p, uint32_t count) {
    for (uint32_t position = count + threadIdx.x; position < uint32_t(p.capacity); position += blockDim.x) {
        static_cast<uint32_t*>(p.indices)[position] = NO_INDEX;
    }
    if (p.count != nullptr && threadIdx.x == 0) static_cast<uint32_t*>(p.count)[0] = count;
}

extern "C" __global__ void __launch_bounds__(OFFSETS_THREADS)
    coupled_offsets_u32(const __grid_constant__ SelectionParams p) {
    SHARED_ARRAY(uint32_t, scratch, [OFFSETS_WARPS]);
    const uint32_t tiles = uint32_t(p.tiles);
    uint32_t* members = static_cast<uint32_t*>(p.members);
    uint32_t count = 0;
    // One more than there are tiles, for the total.
    for (uint32_t first = 0; first <= tiles; first += OFFSETS_THREADS) {
        const uint32_t tile = first + threadIdx.x;
        uint32_t total;
        const uint32_t before = block_scan<OFFSETS_WARPS>(tile < tiles ? members[tile] : 0, scratch, total);
        if (tile <= tiles) members[tile] = count + before;
        count += total;
    }
    finish_list(p, count);
}
SIMULATED_KERNEL(coupled_offsets_u32)

template <class T> __device__ __forceinline__ void coupled_neurons(const SelectionParams& p) {
    SHARED_ARRAY(uint32_t, scratch, [SELECT_WARPS]);
    const uint32_t* before = static_cast<const uint32_t*>(p.members) + blockIdx.x;
    if (before[0] == before[1]) return;
    const Coupled<T> coupled(p);
    uint32_t* indices = static_cast<uint32_t*>(p.indices);
    compact_tile<SELECT_WARPS>(
        blockIdx.x * SELECT_TILE, uint32_t(p.elements), before[0], scratch,
        [&](uint32_t index) { return coupled.holds(index); },
        [&](uint32_t index, uint32_t position) { indices[position] = index; }, [](uint32_t) {});
}

__device__ __forceinline__ uint32_t* list_of(const SelectionParams& p, uint32_t list) {
    return static_cast<uint32_t*>(p.lists) + uint64_t(list) * uint32_t(p.capacity);
}

template <class T> __device__ __forceinline__ void positional_list(const SelectionParams& p) {
    SHARED_ARRAY(uint32_t, scratch, [SELECT_WARPS]);
    const uint32_t side = blockIdx.y, set = 1 + side;
    const uint32_t* before = tiles_of(p, p.selected, set) + blockIdx.x;
    if (before[0] == before[1]) return;
    const Scores<T> scores(p, set), general(p, 0);
    const Selected selected(p, set), in_general(p, 0);
    uint32_t* list = list_of(p, LIST_INDEX + side);
    compact_tile<SELECT_WARPS>(
        blockIdx.x * SELECT_TILE, uint32_t(p.elements), before[0], scratch,
        [&](uint32_t index) { return selected.holds(scores.key(index), index); },
        [&](uint32_t index, uint32_t position) { list[position] = index; }, [](uint32_t) {});
    // In a second walk: all at once would take more registers than there are.
    __syncthreads();
    for (uint32_t position = before[0] + threadIdx.x; position < before[1]; position += SELECT_THREADS) {
        const uint32_t index = list[position];
        list_of(p, LIST_KEY + side)[position] = scores.key(index);
        list_of(p, LIST_OUTSIDE + side)[position] = in_general.holds(general.key(index), index) ? 0 : 1;
    }
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
    positional_rank_u32(const __grid_constant__ SelectionParams p) {
    SHARED_ARRAY(uint32_t, others, [SELECT_THREADS]);
    const uint32_t side = blockIdx.y, entries = uint32_t(p.capacity);
    const uint32_t* keys = list_of(p, LIST_KEY + side);
    const uint32_t entry = blockIdx.x * SELECT_THREADS + threadIdx.x;
    const uint32_t key = entry < entries ? keys[entry] : 0;
    uint32_t place = 0;
    for (uint32_t first = 0; first < entries; first += SELECT_THREADS) {
        const uint32_t here = min(entries - first, uint32_t(SELECT_THREADS));
        __syncthreads();
        if (threadIdx.x < here) others[threadIdx.x] = keys[first + threadIdx.x];
        __syncthreads();
        for (uint32_t other = 0; other < here; ++other) {
            // Entries are in the order of their indices, which is that of ties.
            place += others[other] > key || (others[other] == key && first + other < entry) ? 1 : 0;
        }
    }
    if (entry >= entries) return;
    if (side == 0) {
        list_of(p, LIST_PLACE)[entry] = place;
    } else {
        list_of(p, LIST_OUTSIDE_BY_PLACE)[place] = list_of(p, LIST_OUTSIDE + side)[entry];
    }
}
SIMULATED_KERNEL(positional_rank_u32)

extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
    positional_select_u32(const __grid_constant__ SelectionParams p) {
    SHARED_ARRAY(uint32_t, scratch, [SELECT_WARPS]);
    const uint32_t entries = uint32_t(p.capacity);
    const uint32_t* index = list_of(p, LIST_INDEX);
    const uint32_t* outside = list_of(p, LIST_OUTSIDE);
    const uint32_t* place = list_of(p, LIST_PLACE);
    const uint32_t* other_outside = list_of(p, LIST_OUTSIDE_BY_PLACE);
    uint32_t* indices = static_cast<uint32_t*>(p.indices);
    uint32_t count = 0;
    for (uint32_t first = 0; first < entries; first += SELECT_TILE) {
        count += compact_tile<SELECT_WARPS>(
            first, entries, count, scratch,
            [&](uint32_t entry) { return outside[entry] != 0 && other_outside[place[entry]] != 0; },
            [&](uint32_t entry, uint32_t position) { indices[position] = index[entry]; }, [](uint32_t) {});
    }
    finish_list(p, count);
}
SIMULATED_KERNEL(positional_select_u32)

#define COUPLED_KERNEL(name, T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(SELECT_THREADS) name##_##T(const __grid_constant__ SelectionParams p) { \
        name<T>(p);                                                                                                   \
    }                                                                                                                 \
    SIMULATED_KERNEL(name##_##T)

#define COUPLED_KERNELS(T)                                                                                            \
    COUPLED_KERNEL(coupled_count, T)                                                                                  \
    COUPLED_KERNEL(coupled_neurons, T)                                                                                \
    COUPLED_KERNEL(positional_list, T)

COUPLED_KERNELS(f32)
COUPLED_KERNELS(f16)
COUPLED_KERNELS(bf16)
