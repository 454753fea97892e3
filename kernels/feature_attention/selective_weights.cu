// selective_weights: the weights of a text's branches
//     s = mean(o) + max(o) over the N branches and t < length     z = tanh(Wz s + bz)     e_i = exp(sigmoid(Wi z + bi))
//     w_i = e_i / sum over the branches of e_i if `normalised`, else e_i
// selective_total: w = e / sum of e over all texts, branches and channels, in place
//
// states  [B, L, N, d1]  f32      squeezed  [B, d1 + d2]  f32, s and z, both scratch      weights  [B, N, d1]  f32
// Wz  [d2, d1], bz  [d2], Wi  [d1, d2], bi  [d1]  weight dtype W, biases optional
//
// selective_weights  grid (B)   block 512 = 16 warps; a block owns a text
//   shared  4,096 bytes: sums and maxima of groups of rows
//   pool    thread (group, channel) takes every groups-th row of [L N, d1]; the groups' results are combined in order
//   squeeze a warp a row of Wz, a lane every 32nd column, then a fixed shuffle tree
//   select  4 lanes a row of Wi, a lane every 4th column, then a fixed shuffle tree
// selective_total  grid (1)   block 1,024; thread k adds every 1,024th weight from k on, then a fixed tree
//   shared  128 bytes
// All of it in f32, in an order that depends on N, d1, d2 and the text's length (in selective_total on B). A text
// without tokens has weights of 0, which add nothing to a total.
//
// For h > 64: else selective_branches does this too.
#include "selective_weights.cuh"

constexpr int TOTAL_THREADS = 1024;

// s of a text of `length` tokens, for all to read.
__device__ __forceinline__ void pool_states(const SelectiveWeightsParams& p, const float* states, int length,
                                            float* squeezed) {
    SHARED_ARRAY(float, sums, [SELECT_THREADS]);
    SHARED_ARRAY(float, maxima, [SELECT_THREADS]);
    const int thread = int(threadIdx.x);
    const int width = min(p.reduced, SELECT_THREADS);
    const int groups = SELECT_THREADS / width;
    const int64_t rows = int64_t(length) * p.branches;
    for (int first = 0; first < p.reduced; first += width) {
        const int channel = first + thread % width;
        const int group = thread / width;
        // States lie above -1.
        float sum = 0.0f, largest = -1.0f;
        if (group < groups && channel < p.reduced) {
            for (int64_t row = group; row < rows; row += groups) {
                const float state = states[row * p.reduced + channel];
                sum += state;
                largest = state > largest ? state : largest;
            }
        }
        sums[thread] = sum;
        maxima[thread] = largest;
        __syncthreads();
        if (thread < width && channel < p.reduced) {
            for (int other = 1; other < groups; ++other) {
                sum += sums[other * width + thread];
                largest = fmaxf(largest, maxima[other * width + thread]);
            }
            squeezed[channel] = sum / float(rows) + largest;
        }
        // The next channels' sums go where these are still being read.
        __syncthreads();
    }
}

template <class W> __device__ __forceinline__ void selective_weights(const SelectiveWeightsParams& p) {
    const int64_t text = blockIdx.x;
    const SelectedText place = selected_text(p, text);
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    const int length = row_length(p.lengths, int(text), p.steps);
    if (length == 0) {
        clear_weights(p, place);
        return;
    }
    const int64_t text_states = text * p.steps * p.branches * p.reduced;
    pool_states(p, static_cast<const float*>(p.states) + text_states, length, place.pooled);
    weigh_branches<W>(p, place);
}

#define WEIGHTS_KERNEL(W)                                                                                             \
    extern "C" __global__ void __launch_bounds__(SELECT_THREADS, 2)                                                   \
        selective_weights_##W(const __grid_constant__ SelectiveWeightsParams p) {                                     \
        selective_weights<W>(p);                                                                                      \
    }                                                                                                                 \
    SIMULATED_KERNEL(selective_weights_##W)

WEIGHTS_KERNEL(f32)
WEIGHTS_KERNEL(f16)
WEIGHTS_KERNEL(bf16)

extern "C" __global__ void __launch_bounds__(TOTAL_THREADS, 1)
    selective_total_f32(const __grid_constant__ SelectiveTotalParams p) {
    SHARED_ARRAY(float, scratch, [TOTAL_THREADS / 32]);
    float* weights = static_cast<float*>(p.weights);
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    float sum = 0.0f;
    for (int64_t i = threadIdx.x; i < p.elements; i += TOTAL_THREADS) sum += weights[i];
    const float total = block_sum<TOTAL_THREADS / 32>(sum, scratch);
    for (int64_t i = threadIdx.x; i < p.elements; i += TOTAL_THREADS) weights[i] /= total;
}
SIMULATED_KERNEL(selective_total_f32)
