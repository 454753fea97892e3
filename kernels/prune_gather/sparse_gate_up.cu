// sparse_gated_mlp, few tokens, first half:  h[m,j] = silu(n[m,:] . Wg[j,:]) * (n[m,:] . Wu[j,:]) where token m selects
// neuron j, and 0 elsewhere; n = x or rms_norm(x). Selected is |silu(n . Wg_j)| > threshold, NaN included, or what the
// token's list says.
//
// x  [M, d]  activation dtype A      Wg, Wu  [F, d]  weight dtype W, nn.Linear layout      h  [M, F]  A
// offsets  [M + 1], neurons  [total]  u32: neurons[offsets[m]] .. before neurons[offsets[m + 1]], ascending; or absent
//
// grid  (ceil(F / 16), M)   block 128 = 4 warps; a warp owns 4 neurons j for one m
// shared  x_tile * sizeof(A) dynamic: n, normalised by the block itself; 16 bytes static
// Up to eight 16-byte loads a lane are in flight, first of Wg, then of Wu. Rows of Wu that are not selected are not read,
// nor those of Wg where lists select.
// A row is summed lane-strided in f32, then by a fixed xor-shuffle tree: the result does not depend on M or x_tile. The
// comparison is made before any rounding. Offsets beyond the list are cut to it, members from F on are passed over.
#include "device.cuh"
#include "numeric.cuh"
#include "params.cuh"
#include "reduce.cuh"
#include "rms_norm.cuh"
#include "sparse_lists.cuh"

constexpr int SPARSE_THREADS = RMS_NORM_WARPS * 32;
constexpr int SPARSE_NEURONS = 4;
constexpr int SPARSE_UNROLL = 2;

// Which of the warp's neurons the token's list has, a bit each.
__device__ __forceinline__ uint32_t listed_neurons(const SparseGateUpParams& p, int token, int neuron0) {
    const uint32_t* neurons = static_cast<const uint32_t*>(p.neurons);
    const SparseList list(p.neuron_offsets, p.listed, token);
    int64_t low = list.begin, high = list.end;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (neurons[middle] < uint32_t(neuron0)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    uint32_t selected = 0;
#pragma unroll
    for (int i = 0; i < SPARSE_NEURONS; ++i) {
        const uint32_t place = low + i < list.end ? neurons[low + i] - uint32_t(neuron0) : SPARSE_NEURONS;
        if (place < SPARSE_NEURONS) selected |= 1u << place;
    }
    return selected;
}

// The token's x as the products read it: its scale, and the part of n that is in shared memory.
template <class A, class W> struct SparseInput {
    const SparseGateUpParams& p;
    const A* x;
    float inverse;
    A* tile;
    bool filled;

    __device__ __forceinline__ SparseInput(const SparseGateUpParams& params, int64_t token, A* x_tile, float* scratch)
        : p(params), x(static_cast<const A*>(params.x) + token * params.x_row_stride), inverse(1.0f), tile(x_tile),
          filled(false) {
        if (p.norm_weight != nullptr) inverse = inverse_rms(x, p.hidden, p.norm_epsilon, p.vectorised, scratch);
    }

    // Columns [start, end) of n into shared memory, zeros up to a whole chunk; by the whole block.
    __device__ __forceinline__ void fill(int start, int end) {
        if (filled && p.hidden <= p.x_tile) return;
        filled = true;
        // The other warps may still be reading the tile that this one replaces.
        __syncthreads();
        const W* norm_weight = static_cast<const W*>(p.norm_weight);
        for (int column = start + int(threadIdx.x) * 8; column < end; column += SPARSE_THREADS * 8) {
            float value[8];
            if (norm_weight != nullptr) {
                normalise8(x, norm_weight, column, end, inverse, p.vectorised, value);
            } else {
                load_floats<A, 8>(x, column, end, p.vectorised, value);
            }
            store_floats_aligned<A, 8>(tile + (column - start), value);
        }
        __syncthreads();
    }
};

template <class A, class W>
__device__ __forceinline__ void accumulate_chunk(const uint4 (&weight)[SPARSE_NEURONS], const A* n, uint32_t selected,
                                                 float (&sum)[SPARSE_NEURONS]) {
    float n_value[CHUNK<W>];
    load_floats<A, CHUNK<W>>(n, 0, CHUNK<W>, true, n_value);
#pragma unroll
    for (int r = 0; r < SPARSE_NEURONS; ++r) {
        if (!(selected >> r & 1u)) continue;
        float weight_value[CHUNK<W>];
        Chunk<W>::unpack(weight[r], weight_value);
#pragma unroll
        for (int i = 0; i < CHUNK<W>; ++i) sum[r] = fmaf(weight_value[i], n_value[i], sum[r]);
    }
}

// Columns [start, end) of the selected rows times the tile of n that holds them.
template <class A, class W>
__device__ __forceinline__ void accumulate_tile(const W* const (&row)[SPARSE_NEURONS], uint32_t selected,
                                                const A* tile, int start, int end, bool vectorised,
                                                float (&sum)[SPARSE_NEURONS]) {
    constexpr int STEP = 32 * CHUNK<W>;
    int column = start + int(threadIdx.x % 32) * CHUNK<W>;
    if (vectorised) {
        for (; column + (SPARSE_UNROLL - 1) * STEP + CHUNK<W> <= end; column += SPARSE_UNROLL * STEP) {
            uint4 weight[SPARSE_UNROLL][SPARSE_NEURONS];
#pragma unroll
            for (int u = 0; u < SPARSE_UNROLL; ++u) {
#pragma unroll
                for (int r = 0; r < SPARSE_NEURONS; ++r) {
                    weight[u][r] = make_uint4(0, 0, 0, 0);
                    if (selected >> r & 1u) weight[u][r] = load_streaming16(row[r] + column + u * STEP);
                }
            }
#pragma unroll
            for (int u = 0; u < SPARSE_UNROLL; ++u) {
                accumulate_chunk<A, W>(weight[u], tile + (column + u * STEP - start), selected, sum);
            }
        }
    }
    for (; column < end; column += STEP) {
        uint4 weight[SPARSE_NEURONS];
#pragma unroll
        for (int r = 0; r < SPARSE_NEURONS; ++r) {
            weight[r] = make_uint4(0, 0, 0, 0);
            if (selected >> r & 1u) weight[r] = load_chunk(row[r], column, end, vectorised);
        }
        accumulate_chunk<A, W>(weight, tile + (column - start), selected, sum);
    }
}

// sum[r] = n . row neuron0 + r of the matrix, in every lane, where it is selected.
template <class A, class W>
__device__ __forceinline__ void project(SparseInput<A, W>& input, const void* matrix, int64_t row_stride, int neuron0,
                                        uint32_t selected, float (&sum)[SPARSE_NEURONS]) {
    const SparseGateUpParams& p = input.p;
    const W* row[SPARSE_NEURONS];
#pragma unroll
    for (int r = 0; r < SPARSE_NEURONS; ++r) {
        // Rows past the end are not selected.
        row[r] = static_cast<const W*>(matrix) + min(neuron0 + r, p.ffn - 1) * row_stride;
        sum[r] = 0.0f;
    }
    for (int start = 0; start < p.hidden; start += p.x_tile) {
        const int end = min(p.hidden, start + p.x_tile);
        input.fill(start, end);
        if (selected != 0) accumulate_tile<A, W>(row, selected, input.tile, start, end, p.vectorised, sum);
    }
#pragma unroll
    for (int r = 0; r < SPARSE_NEURONS; ++r) sum[r] = warp_sum(sum[r]);
}

template <class A, class W>
__device__ __forceinline__ void sparse_gate_up(const SparseGateUpParams& p, A* x_tile, float* scratch) {
    const int token = int(blockIdx.y);
    const int neuron0 = (int(blockIdx.x) * RMS_NORM_WARPS + int(threadIdx.x / 32)) * SPARSE_NEURONS;
    const int own = max(0, min(SPARSE_NEURONS, p.ffn - neuron0));
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    uint32_t selected = (1u << own) - 1u;
    if (p.neuron_offsets != nullptr) selected &= listed_neurons(p, token, neuron0);
    SparseInput<A, W> input(p, token, x_tile, scratch);
    float gate[SPARSE_NEURONS];
    float up[SPARSE_NEURONS];
    project(input, p.gate_weight, p.gate_row_stride, neuron0, selected, gate);
    if (p.neuron_offsets == nullptr) {
#pragma unroll
        for (int r = 0; r < SPARSE_NEURONS; ++r) {
            // What is not a number is not at most the threshold either, and is kept.
            if (fabsf(silu(gate[r])) <= p.threshold) selected &= ~(1u << r);
        }
    }
    project(input, p.up_weight, p.up_row_stride, neuron0, selected, up);
    A* h = static_cast<A*>(p.h) + token * p.h_row_stride;
#pragma unroll
    for (int r = 0; r < SPARSE_NEURONS; ++r) {
        if (int(threadIdx.x % 32) != r || r >= own) continue;
        const float value = selected >> r & 1u ? silu_gate<A>(gate[r], up[r], p.round_gate_up) : 0.0f;
        h[neuron0 + r] = from_float<A>(value);
    }
}

#define SPARSE_GATE_UP_KERNEL(NAME, A, W)                                                                             \
    extern "C" __global__ void __launch_bounds__(SPARSE_THREADS, 4)                                                   \
        NAME(const __grid_constant__ SparseGateUpParams p) {                                                          \
        DYNAMIC_SHARED(dynamic_shared);                                                                               \
        SHARED_ARRAY(float, scratch, [RMS_NORM_WARPS]);                                                               \
        sparse_gate_up<A, W>(p, reinterpret_cast<A*>(dynamic_shared), scratch);                                       \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

SPARSE_GATE_UP_KERNEL(sparse_gated_mlp_gate_up_f32, f32, f32)
SPARSE_GATE_UP_KERNEL(sparse_gated_mlp_gate_up_f16, f16, f16)
SPARSE_GATE_UP_KERNEL(sparse_gated_mlp_gate_up_bf16, bf16, bf16)
SPARSE_GATE_UP_KERNEL(sparse_gated_mlp_gate_up_f32_f16, f32, f16)
SPARSE_GATE_UP_KERNEL(sparse_gated_mlp_gate_up_f32_bf16, f32, bf16)
