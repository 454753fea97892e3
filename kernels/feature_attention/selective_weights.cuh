// From the states of a text's branches to the branches' weights, for selective_weights and selective_branches. A block of
// SELECT_THREADS owns a text.
#pragma once
#include "gru.cuh"
#include "reduce.cuh"
#include "selective_params.cuh"

constexpr int SELECT_THREADS = 512;
constexpr int SELECT_LANES = 4;

// What the kernels write for a text: s and z, and the weights of its branches.
struct SelectedText {
    float* pooled;
    float* z;
    float* weights;
};

__device__ __forceinline__ SelectedText selected_text(const SelectiveWeightsParams& p, int64_t text) {
    SelectedText place;
    place.pooled = static_cast<float*>(p.squeezed) + text * (int64_t(p.reduced) + p.squeezed_features);
    place.z = place.pooled + p.reduced;
    place.weights = static_cast<float*>(p.weights) + text * p.branches * p.reduced;
    return place;
}

// A text without tokens weighs nothing.
__device__ __forceinline__ void clear_weights(const SelectiveWeightsParams& p, const SelectedText& place) {
    const int64_t elements = int64_t(p.branches) * p.reduced;
    for (int64_t i = threadIdx.x; i < elements; i += SELECT_THREADS) place.weights[i] = 0.0f;
}

// The products of every `lanes`-th element of a row of weights, from element `lane` on, with `values`.
template <class W>
__device__ __forceinline__ float dot_part(const GruPanel& panel, int row, const float* values, int columns, int lane,
                                          int lanes) {
    const W* weight = static_cast<const W*>(panel.weight) + row * panel.row_stride;
    float sum = 0.0f;
    for (int column = lane; column < columns; column += lanes) {
        sum = fmaf(to_float(weight[column]), values[column], sum);
    }
    return sum;
}

template <class W>
__device__ __forceinline__ void squeeze_pooled(const SelectiveWeightsParams& p, const float* pooled, float* z) {
    const int lane = int(threadIdx.x) % 32;
    for (int row = int(threadIdx.x) / 32; row < p.squeezed_features; row += SELECT_THREADS / 32) {
        const float sum = warp_sum(dot_part<W>(p.squeeze, row, pooled, p.reduced, lane, 32));
        if (lane == 0) z[row] = tanh_stable(sum + load_or_zero<W>(p.squeeze.bias, row));
    }
}

template <class W>
__device__ __forceinline__ void select_branches(const SelectiveWeightsParams& p, const float* z, float* weights) {
    constexpr int ROWS = SELECT_THREADS / SELECT_LANES;
    const int lane = int(threadIdx.x) % SELECT_LANES;
    for (int first = 0; first < p.reduced; first += ROWS) {
        // A warp's lanes shuffle together: those without a channel take the last one along.
        const int own = first + int(threadIdx.x) / SELECT_LANES;
        const int channel = min(own, p.reduced - 1);
        const bool is_writer = lane == 0 && own < p.reduced;
        float total = 0.0f;
        for (int branch = 0; branch < p.branches; ++branch) {
            const GruPanel& panel = p.select.of[branch];
            float sum = dot_part<W>(panel, channel, z, p.squeezed_features, lane, SELECT_LANES);
#pragma unroll
            for (int offset = SELECT_LANES / 2; offset > 0; offset /= 2) {
                sum += __shfl_xor_sync(FULL_WARP, sum, offset);
            }
            const float weight = expf(sigmoid(sum + load_or_zero<W>(panel.bias, channel)));
            total += weight;
            if (is_writer) weights[int64_t(branch) * p.reduced + channel] = weight;
        }
        if (!is_writer || !p.normalised) continue;
        for (int branch = 0; branch < p.branches; ++branch) {
            weights[int64_t(branch) * p.reduced + channel] /= total;
        }
    }
}

// z and the weights, once s is there for all to read.
template <class W>
__device__ __forceinline__ void weigh_branches(const SelectiveWeightsParams& p, const SelectedText& place) {
    squeeze_pooled<W>(p, place.pooled, place.z);
    __syncthreads();
    select_branches<W>(p, place.z, place.weights);
}
