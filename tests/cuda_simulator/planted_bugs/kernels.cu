// Small kernels, each in a correct version and in one with the bug that its name tells. `BROKEN` is the only difference.
// All of them reverse their input within blocks of THREADS elements, possibly the hard way.
#include "device.cuh"

#include "params.hpp"

constexpr int THREADS = 128;
constexpr int ROUNDS = 3;

#define PLANTED(name)                                                                                                 \
    extern "C" __global__ void name##_correct(const __grid_constant__ PlantedParams p) { name<false>(p); }            \
    extern "C" __global__ void name##_broken(const __grid_constant__ PlantedParams p) { name<true>(p); }              \
    SIMULATED_KERNEL(name##_correct)                                                                                  \
    SIMULATED_KERNEL(name##_broken)

template <bool BROKEN> __device__ void missing_barrier(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS]);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    tile[threadIdx.x] = p.input[index];
    if (!BROKEN) __syncthreads();
    p.output[index] = tile[THREADS - 1 - threadIdx.x];
}
PLANTED(missing_barrier)

// The barrier at the end of a loop keeps the next round from overwriting what others still read.
template <bool BROKEN> __device__ void missing_trailing_barrier(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS]);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    float sum = 0.0f;
    for (int round = 0; round < ROUNDS; round++) {
        tile[threadIdx.x] = p.input[index] + float(round);
        __syncthreads();
        sum += tile[THREADS - 1 - threadIdx.x] - float(round);
        if (!BROKEN) __syncthreads();
    }
    p.output[index] = sum / float(ROUNDS);
}
PLANTED(missing_trailing_barrier)

template <bool BROKEN> __device__ void missing_named_barrier(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [2][THREADS / 2]);
    const int half = threadIdx.x / (THREADS / 2);
    const int offset = threadIdx.x % (THREADS / 2);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    const int mirrored = blockIdx.x * THREADS + THREADS - 1 - threadIdx.x;
    tile[half][offset] = p.input[mirrored];
    if (!BROKEN) named_barrier_sync(1 + half, THREADS / 2);
    p.output[index] = tile[half][THREADS / 2 - 1 - offset];
    if (!BROKEN) named_barrier_sync(1 + half, THREADS / 2);
    tile[half][offset] = p.output[index];
    if (!BROKEN) named_barrier_sync(1 + half, THREADS / 2);
    p.output[index] = tile[half][THREADS / 2 - 1 - offset];
}
PLANTED(missing_named_barrier)

template <bool BROKEN> __device__ void missing_cp_async_wait(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS]);
    const int block_start = blockIdx.x * THREADS;
    if (threadIdx.x < THREADS / 4) {
        cp_async16(smem_address(&tile[threadIdx.x * 4]), p.input + block_start + threadIdx.x * 4);
    }
    cp_async_commit();
    if (!BROKEN) cp_async_wait<0>();
    __syncthreads();
    p.output[block_start + threadIdx.x] = tile[THREADS - 1 - threadIdx.x];
    cp_async_wait<0>();
}
PLANTED(missing_cp_async_wait)

// A warp is not in lockstep: lanes that exchange through shared memory must meet.
template <bool BROKEN> __device__ void missing_syncwarp(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS / 32][32]);
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int mirrored_warp = THREADS / 32 - 1 - warp;
    tile[warp][lane] = p.input[blockIdx.x * THREADS + mirrored_warp * 32 + lane];
    if (!BROKEN) __syncwarp();
    p.output[blockIdx.x * THREADS + threadIdx.x] = tile[warp][31 - lane];
}
PLANTED(missing_syncwarp)

template <bool BROKEN> __device__ void divergent_barrier(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS]);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    tile[threadIdx.x] = p.input[index];
    if (BROKEN && threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    p.output[index] = tile[THREADS - 1 - threadIdx.x];
}
PLANTED(divergent_barrier)

template <bool BROKEN> __device__ void barrier_in_a_branch(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS]);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    tile[threadIdx.x] = p.input[index];
    if (!BROKEN || threadIdx.x != 5) __syncthreads();
    p.output[index] = tile[THREADS - 1 - threadIdx.x];
}
PLANTED(barrier_in_a_branch)

template <bool BROKEN> __device__ void early_exit(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS]);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    tile[threadIdx.x] = p.input[index];
    p.output[index] = tile[threadIdx.x];
    if (BROKEN && threadIdx.x == THREADS - 1 && blockIdx.x == gridDim.x - 1) return;
    __syncthreads();
    p.output[index] = tile[THREADS - 1 - threadIdx.x];
}
PLANTED(early_exit)

template <bool BROKEN> __device__ void shuffle_of_an_exited_lane(const PlantedParams& p) {
    const int mirrored = blockIdx.x * THREADS + THREADS - 1 - threadIdx.x;
    const float value = p.input[mirrored];
    p.output[blockIdx.x * THREADS + threadIdx.x] = value;
    if (BROKEN && threadIdx.x % 32 == 31) return;
    const float sum = __shfl_xor_sync(0xffffffffu, value, 1) + value;
    p.output[blockIdx.x * THREADS + threadIdx.x] = sum - (sum - value);
}
PLANTED(shuffle_of_an_exited_lane)

template <bool BROKEN> __device__ void global_read_out_of_bounds(const PlantedParams& p) {
    const int mirrored = blockIdx.x * THREADS + THREADS - 1 - threadIdx.x;
    p.output[blockIdx.x * THREADS + threadIdx.x] = p.input[mirrored + (BROKEN ? 1 : 0)];
}
PLANTED(global_read_out_of_bounds)

template <bool BROKEN> __device__ void global_write_out_of_bounds(const PlantedParams& p) {
    const int index = blockIdx.x * THREADS + threadIdx.x;
    const float value = p.input[blockIdx.x * THREADS + THREADS - 1 - threadIdx.x];
    p.output[index] = value;
    if (BROKEN && index == p.count - 1) p.output[index + 1] = value;
}
PLANTED(global_write_out_of_bounds)

template <bool BROKEN> __device__ void shared_read_out_of_bounds(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS]);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    tile[threadIdx.x] = p.input[index];
    __syncthreads();
    p.output[index] = tile[THREADS - 1 - threadIdx.x + (BROKEN ? 1 : 0)];
}
PLANTED(shared_read_out_of_bounds)

template <bool BROKEN> __device__ void shared_write_out_of_bounds(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS]);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    tile[threadIdx.x] = p.input[index];
    const int past_the_end = p.count / gridDim.x; // THREADS, but the compiler must not know
    if (BROKEN && threadIdx.x == 0) tile[past_the_end] = 0.0f;
    __syncthreads();
    p.output[index] = tile[THREADS - 1 - threadIdx.x];
}
PLANTED(shared_write_out_of_bounds)

template <bool BROKEN> __device__ void uninitialised_shared_read(const PlantedParams& p) {
    SHARED_ARRAY(float, tile, [THREADS]);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    if (!BROKEN || threadIdx.x != 7) tile[threadIdx.x] = p.input[index];
    __syncthreads();
    p.output[index] = tile[THREADS - 1 - threadIdx.x];
}
PLANTED(uninitialised_shared_read)

// Blocks of a launch have no order: what one writes another must not read.
template <bool BROKEN> __device__ void race_between_blocks(const PlantedParams& p) {
    const int index = blockIdx.x * THREADS + threadIdx.x;
    const float value = p.input[blockIdx.x * THREADS + THREADS - 1 - threadIdx.x];
    p.output[index] = value;
    const int neighbour = (index + THREADS) % p.count;
    if (BROKEN) p.output[index] = p.output[neighbour] * 0.0f + value;
}
PLANTED(race_between_blocks)

// The block that arrives last does everybody's work, behind everybody's fence.
template <bool RELEASES, bool ACQUIRES, int LATE> __device__ void last_arrival(const PlantedParams& p) {
    const int index = blockIdx.x * THREADS + threadIdx.x;
    p.output[index] = p.input[blockIdx.x * THREADS + THREADS - 1 - threadIdx.x] - 1.0f;
    __syncthreads();
    bool is_last = false;
    if (threadIdx.x == 0) {
        if (RELEASES) __threadfence();
        is_last = atomicAdd(p.arrivals, 1u) == gridDim.x - 1 + LATE;
        if (ACQUIRES) __threadfence();
    }
    if (!__syncthreads_or(is_last)) return;
    for (int other = threadIdx.x; other < p.count; other += THREADS) p.output[other] += 1.0f;
}

template <bool BROKEN> __device__ void missing_fence_before_arrival(const PlantedParams& p) {
    last_arrival<!BROKEN, true, 0>(p);
}
PLANTED(missing_fence_before_arrival)

template <bool BROKEN> __device__ void missing_fence_behind_arrival(const PlantedParams& p) {
    last_arrival<true, !BROKEN, 0>(p);
}
PLANTED(missing_fence_behind_arrival)

template <bool BROKEN> __device__ void miscounted_arrival(const PlantedParams& p) {
    last_arrival<true, true, BROKEN ? 1 : 0>(p);
}
PLANTED(miscounted_arrival)

// cp.async and TMA need alignment that plain loads of the same elements do not.
template <bool BROKEN> __device__ void misaligned_vector_load(const PlantedParams& p) {
    const int index = blockIdx.x * THREADS + threadIdx.x;
    const int mirrored = blockIdx.x * THREADS + THREADS - 1 - threadIdx.x;
    const float* aligned = p.input + mirrored / 4 * 4;
    const uint4 four = load16(BROKEN && mirrored % 4 != 0 ? p.input + mirrored : aligned);
    const uint32_t words[4] = {four.x, four.y, four.z, four.w};
    p.output[index] = __uint_as_float(words[mirrored % 4]);
}
PLANTED(misaligned_vector_load)

template <bool FENCES, bool WAITS> __device__ void load_by_tma(const PlantedParams& p) {
    DYNAMIC_SHARED(raw);
    SHARED_ARRAY(uint64_t, barrier, [1]);
    const float* tile = reinterpret_cast<const float*>(raw);
    const uint32_t barrier_address = smem_address(barrier);
    const int rows = THREADS / 32; // of 64 16-bit elements, 32 floats
    if (threadIdx.x == 0) {
        mbarrier_init(barrier_address, 1);
        if (FENCES) fence_proxy_async();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_tx(barrier_address, THREADS * 4);
        tma_load_2d(smem_address(raw), &p.map, barrier_address, 0, blockIdx.x * rows);
    }
    if (WAITS) mbarrier_wait(barrier_address, 0);
    p.output[blockIdx.x * THREADS + threadIdx.x] = tile[THREADS - 1 - threadIdx.x];
    mbarrier_wait(barrier_address, 0);
}

template <bool BROKEN> __device__ void missing_mbarrier_wait(const PlantedParams& p) { load_by_tma<true, !BROKEN>(p); }
PLANTED(missing_mbarrier_wait)

template <bool BROKEN> __device__ void missing_proxy_fence(const PlantedParams& p) { load_by_tma<!BROKEN, true>(p); }
PLANTED(missing_proxy_fence)

// Adds a product of zeros, from a tile that lies OFFSET bytes from where it should.
template <bool FENCES, bool WAITS, int OFFSET> __device__ void add_by_wgmma(const PlantedParams& p) {
    constexpr int TILE_BYTES = 64 * 128;
    SHARED_ARRAY(unsigned char, raw, [TILE_BYTES + 2048]);
    unsigned char* tile = raw + (1024 - smem_address(raw) % 1024) + OFFSET;
    for (int i = threadIdx.x; i < TILE_BYTES; i += THREADS) tile[i] = 0;
    fence_proxy_async();
    __syncthreads();
    float d[32];
    for (float& value : d) value = 1.0f;
    wgmma_pin(d);
    if (FENCES) wgmma_fence();
    wgmma_m64k16<f16, 64>(d, wgmma_descriptor(tile), wgmma_descriptor(tile), false);
    wgmma_commit();
    if (WAITS) wgmma_wait<0>();
    wgmma_pin(d);
    p.output[blockIdx.x * THREADS + threadIdx.x] = p.input[blockIdx.x * THREADS + THREADS - 1 - threadIdx.x] + d[0];
    wgmma_wait<0>();
}

template <bool BROKEN> __device__ void missing_wgmma_fence(const PlantedParams& p) { add_by_wgmma<!BROKEN, true, 0>(p); }
PLANTED(missing_wgmma_fence)

template <bool BROKEN> __device__ void missing_wgmma_wait(const PlantedParams& p) { add_by_wgmma<true, !BROKEN, 0>(p); }
PLANTED(missing_wgmma_wait)

template <bool BROKEN> __device__ void misaligned_wgmma_tile(const PlantedParams& p) {
    add_by_wgmma<true, true, BROKEN ? 256 : 0>(p);
}
PLANTED(misaligned_wgmma_tile)

template <bool BROKEN> __device__ void registers_that_nobody_gave_back(const PlantedParams& p) {
    if (BROKEN) take_registers<256>();
    else give_registers_back<40>();
    p.output[blockIdx.x * THREADS + threadIdx.x] = p.input[blockIdx.x * THREADS + THREADS - 1 - threadIdx.x];
}
PLANTED(registers_that_nobody_gave_back)
