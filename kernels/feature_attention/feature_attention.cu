// feature_attention:  out[b,t,:] = x[b,t,:] * e[b,:]
//     s = mean of x[b,t,:] over t < length      a = tanh(W1 s + b1)      e = sigmoid(W2 a + b2)
//
// x    [B, L, D]  activation dtype A      out  [B, L, D]  f32, f16 or bf16      any strides of texts and rows
// lengths  [B]  int32_t or null
// w1  [d, D]   w2  [D, d]   b1  [d] or null   b2  [D] or null                weight dtype W
//
// grid  (B)   block 512 = 16 warps; a block owns a text: for a few long texts most of the device idles
// shared  4 * (groups * D + d) bytes of state, unless that exceeds the device's (then it lies in the workspace, groups = 1),
//         and, if both fit, ceil(D * sizeof(A) / 16) * 16 * L bytes of x behind it, rounded up to 16
// x is read once if it is staged in shared memory, else a second time through L2.
//
// squeeze  thread (group, chunk of 16 bytes) adds every groups-th token; the groups' sums are added in order
// reduce   a warp a row of W1, a lane every 32nd chunk, then a fixed shuffle tree
// excite   4 lanes a row of W2, a lane every 4th chunk, then a fixed shuffle tree
// All of it in f32, in an order that depends on D, d and the text's length; one rounding to the output type. A length outside of
// 0..L is clamped. Rows of `out` from the length on are 0; x is not read there.
#include "activation.cuh"
#include "params.cuh"
#include "reduce.cuh"

constexpr int FEATURE_ATTENTION_THREADS = 512;
constexpr int FEATURE_ATTENTION_WARPS = FEATURE_ATTENTION_THREADS / 32;
// Lanes that share a row of W2: 64 bytes of its usual 240 at a time.
constexpr int EXCITE_LANES = 4;
// Chunks that a thread has on their way before it adds the first.
constexpr int SQUEEZE_DEPTH = 6;

// The text's state: sums of `groups` groups of tokens, of which the first becomes s and then e; behind them a.
struct TextState {
    float* features;
    float* reduced;
    uint4* staged;  // null: x is not staged
};

// state.features[group * D + column] = the sum over the group's tokens.
template <class A>
__device__ __forceinline__ void squeeze_groups(const FeatureAttentionParams& p, const A* x, int length,
                                               const TextState& state, int chunks) {
    constexpr int N = CHUNK<A>;
    const int items = p.groups * chunks;
    for (int item = int(threadIdx.x); item < items; item += FEATURE_ATTENTION_THREADS) {
        const int chunk = item % chunks;
        const int column = chunk * N;
        const int group = item / chunks;
        float sum[N] = {};
        for (int first = group; first < length; first += SQUEEZE_DEPTH * p.groups) {
            uint4 words[SQUEEZE_DEPTH];
#pragma unroll
            for (int i = 0; i < SQUEEZE_DEPTH; ++i) {
                const int64_t token = int64_t(first) + i * p.groups;
                if (token < length) {
                    words[i] = load_chunk(x + token * p.x_row_stride, column, p.features, p.x_vectorised);
                }
            }
#pragma unroll
            for (int i = 0; i < SQUEEZE_DEPTH; ++i) {
                const int64_t token = int64_t(first) + i * p.groups;
                if (token >= length) break;
                if (state.staged != nullptr) state.staged[token * chunks + chunk] = words[i];
                float value[N];
                Chunk<A>::unpack(words[i], value);
#pragma unroll
                for (int j = 0; j < N; ++j) sum[j] += value[j];
            }
        }
#pragma unroll
        for (int j = 0; j < N; ++j) {
            if (column + j < p.features) state.features[int64_t(group) * p.features + column + j] = sum[j];
        }
    }
}

// s, from the groups' sums.
__device__ __forceinline__ void finish_squeeze(const FeatureAttentionParams& p, int length, const TextState& state) {
    for (int column = int(threadIdx.x); column < p.features; column += FEATURE_ATTENTION_THREADS) {
        float sum = 0.0f;
        for (int group = 0; group < p.groups; ++group) sum += state.features[int64_t(group) * p.features + column];
        state.features[column] = sum / float(length);
    }
}

// The products of every `lanes`-th chunk of a row of weights, from chunk `lane` on, with `values`.
template <class W>
__device__ __forceinline__ float dot_chunks(const W* row, const float* values, int columns, bool vectorised, int lane,
                                            int lanes) {
    constexpr int N = CHUNK<W>;
    float sum = 0.0f;
    for (int64_t column = int64_t(lane) * N; column < columns; column += lanes * N) {
        float weight[N];
        Chunk<W>::unpack(load_chunk(row, int(column), columns, vectorised), weight);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (column + i < columns) sum = fmaf(weight[i], values[column + i], sum);
        }
    }
    return sum;
}

template <class W>
__device__ __forceinline__ void reduce_features(const FeatureAttentionParams& p, const TextState& state) {
    const int lane = int(threadIdx.x) % 32;
    const W* w1 = static_cast<const W*>(p.w1);
    for (int row = int(threadIdx.x) / 32; row < p.reduced; row += FEATURE_ATTENTION_WARPS) {
        const float own =
            dot_chunks(w1 + row * p.w1_row_stride, state.features, p.features, p.w1_vectorised, lane, 32);
        const float sum = warp_sum(own) + load_or_zero<W>(p.b1, row);
        if (lane == 0) state.reduced[row] = p.tanh ? tanh_stable(sum) : sum;
    }
}

template <class W>
__device__ __forceinline__ void excite_features(const FeatureAttentionParams& p, const TextState& state) {
    constexpr int ROWS = FEATURE_ATTENTION_THREADS / EXCITE_LANES;
    const int lane = int(threadIdx.x) % EXCITE_LANES;
    const W* w2 = static_cast<const W*>(p.w2);
    for (int64_t first = 0; first < p.features; first += ROWS) {
        // A warp's lanes shuffle together: those without a row take the last one along.
        const int64_t own_row = first + int(threadIdx.x) / EXCITE_LANES;
        const int64_t row = own_row < p.features ? own_row : p.features - 1;
        float sum =
            dot_chunks(w2 + row * p.w2_row_stride, state.reduced, p.reduced, p.w2_vectorised, lane, EXCITE_LANES);
#pragma unroll
        for (int offset = EXCITE_LANES / 2; offset > 0; offset /= 2) {
            sum += __shfl_xor_sync(FULL_WARP, sum, offset);
        }
        if (lane == 0 && own_row < p.features) state.features[row] = sigmoid(sum + load_or_zero<W>(p.b2, row));
    }
}

template <class A>
__device__ __forceinline__ void scale_text(const FeatureAttentionParams& p, const A* x, int length,
                                           const TextState& state, int chunks) {
    constexpr int N = CHUNK<A>;
    const int64_t out_text = blockIdx.x * p.out_text_stride;
    const int64_t items = int64_t(p.tokens) * chunks;
    for (int64_t item = threadIdx.x; item < items; item += FEATURE_ATTENTION_THREADS) {
        const int64_t token = item / chunks;
        const int column = int(item % chunks) * N;
        float value[N] = {};
        if (token < length) {
            const uint4 words = state.staged != nullptr
                                    ? state.staged[item]
                                    : load_chunk(x + token * p.x_row_stride, column, p.features, p.x_vectorised);
            Chunk<A>::unpack(words, value);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                if (column + i < p.features) value[i] *= state.features[column + i];
            }
        }
        const int64_t place = out_text + token * p.out_row_stride + column;
        if (p.out_vectorised && column + N <= p.features) {
            store_floats_aligned<A, N>(static_cast<A*>(p.out) + place, value);
            continue;
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (column + i < p.features) store_as(p.out, place + i, p.out_dtype, value[i]);
        }
    }
}

template <class A, class W> __device__ __forceinline__ void feature_attention(const FeatureAttentionParams& p) {
    DYNAMIC_SHARED(shared);
    const int chunks = (p.features + CHUNK<A> - 1) / CHUNK<A>;
    const int64_t sums = int64_t(p.groups) * p.features;
    TextState state;
    state.features = p.workspace == nullptr
                         ? reinterpret_cast<float*>(shared)
                         : static_cast<float*>(p.workspace) + int64_t(blockIdx.x) * (sums + p.reduced);
    state.reduced = state.features + sums;
    const int64_t state_bytes = (sums + p.reduced + 3) / 4 * 16;
    state.staged = p.staged ? reinterpret_cast<uint4*>(shared + state_bytes) : nullptr;

    grid_dependency_launch_dependents();
    grid_dependency_wait();
    int length = p.tokens;
    if (p.lengths != nullptr) length = static_cast<const int32_t*>(p.lengths)[blockIdx.x];
    length = length < 0 ? 0 : length > p.tokens ? p.tokens : length;
    const A* x = static_cast<const A*>(p.x) + blockIdx.x * p.x_text_stride;

    if (length > 0) {
        squeeze_groups(p, x, length, state, chunks);
        __syncthreads();
        finish_squeeze(p, length, state);
        __syncthreads();
        reduce_features<W>(p, state);
        __syncthreads();
        excite_features<W>(p, state);
        __syncthreads();
    }
    scale_text(p, x, length, state, chunks);
}

#define FEATURE_ATTENTION_KERNEL(NAME, A, W)                                                                          \
    extern "C" __global__ void __launch_bounds__(FEATURE_ATTENTION_THREADS, 2)                                        \
        NAME(const __grid_constant__ FeatureAttentionParams p) {                                                      \
        feature_attention<A, W>(p);                                                                                   \
    }                                                                                                                 \
    SIMULATED_KERNEL(NAME)

FEATURE_ATTENTION_KERNEL(feature_attention_f32, f32, f32)
FEATURE_ATTENTION_KERNEL(feature_attention_f16, f16, f16)
FEATURE_ATTENTION_KERNEL(feature_attention_bf16, bf16, bf16)
FEATURE_ATTENTION_KERNEL(feature_attention_f32_f16, f32, f16)
FEATURE_ATTENTION_KERNEL(feature_attention_f32_bf16, f32, bf16)
