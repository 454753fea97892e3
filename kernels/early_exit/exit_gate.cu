// exit_gate:  go_on[b] = not (all | any of the criteria hold of b)
//   max_logit - log_sum_exp >= log_max_prob
//   exp(max_logit - log_sum_exp) - exp(second_logit - log_sum_exp) >= margin
//   entropy <= most_entropy,   cos(hidden, previous_hidden) >= cosine,   classifier >= classifier_score
// permutation: those that go on, then those that exit, each in their order
//
// max_logit, second_logit, log_sum_exp, entropy, classifier  [B]  f32      hidden, previous_hidden  [B, D]  dtype T
// go_on  [B]  uint8_t      permutation  [B]  int32_t      go_on_count  [1]  int32_t
//
// exit_cosine  grid (ceil(B / 8))   block 256; a warp a row; leaves in go_on whether the criterion holds
// exit_gate    grid (1)             block 256; a thread every 256th row; it finds the cosines of 8 rows itself
// shared  160 bytes
// Places are prefix sums over the rows: the same whatever the schedule. What is not finite satisfies no criterion, but
// that a second_logit of -inf is no second token. A cosine is summed in f32 by lane and then by a tree, whatever B.
#include "gate_params.cuh"
#include "numeric.cuh"
#include "scan.cuh"

constexpr int GATE_WARPS = 8;
constexpr int GATE_THREADS = GATE_WARPS * 32;

constexpr int BY_MAX_PROB = 1;
constexpr int BY_MARGIN = 2;
constexpr int BY_ENTROPY = 4;
constexpr int BY_COSINE = 8;
constexpr int BY_CLASSIFIER = 16;

__device__ __forceinline__ bool is_finite(float value) {
    return (__float_as_uint(value) & 0x7f800000u) != 0x7f800000u;
}

__device__ __forceinline__ bool is_at_least(float value, float threshold) {
    return is_finite(value) && value >= threshold;
}

// Whether a row is where it was: by a warp, in every lane.
template <class T> __device__ __forceinline__ bool is_saturated(const ExitGateParams& p, int64_t row) {
    constexpr int N = CHUNK<T>;
    const T* now = static_cast<const T*>(p.hidden) + row * p.hidden_row_stride;
    const T* before = static_cast<const T*>(p.previous_hidden) + row * p.previous_row_stride;
    float dot = 0.0f, now_square = 0.0f, before_square = 0.0f;
    for (int column = int(threadIdx.x % 32) * N; column < p.features; column += 32 * N) {
        float a[N], b[N];
        load_floats<T, N>(now, column, p.features, p.vectorised, a);
        load_floats<T, N>(before, column, p.features, p.vectorised, b);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            dot = fmaf(a[i], b[i], dot);
            now_square = fmaf(a[i], a[i], now_square);
            before_square = fmaf(b[i], b[i], before_square);
        }
    }
    dot = warp_sum(dot);
    now_square = warp_sum(now_square);
    before_square = warp_sum(before_square);
    // Without a direction the cosine is 0 times infinity: not a number.
    return is_finite(now_square) && is_finite(before_square) &&
           is_at_least(dot * rsqrtf(now_square) * rsqrtf(before_square), p.cosine);
}

__device__ __forceinline__ float statistic(const void* tensor, int64_t row) {
    return static_cast<const float*>(tensor)[row];
}

// Whether a row exits.
__device__ __forceinline__ bool exits(const ExitGateParams& p, int64_t row, bool saturated) {
    int satisfied = saturated ? BY_COSINE : 0;
    if (p.criteria & (BY_MAX_PROB | BY_MARGIN)) {
        const float max = statistic(p.max_logit, row), log_sum_exp = statistic(p.log_sum_exp, row);
        if (is_finite(max) && is_finite(log_sum_exp)) {
            const float log_prob = max - log_sum_exp;
            if (is_at_least(log_prob, p.log_max_prob)) satisfied |= BY_MAX_PROB;
            if (p.criteria & BY_MARGIN) {
                // exp(-inf) is 0; NaN stays NaN.
                const float margin = expf(log_prob) - expf(statistic(p.second_logit, row) - log_sum_exp);
                if (is_at_least(margin, p.margin)) satisfied |= BY_MARGIN;
            }
        }
    }
    if (p.criteria & BY_ENTROPY) {
        const float entropy = statistic(p.entropy, row);
        if (is_finite(entropy) && entropy <= p.most_entropy) satisfied |= BY_ENTROPY;
    }
    if (p.criteria & BY_CLASSIFIER && is_at_least(statistic(p.classifier, row), p.classifier_score)) {
        satisfied |= BY_CLASSIFIER;
    }
    satisfied &= p.criteria;
    return p.require_all ? satisfied == p.criteria : satisfied != 0;
}

template <class T> __device__ __forceinline__ void exit_cosine(const ExitGateParams& p) {
    const int64_t row = int64_t(blockIdx.x) * GATE_WARPS + threadIdx.x / 32;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    if (row >= p.rows) return;
    const bool saturated = is_saturated<T>(p, row);
    if (threadIdx.x % 32 == 0) static_cast<uint8_t*>(p.go_on)[row] = saturated ? 1 : 0;
}

template <class T> __device__ __forceinline__ void exit_gate(const ExitGateParams& p) {
    SHARED_ARRAY(uint32_t, scratch, [GATE_WARPS]);
    SHARED_ARRAY(uint32_t, saturated, [GATE_WARPS]);
    uint8_t* go_on = static_cast<uint8_t*>(p.go_on);
    int32_t* permutation = static_cast<int32_t*>(p.permutation);
    const bool decides_cosine = p.criteria & BY_COSINE && !p.cosine_decided;
    grid_dependency_launch_dependents();
    grid_dependency_wait();
    if (decides_cosine) {
        const int warp = int(threadIdx.x / 32);
        const bool is_one = warp < p.rows && is_saturated<T>(p, warp);
        if (threadIdx.x % 32 == 0) saturated[warp] = is_one ? 1 : 0;
        __syncthreads();
    }
    uint32_t total = 0;
    for (int64_t first = 0; first < p.rows; first += GATE_THREADS) {
        const int64_t row = first + threadIdx.x;
        bool goes = false;
        if (row < p.rows) {
            bool is_saturated = false;
            if (p.cosine_decided) is_saturated = go_on[row] != 0;
            if (decides_cosine) is_saturated = saturated[row] != 0;
            goes = !exits(p, row, is_saturated);
            go_on[row] = goes ? 1 : 0;
        }
        uint32_t going;
        block_scan<GATE_WARPS>(goes ? 1 : 0, scratch, going);
        total += going;
    }
    // A thread meets its own rows again: nobody else has written them.
    uint32_t base = 0;
    for (int64_t first = 0; first < p.rows; first += GATE_THREADS) {
        const int64_t row = first + threadIdx.x;
        const bool goes = row < p.rows && go_on[row] != 0;
        uint32_t going;
        const uint32_t before = base + block_scan<GATE_WARPS>(goes ? 1 : 0, scratch, going);
        base += going;
        if (row < p.rows) permutation[goes ? before : total + (uint32_t(row) - before)] = int32_t(row);
    }
    if (threadIdx.x == 0) *static_cast<int32_t*>(p.go_on_count) = int32_t(total);
}

// exit_gate has a multiprocessor for itself: without the 1, registers are spared for blocks that never come.
#define EXIT_GATE_KERNELS(T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(GATE_THREADS)                                                        \
        exit_cosine_##T(const __grid_constant__ ExitGateParams p) {                                                   \
        exit_cosine<T>(p);                                                                                            \
    }                                                                                                                 \
    SIMULATED_KERNEL(exit_cosine_##T)                                                                                 \
    extern "C" __global__ void __launch_bounds__(GATE_THREADS, 1)                                                     \
        exit_gate_##T(const __grid_constant__ ExitGateParams p) {                                                     \
        exit_gate<T>(p);                                                                                              \
    }                                                                                                                 \
    SIMULATED_KERNEL(exit_gate_##T)

EXIT_GATE_KERNELS(f32)
EXIT_GATE_KERNELS(f16)
EXIT_GATE_KERNELS(bf16)
