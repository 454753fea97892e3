// Sums and minima with one fixed order of additions, whatever the schedule: equal inputs give equal bits.
#pragma once
#include "device.cuh"

constexpr uint32_t FULL_WARP = 0xffffffffu;

// The sum over LANES neighbouring lanes of a whole warp, in each of them: additions commute, so each sees the same tree.
template <int LANES> __device__ __forceinline__ float sum_of_lanes(float value) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(FULL_WARP, value, offset);
    return value;
}

// The sum over the warp, in every lane.
__device__ __forceinline__ float warp_sum(float value) { return sum_of_lanes<32>(value); }

// The least value of a block of WARPS warps, in every thread; `scratch` holds WARPS words of shared memory.
template <int WARPS> __device__ __forceinline__ uint32_t block_min(uint32_t value, uint32_t* scratch) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        const uint32_t other = __shfl_xor_sync(FULL_WARP, value, offset);
        value = other < value ? other : value;
    }
    // The last call's readers may still be at work.
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) value = scratch[warp] < value ? scratch[warp] : value;
    return value;
}

// The sum over a block of WARPS warps, in every thread; `scratch` holds WARPS floats of shared memory.
template <int WARPS> __device__ __forceinline__ float block_sum(float value, float* scratch) {
    value = warp_sum(value);
    // The last call's readers may still be at work.
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) sum += scratch[warp];
    return sum;
}
