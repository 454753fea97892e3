// What is kept of the logits of a tile of the vocabulary and a row.
#pragma once
#include "device.cuh"
#include "reduce.cuh"

// Ids of the vocabulary that one state summarises.
constexpr int VOCABULARY_TILE = 128;

// Columns of state_values; the best logits follow.
constexpr int VALUE_MAX = 0;
constexpr int VALUE_SECOND = 1;
constexpr int VALUE_SUM = 2;
constexpr int VALUE_WEIGHTED = 3;
constexpr int VALUE_GATHERED = 4;
constexpr int VALUE_SCORE = 5;
constexpr int VALUES = 6;

// Columns of state_tokens; the ids of the best logits follow.
constexpr int TOKEN_MAX = 0;
constexpr int TOKEN_SAMPLED = 1;
constexpr int TOKENS = 2;

__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }

__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fffffffu); }

__device__ __forceinline__ bool is_nan(float value) { return (__float_as_uint(value) & 0x7fffffffu) > 0x7f800000u; }

// NaN and +inf: what no row with a token has.
__device__ __forceinline__ bool is_no_logit(float value) { return !(value < -minus_infinity()); }

// A value and whose it is, in a total order: larger values first, of equal ones the lower id.
struct Best {
    float value;
    int32_t id; // -1: nobody's

    __device__ __forceinline__ static Best none() { return Best{minus_infinity(), -1}; }

    // Nobody's value, -inf, is after everybody's.
    __device__ __forceinline__ bool is_before(const Best& other) const {
        return value > other.value || (value == other.value && id >= 0 && (other.id < 0 || id < other.id));
    }

    __device__ __forceinline__ void take(const Best& other) {
        if (other.is_before(*this)) *this = other;
    }
};

// Below, each of LANES neighbouring lanes gets what belongs to all of them; whole warps come here.

// The best: the order is total, so that the tree does not matter.
template <int LANES> __device__ __forceinline__ Best best_of_lanes(Best best) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        Best other;
        other.value = __shfl_xor_sync(FULL_WARP, best.value, offset);
        other.id = __shfl_xor_sync(FULL_WARP, best.id, offset);
        best.take(other);
    }
    return best;
}

template <int LANES> __device__ __forceinline__ float max_of_lanes(float value) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        value = fmaxf(value, __shfl_xor_sync(FULL_WARP, value, offset));
    }
    return value;
}

// The two largest values' second, each lane's own two being `first` >= `second`.
template <int LANES> __device__ __forceinline__ float second_of_lanes(float first, float second) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        const float other_first = __shfl_xor_sync(FULL_WARP, first, offset);
        const float other_second = __shfl_xor_sync(FULL_WARP, second, offset);
        second = fmaxf(fmaxf(second, other_second), fminf(first, other_first));
        first = fmaxf(first, other_first);
    }
    return second;
}

template <int LANES> __device__ __forceinline__ bool any_of_lanes(bool value) {
    const uint32_t votes = __ballot_sync(FULL_WARP, value);
    return (votes >> (threadIdx.x % 32 / LANES * LANES) & (FULL_WARP >> (32 - LANES))) != 0;
}
