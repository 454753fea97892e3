// Keys that order scores as unsigned numbers: larger scores have larger keys, both zeros have one, and every NaN has
// the smallest, 0.
#pragma once
#include "device.cuh"
#include "numeric.cuh"

// SIGN is the type's sign bit, INFINITE the bits of its infinity.
template <uint32_t SIGN, uint32_t INFINITE> __device__ __forceinline__ uint32_t key_of_bits(uint32_t bits) {
    const uint32_t magnitude = bits & (SIGN - 1u);
    if (magnitude > INFINITE) return 0;
    if (magnitude == 0) return SIGN;
    return bits & SIGN ? ~bits & (SIGN | (SIGN - 1u)) : bits | SIGN;
}

__device__ __forceinline__ uint32_t score_key(float score) {
    return key_of_bits<0x80000000u, 0x7f800000u>(__float_as_uint(score));
}
__device__ __forceinline__ uint32_t score_key(f16 score) { return key_of_bits<0x8000u, 0x7c00u>(score.bits); }
__device__ __forceinline__ uint32_t score_key(bf16 score) { return key_of_bits<0x8000u, 0x7f80u>(score.bits); }
