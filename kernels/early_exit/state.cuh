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
__device__ __forceinline__ bool is_no_logit(float value) { return is_nan(value) || value == -minus_infinity(); }

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

// The best of a warp, in every lane: the order is total, so that the tree does not matter.
__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        Best other;
        other.value = __shfl_xor_sync(FULL_WARP, best.value, offset);
        other.id = __shfl_xor_sync(FULL_WARP, best.id, offset);
        best.take(other);
    }
    return best;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        value = fmaxf(value, __shfl_xor_sync(FULL_WARP, value, offset));
    }
    return value;
}

// The two largest values of a warp, each lane's own two being `first` >= `second`.
__device__ __forceinline__ float warp_second(float first, float second) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        const float other_first = __shfl_xor_sync(FULL_WARP, first, offset);
        const float other_second = __shfl_xor_sync(FULL_WARP, second, offset);
        second = fmaxf(fmaxf(second, other_second), fminf(first, other_first));
        first = fmaxf(first, other_first);
    }
    return second;
}
