// The tokens' lists of neurons, one after another.
#pragma once
#include "device.cuh"

// Where a token's list begins and ends, both inside the `listed` neurons of all whatever the offsets are.
struct SparseList {
    int64_t begin;
    int64_t end;

    __device__ __forceinline__ SparseList(const void* neuron_offsets, int64_t listed, int64_t token) {
        const uint32_t* offsets = static_cast<const uint32_t*>(neuron_offsets);
        const uint32_t last = uint32_t(listed);
        begin = min(offsets[token], last);
        end = min(offsets[token + 1], last);
    }
};
