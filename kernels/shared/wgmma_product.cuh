// tokens . rows^T on sm_90a: a persistent, warp-specialised TMA and wgmma product, whatever becomes of its sums.
//
// tokens  [M, K]      panels  [N, K], one matrix or two of one shape      all f16 or all bf16, sums in f32
// Tensor maps: boxes of 64 columns x 128 rows, the 128-byte swizzle, zeros outside.
//
// grid  any number of blocks, best as many as SMs   block 384 = 2 warpgroups that multiply, 1 that loads
// shared  196,672 dynamic: 4 stages of 128 tokens and two panels of 128 rows, 64 deep, then their barriers
// Work comes in tiles of 128 tokens x (128 + 128) rows: the two panels are two matrices at the same rows, or, with one
// matrix, 128 rows and the next 128. A warpgroup owns 64 tokens x 128 rows of each panel, so that two matrices meet in a
// thread's registers. A block takes tiles blockIdx.x, blockIdx.x + gridDim.x, ...; the loading warpgroup runs ahead into
// the next tile while the others finish the last one.
// Order of tiles: bands of 16 token tiles, in a band tokens run fastest. So many SMs at a time work on 16 token tiles and
// on an eighth as many row tiles, each twice as large: about the fewest bytes for a wave to read.
// Swizzle: TMA lays a row's 16-byte chunk c at c ^ (row % 8), as wgmma expects; outside a matrix it delivers zeros.
// Sums along the depth in order, splits in order: deterministic, and a token's do not depend on the other tokens.
#pragma once
#include "device.cuh"

#if SILUETTE_HAS_WGMMA

constexpr int WGMMA_GROUP = 128; // threads of a warpgroup
constexpr int WGMMA_MATH_GROUPS = 2;
constexpr int WGMMA_MATH_THREADS = WGMMA_MATH_GROUPS * WGMMA_GROUP;
constexpr int WGMMA_THREADS = WGMMA_MATH_THREADS + WGMMA_GROUP;
// 384 threads start with 168 registers each; what the loading warpgroup gives back, the others take.
constexpr int WGMMA_LOAD_REGISTERS = 40;
constexpr int WGMMA_MATH_REGISTERS = 232;
static_assert(WGMMA_LOAD_REGISTERS + WGMMA_MATH_GROUPS * WGMMA_MATH_REGISTERS <= 65536 / WGMMA_THREADS / 8 * 8 * 3,
              "more registers than the block has: take_registers would wait for ever");

constexpr int WGMMA_TOKENS = 128;
constexpr int WGMMA_GROUP_TOKENS = WGMMA_TOKENS / WGMMA_MATH_GROUPS;
constexpr int WGMMA_PANEL = 128;
constexpr int WGMMA_DEPTH = 64; // 128 bytes: a row of the swizzle
constexpr int WGMMA_STAGES = 4;
constexpr int WGMMA_BAND = 16;
constexpr int WGMMA_ROW_BYTES = WGMMA_DEPTH * 2;
constexpr int WGMMA_BOX_BYTES = WGMMA_PANEL * WGMMA_ROW_BYTES; // of tokens or of a panel
constexpr int WGMMA_STAGE_BYTES = 3 * WGMMA_BOX_BYTES;
static_assert(WGMMA_TOKENS == WGMMA_PANEL, "one shape of box");

// Of one thread: [panel][fragment of wgmma_m64k16].
typedef float WgmmaSums[2][WGMMA_PANEL / 2];

struct WgmmaTile {
    int token0;
    int row0;  // of panel 0
    int start; // columns [start, end)
    int end;
    int split;
};

// What a kernel multiplies, and the order in which its tiles are numbered.
struct WgmmaProblem {
    const TensorMap* tokens;
    const TensorMap* panel0;
    const TensorMap* panel1;
    int panel1_row; // its first row, after panel 0's
    int tile_rows;  // rows from one tile to the next
    int token_tiles;
    int row_tiles;
    int depth;
    int splits;
    int split_columns; // a multiple of the depth of a stage

    __device__ __forceinline__ WgmmaProblem(const TensorMap* tokens_map, const TensorMap* map0, const TensorMap* map1,
                                            int tokens, int rows, int columns, int parts)
        : tokens(tokens_map), panel0(map0), panel1(map1), panel1_row(map0 == map1 ? WGMMA_PANEL : 0),
          tile_rows(WGMMA_PANEL + panel1_row), token_tiles((tokens + WGMMA_TOKENS - 1) / WGMMA_TOKENS),
          row_tiles((rows + tile_rows - 1) / tile_rows), depth(columns), splits(parts) {
        const int steps = (columns + WGMMA_DEPTH - 1) / WGMMA_DEPTH;
        split_columns = (steps + parts - 1) / parts * WGMMA_DEPTH;
    }

    __device__ __forceinline__ int tiles() const { return token_tiles * row_tiles * splits; }

    __device__ __forceinline__ WgmmaTile tile(int number) const {
        const int split = number / (token_tiles * row_tiles);
        const int in_split = number % (token_tiles * row_tiles);
        const int band = in_split / (WGMMA_BAND * row_tiles);
        const int in_band = in_split % (WGMMA_BAND * row_tiles);
        const int band_tiles = min(WGMMA_BAND, token_tiles - band * WGMMA_BAND);
        const int start = min(split * split_columns, depth);
        return {(band * WGMMA_BAND + in_band % band_tiles) * WGMMA_TOKENS, in_band / band_tiles * tile_rows, start,
                min(start + split_columns, depth), split};
    }
};

// The stages, and for each a barrier that it is full and one that it is empty.
struct WgmmaRing {
    unsigned char* stages;
    uint32_t barriers;

    __device__ __forceinline__ explicit WgmmaRing(unsigned char* shared)
        : stages(shared), barriers(smem_address(shared + WGMMA_STAGES * WGMMA_STAGE_BYTES)) {}

    __device__ __forceinline__ unsigned char* stage(int index) const { return stages + index * WGMMA_STAGE_BYTES; }
    __device__ __forceinline__ uint32_t full(int index) const { return barriers + index * 8; }
    __device__ __forceinline__ uint32_t empty(int index) const { return barriers + (WGMMA_STAGES + index) * 8; }

    // By one thread, before the block meets.
    __device__ __forceinline__ void initialise() const {
        for (int index = 0; index < WGMMA_STAGES; ++index) {
            mbarrier_init(full(index), 1);
            mbarrier_init(empty(index), WGMMA_MATH_THREADS / 32);
        }
        // TMA, too, arrives at these barriers.
        fence_proxy_async();
    }
};

// Where in the ring somebody is, and the parity of the barriers' phase there.
struct WgmmaPosition {
    int stage = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void advance() {
        stage = stage + 1 == WGMMA_STAGES ? 0 : stage + 1;
        parity ^= stage == 0;
    }
};

// By one thread: all tiles of the block, one after another, as far ahead as there are empty stages.
__device__ __forceinline__ void wgmma_load(const WgmmaProblem& problem, const WgmmaRing& ring) {
    WgmmaPosition at;
    for (int number = int(blockIdx.x); number < problem.tiles(); number += int(gridDim.x)) {
        const WgmmaTile tile = problem.tile(number);
        for (int column = tile.start; column < tile.end; column += WGMMA_DEPTH) {
            // The other parity: before anybody has emptied a stage, the phase before the first counts as complete.
            mbarrier_wait(ring.empty(at.stage), at.parity ^ 1);
            const uint32_t full = ring.full(at.stage);
            const uint32_t stage = smem_address(ring.stage(at.stage));
            mbarrier_arrive_expect_tx(full, WGMMA_STAGE_BYTES);
            tma_load_2d(stage, problem.tokens, full, column, tile.token0);
            tma_load_2d(stage + WGMMA_BOX_BYTES, problem.panel0, full, column, tile.row0);
            tma_load_2d(stage + 2 * WGMMA_BOX_BYTES, problem.panel1, full, column, tile.row0 + problem.panel1_row);
            at.advance();
        }
    }
}

// By every warp for itself, once its products no longer read the stage.
__device__ __forceinline__ void wgmma_release(const WgmmaRing& ring, int stage) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(ring.empty(stage));
}

// sum = tokens . panels^T over a tile's columns, by each of the warpgroups that multiply.
template <class T>
__device__ __forceinline__ void wgmma_multiply(const WgmmaTile& tile, const WgmmaRing& ring, WgmmaPosition& at,
                                               WgmmaSums& sum) {
    const int group_offset = int(threadIdx.x) / WGMMA_GROUP * WGMMA_GROUP_TOKENS * WGMMA_ROW_BYTES;
    int previous = -1;
#pragma unroll
    for (int panel = 0; panel < 2; ++panel) {
#pragma unroll
        for (int i = 0; i < WGMMA_PANEL / 2; ++i) sum[panel][i] = 0.0f;
        wgmma_pin(sum[panel]);
    }
    for (int column = tile.start; column < tile.end; column += WGMMA_DEPTH) {
        const unsigned char* stage = ring.stage(at.stage);
        const uint64_t tokens = wgmma_descriptor(stage + group_offset);
        const uint64_t panel0 = wgmma_descriptor(stage + WGMMA_BOX_BYTES);
        const uint64_t panel1 = wgmma_descriptor(stage + 2 * WGMMA_BOX_BYTES);
        mbarrier_wait(ring.full(at.stage), at.parity);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < WGMMA_DEPTH / 16; ++k) {
            wgmma_m64k16<T, WGMMA_PANEL>(sum[0], tokens + 2 * k, panel0 + 2 * k, true);
            wgmma_m64k16<T, WGMMA_PANEL>(sum[1], tokens + 2 * k, panel1 + 2 * k, true);
        }
        wgmma_commit();
        // This step's products run on while the step before, now complete, gives its stage back.
        wgmma_wait<1>();
        if (previous >= 0) wgmma_release(ring, previous);
        previous = at.stage;
        at.advance();
    }
    wgmma_wait<0>();
    if (previous >= 0) wgmma_release(ring, previous);
    wgmma_pin(sum[0]);
    wgmma_pin(sum[1]);
}

// Lane q of a quad gives element i to lane i and gets element q of lane i in its place.
__device__ __forceinline__ void quad_transpose(float (&value)[4]) {
    const uint32_t all = 0xffffffffu;
    const bool odd = threadIdx.x & 1;
    const bool upper = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const float got = __shfl_xor_sync(all, odd ? value[i] : value[i + 1], 1);
        if (odd) value[i] = got;
        else value[i + 1] = got;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const float got = __shfl_xor_sync(all, upper ? value[i] : value[i + 2], 2);
        if (upper) value[i] = got;
        else value[i + 2] = got;
    }
}

// Eight neighbours of a row of a panel: the thread's part of columns 32 * block and the 31 after, in the upper or lower
// half of its fragment's rows. A quad holds 32 of a row as four pairs a lane, eight columns apart.
__device__ __forceinline__ void wgmma_neighbours(const float (&panel)[WGMMA_PANEL / 2], int block, int half,
                                                 float (&value)[8]) {
    float even[4];
    float odd[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        even[i] = panel[block * 16 + i * 4 + half * 2];
        odd[i] = panel[block * 16 + i * 4 + half * 2 + 1];
    }
    quad_transpose(even);
    quad_transpose(odd);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        value[2 * i] = even[i];
        value[2 * i + 1] = odd[i];
    }
}

// The first of the two tokens of a tile that the thread's sums are of, eight tokens apart.
__device__ __forceinline__ int wgmma_thread_token() {
    const int group_token = int(threadIdx.x) / WGMMA_GROUP * WGMMA_GROUP_TOKENS;
    return group_token + int(threadIdx.x) / 32 % 4 * 16 + int(threadIdx.x) % 32 / 4;
}

// finish(token, row, values of panel 0, values of panel 1) for all that the thread owns, eight rows at a time; token and
// row within the tile. All threads of a warp come here.
template <class Finish> __device__ __forceinline__ void wgmma_for_each(const WgmmaSums& sum, const Finish& finish) {
#pragma unroll
    for (int block = 0; block < WGMMA_PANEL / 32; ++block) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float first[8];
            float second[8];
            wgmma_neighbours(sum[0], block, half, first);
            wgmma_neighbours(sum[1], block, half, second);
            finish(wgmma_thread_token() + half * 8, block * 32 + int(threadIdx.x) % 4 * 8, first, second);
        }
    }
}

// The whole kernel but its epilogue: finish(tile, sums) by the warpgroups that multiply.
template <class T, class Finish>
__device__ __forceinline__ void wgmma_run(const WgmmaProblem& problem, const Finish& finish) {
    DYNAMIC_SHARED(shared);
    const WgmmaRing ring(shared);
    if (threadIdx.x == 0) {
        ring.initialise();
        tma_prefetch_map(problem.tokens);
        tma_prefetch_map(problem.panel0);
        tma_prefetch_map(problem.panel1);
    }
    __syncthreads();
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    if (threadIdx.x >= WGMMA_MATH_THREADS) {
        give_registers_back<WGMMA_LOAD_REGISTERS>();
        if (threadIdx.x == WGMMA_MATH_THREADS) wgmma_load(problem, ring);
    } else {
        take_registers<WGMMA_MATH_REGISTERS>();
        WgmmaPosition at;
        for (int number = int(blockIdx.x); number < problem.tiles(); number += int(gridDim.x)) {
            const WgmmaTile tile = problem.tile(number);
            WgmmaSums sum;
            wgmma_multiply<T>(tile, ring, at, sum);
            finish(tile, sum);
        }
    }
}

#define WGMMA_KERNEL(NAME, PARAMS, BODY)                                                                              \
    extern "C" __global__ void __launch_bounds__(WGMMA_THREADS, 1) NAME(const __grid_constant__ PARAMS p) {           \
        BODY(p);                                                                                                      \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

#endif // SILUETTE_HAS_WGMMA
