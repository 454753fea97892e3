// The activations of feature attention and of the GRU, in f32. Both are right at either infinity, and a NaN stays one.
#pragma once
#include "numeric.cuh"

// 1 / (1 + exp(-x)). The exponential of -|x| never overflows, and below zero it is the numerator, so that a small result
// is as exact as a large one: expf, the sum, __fdividef (its divisor lies in [1, 2]) and a product, 6 ulp at most.
__device__ __forceinline__ float sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return __fdividef(x < 0.0f ? e : 1.0f, 1.0f + e);
}

// tanh(x), within the 2 ulp of CUDA's own, which saturates at 1 and -1. 1 - 2 / (1 + exp(2x)) would lose every digit
// of a small x.
__device__ __forceinline__ float tanh_stable(float x) { return tanhf(x); }
