// Gumbel noise that is a function of seed, position, token and purpose.
#pragma once
#include "device.cuh"

// What a random number decides; streams of different purposes are independent.
constexpr uint32_t PURPOSE_TOKEN = 0;
constexpr uint32_t PURPOSE_COIN = 1;
constexpr uint32_t PURPOSE_RESIDUAL = 2;

struct Philox {
    uint32_t word[4];
};

// Philox 4x32-10 (Salmon et al. 2011).
__device__ __forceinline__ Philox philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint32_t high0 = __umulhi(0xd2511f53u, c0), low0 = 0xd2511f53u * c0;
        const uint32_t high1 = __umulhi(0xcd9e8d57u, c2), low1 = 0xcd9e8d57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return Philox{{c0, c1, c2, c3}};
}

// A number in (0, 1): (bits + 1/2) 2^-32 rounded once, no more than 1 - 2^-24.
__device__ __forceinline__ float uniform(uint32_t bits) {
    const float upper = float(bits >> 8) * 256.0f, lower = float(bits & 0xffu) + 0.5f;
    return fminf((upper + lower) * 2.3283064365386963e-10f, 0.99999994039535522f);
}

// -ln(-ln(1 - u)), fine-grained where it is large.
__device__ __forceinline__ float gumbel(uint32_t bits) { return -logf(-log1pf(-uniform(bits))); }
