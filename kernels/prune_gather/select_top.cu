// select_top:  indices = the k elements with the largest scores, ascending; ties go to smaller indices
//
// scores   [n] or [R, C], f32, f16 or bf16, any row stride; up to three tensors ("sets") of one shape at once
// indices  [k] u32
//
// A radix selection that never sorts. Scores become order-preserving unsigned keys (score_key.cuh). From its highest
// digit down, the k-th largest key is found by histograms: one digit of 16 bits for 16-bit types, three of 11, 11 and
// 10 bits for f32. What is above it is selected, and of its equals as many as are left to take, by index.
//
//   select_clear      grid ceil(sets * 2^bits / 256)    the histogram is 0
//   select_histogram  grid (min(tiles, 2048), sets)     counts digits of the keys that begin like the threshold
//   select_digit      grid sets                         the threshold's next digit; the histogram is 0 again
//   select_count      grid (tiles, sets)                keys above and equal to the threshold, by tile
//   select_offsets    grid sets, block 1024             those counts before each tile
//   select_cut        grid (tiles, sets)                the index behind the last tie to take, in the tile that has it
//   select_top        grid tiles                        indices, from tiles that have some
//
// block 256, a tile is 4096 elements. Shared: 8 KiB (histogram, f32), else 128 bytes at most.
// Atomics count only, so their order does not matter; nothing waits for another block. Bytes read: 4 (f32) or 2 (16-bit)
// times the scores, and those of tiles with members.
#include "selection.cuh"

constexpr uint32_t SHARED_BINS = 1u << 11;

// `capacity` is the number of bins of all sets here.
extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
    select_clear_u32(const __grid_constant__ SelectionParams p) {
    const uint32_t bin = blockIdx.x * SELECT_THREADS + threadIdx.x;
    if (bin < uint32_t(p.capacity)) static_cast<uint32_t*>(p.histogram)[bin] = 0;
}
SIMULATED_KERNEL(select_clear_u32)

// Calls count(digit) for every key that agrees with what is known of the threshold.
template <class T, class Count> __device__ __forceinline__ void each_digit(const SelectionParams& p, Count count) {
    const Scores<T> scores(p, blockIdx.y);
    const uint32_t elements = uint32_t(p.elements), mask = (1u << p.digit_bits) - 1u;
    const bool first_digit = p.first_digit != 0;
    const uint32_t prefix = first_digit ? 0 : state_of(p, blockIdx.y)[0];
    for (uint32_t tile = blockIdx.x; tile < uint32_t(p.tiles); tile += gridDim.x) {
#pragma unroll 4
        for (int item = 0; item < TILE_ITEMS; ++item) {
            const uint32_t index = tile * SELECT_TILE + item * SELECT_THREADS + threadIdx.x;
            if (index >= elements) continue;
            const uint32_t key = scores.key(index) >> p.digit_shift;
            if (first_digit || key >> p.digit_bits == prefix) count(key & mask);
        }
    }
}

// Runs of one digit, as zeros make them, are added at once.
struct Runs {
    uint32_t* histogram;
    uint32_t digit;
    uint32_t length;

    __device__ __forceinline__ void flush() {
        if (length > 0) atomicAdd(&histogram[digit], length);
    }
    __device__ __forceinline__ void add(uint32_t next) {
        if (next != digit) {
            flush();
            digit = next;
            length = 0;
        }
        ++length;
    }
};

template <class T> __device__ __forceinline__ void select_histogram(const SelectionParams& p) {
    uint32_t* histogram = static_cast<uint32_t*>(p.histogram) + (uint64_t(blockIdx.y) << p.digit_bits);
    Runs runs = {histogram, 0, 0};
    each_digit<T>(p, [&](uint32_t digit) { runs.add(digit); });
    runs.flush();
}

// Few enough bins for each block to count in shared memory first.
template <> __device__ __forceinline__ void select_histogram<f32>(const SelectionParams& p) {
    SHARED_ARRAY(uint32_t, bins, [SHARED_BINS]);
    for (uint32_t bin = threadIdx.x; bin < SHARED_BINS; bin += SELECT_THREADS) bins[bin] = 0;
    __syncthreads();
    Runs runs = {bins, 0, 0};
    each_digit<f32>(p, [&](uint32_t digit) { runs.add(digit); });
    runs.flush();
    __syncthreads();
    uint32_t* histogram = static_cast<uint32_t*>(p.histogram) + (uint64_t(blockIdx.y) << p.digit_bits);
    for (uint32_t bin = threadIdx.x; bin < 1u << p.digit_bits; bin += SELECT_THREADS) {
        if (bins[bin] > 0) atomicAdd(&histogram[bin], bins[bin]);
    }
}

// A thread owns consecutive bins, the first thread the highest ones.
extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
    select_digit_u32(const __grid_constant__ SelectionParams p) {
    SHARED_ARRAY(uint32_t, scratch, [SELECT_WARPS]);
    const uint32_t set = blockIdx.x, bins = 1u << p.digit_bits, own = bins / SELECT_THREADS;
    uint32_t* histogram = static_cast<uint32_t*>(p.histogram) + uint64_t(set) * bins;
    uint32_t* state = state_of(p, set);
    const uint32_t k = uint32_t(set == 0 ? p.k_0 : set == 1 ? p.k_1 : p.k_2);
    const uint32_t wanted = p.first_digit ? k : state[1];
    const uint32_t prefix = p.first_digit ? 0 : state[0] << p.digit_bits;
    const uint32_t highest = bins - 1 - threadIdx.x * own;
    uint32_t sum = 0;
    for (uint32_t bin = 0; bin < own; ++bin) sum += histogram[highest - bin];
    uint32_t total;
    uint32_t above = block_scan<SELECT_WARPS>(sum, scratch, total);
    // The scan's barriers stand between every thread's reading of the state and one's writing. Nothing wanted: no key
    // is as large as the largest number.
    if (wanted == 0 && threadIdx.x == 0) {
        state[0] = prefix | (bins - 1);
        state[1] = 0;
    }
    const bool mine = above < wanted && wanted <= above + sum;
    bool found = false;
    for (uint32_t bin = 0; bin < own; ++bin) {
        const uint32_t digit = highest - bin, count = histogram[digit];
        if (mine && !found && wanted <= above + count) {
            state[0] = prefix | digit;
            state[1] = wanted - above;
            found = true;
        }
        above += count;
        histogram[digit] = 0;
    }
    if (threadIdx.x == 0) state[2] = 0;
}
SIMULATED_KERNEL(select_digit_u32)

template <class T> __device__ __forceinline__ void select_count(const SelectionParams& p) {
    SHARED_ARRAY(uint32_t, scratch, [SELECT_WARPS]);
    const uint32_t tile = blockIdx.x, set = blockIdx.y;
    const Scores<T> scores(p, set);
    const uint32_t threshold = state_of(p, set)[0];
    // Both counts in one word: a tile has no more than 2^12.
    uint32_t counts = 0;
#pragma unroll
    for (int item = 0; item < TILE_ITEMS; ++item) {
        const uint32_t index = tile * SELECT_TILE + item * SELECT_THREADS + threadIdx.x;
        if (index >= uint32_t(p.elements)) continue;
        const uint32_t key = scores.key(index);
        counts += key > threshold ? 1u : key == threshold ? 1u << 16 : 0u;
    }
    uint32_t total;
    block_scan<SELECT_WARPS>(counts, scratch, total);
    if (threadIdx.x == 0) {
        tiles_of(p, p.selected, set)[tile] = total & 0xffffu;
        tiles_of(p, p.equal, set)[tile] = total >> 16;
    }
}

extern "C" __global__ void __launch_bounds__(OFFSETS_THREADS)
    select_offsets_u32(const __grid_constant__ SelectionParams p) {
    SHARED_ARRAY(uint32_t, scratch, [OFFSETS_WARPS]);
    const uint32_t set = blockIdx.x, tiles = uint32_t(p.tiles), taken = state_of(p, set)[1];
    uint32_t* selected = tiles_of(p, p.selected, set);
    uint32_t* equal = tiles_of(p, p.equal, set);
    uint32_t above = 0, ties = 0;
    // One more than there are tiles, for the totals.
    for (uint32_t first = 0; first <= tiles; first += OFFSETS_THREADS) {
        const uint32_t tile = first + threadIdx.x;
        uint32_t total_above, total_ties;
        const uint32_t above_here = block_scan<OFFSETS_WARPS>(tile < tiles ? selected[tile] : 0, scratch, total_above);
        const uint32_t ties_here = block_scan<OFFSETS_WARPS>(tile < tiles ? equal[tile] : 0, scratch, total_ties);
        if (tile <= tiles) {
            selected[tile] = above + above_here + min(ties + ties_here, taken);
            equal[tile] = ties + ties_here;
        }
        above += total_above;
        ties += total_ties;
    }
}
SIMULATED_KERNEL(select_offsets_u32)

template <class T> __device__ __forceinline__ void select_cut(const SelectionParams& p) {
    SHARED_ARRAY(uint32_t, scratch, [SELECT_WARPS]);
    const uint32_t tile = blockIdx.x, set = blockIdx.y;
    const uint32_t* equal = tiles_of(p, p.equal, set) + tile;
    uint32_t* state = state_of(p, set);
    const uint32_t threshold = state[0], taken = state[1];
    // The same for the whole block.
    if (equal[0] >= taken || equal[1] < taken) return;
    const Scores<T> scores(p, set);
    compact_tile<SELECT_WARPS>(
        tile * SELECT_TILE, uint32_t(p.elements), equal[0], scratch,
        [&](uint32_t index) { return scores.key(index) == threshold; },
        [&](uint32_t index, uint32_t position) {
            if (position + 1 == taken) state[2] = index + 1;
        },
        [](uint32_t) {});
}

template <class T> __device__ __forceinline__ void select_top(const SelectionParams& p) {
    SHARED_ARRAY(uint32_t, scratch, [SELECT_WARPS]);
    const uint32_t* before = tiles_of(p, p.selected, 0) + blockIdx.x;
    if (before[0] == before[1]) return;
    const Scores<T> scores(p, 0);
    const Selected selected(p, 0);
    uint32_t* indices = static_cast<uint32_t*>(p.indices);
    compact_tile<SELECT_WARPS>(
        blockIdx.x * SELECT_TILE, uint32_t(p.elements), before[0], scratch,
        [&](uint32_t index) { return selected.holds(scores.key(index), index); },
        [&](uint32_t index, uint32_t position) { indices[position] = index; }, [](uint32_t) {});
}

#define SELECT_KERNEL(name, T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(SELECT_THREADS) name##_##T(const __grid_constant__ SelectionParams p) { \
        name<T>(p);                                                                                                   \
    }                                                                                                                 \
    SIMULATED_KERNEL(name##_##T)

#define SELECT_KERNELS(T)                                                                                             \
    SELECT_KERNEL(select_histogram, T)                                                                                \
    SELECT_KERNEL(select_count, T)                                                                                    \
    SELECT_KERNEL(select_cut, T)                                                                                      \
    SELECT_KERNEL(select_top, T)

SELECT_KERNELS(f32)
SELECT_KERNELS(f16)
SELECT_KERNELS(bf16)
