// What the GRU's kernels share.
#pragma once
#include "activation.cuh"
#include "gru_params.cuh"
#include "numeric.cuh"

constexpr int GATES = 3; // in the order of the weights' rows: reset, update, candidate

// Valid tokens of a row, whatever the tensor says.
__device__ __forceinline__ int row_length(const void* lengths, int row, int steps) {
    if (lengths == nullptr) return steps;
    const int32_t length = static_cast<const int32_t*>(lengths)[row];
    return length < 0 ? 0 : (length > steps ? steps : length);
}

// Four consecutive elements of a row, zeros past its end; `vectorised` promises that the row starts on 16 bytes, and
// `column` is a multiple of 4.
template <class T>
__device__ __forceinline__ void load_four(const T* row, int column, int columns, bool vectorised, float (&value)[4]) {
    if (vectorised && column + 4 <= columns) {
        const uint2 words = *reinterpret_cast<const uint2*>(row + column);
        const float2 low = unpack2<T>(words.x), high = unpack2<T>(words.y);
        value[0] = low.x;
        value[1] = low.y;
        value[2] = high.x;
        value[3] = high.y;
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = column + i < columns ? to_float(row[column + i]) : 0.0f;
}

template <>
__device__ __forceinline__ void load_four<float>(const float* row, int column, int columns, bool vectorised,
                                                 float (&value)[4]) {
    Chunk<float>::unpack(load_chunk(row, column, columns, vectorised), value);
}

__device__ __forceinline__ float load_as(const void* tensor, int64_t index, int dtype) {
    if (dtype == 0) return static_cast<const float*>(tensor)[index];
    if (dtype == 1) return to_float(static_cast<const f16*>(tensor)[index]);
    return to_float(static_cast<const bf16*>(tensor)[index]);
}

// The next state of a unit: r = sigmoid(xr + hr), z = sigmoid(xz + hz), n = tanh(xn + r hn), h' = (1 - z) n + z h.
// `input` holds W_ih x + b_ih and `recurrent` W_hh h + b_hh.
__device__ __forceinline__ float gru_cell(const float (&input)[GATES], const float (&recurrent)[GATES], float state) {
    const float reset = sigmoid(input[0] + recurrent[0]);
    const float update = sigmoid(input[1] + recurrent[1]);
    const float candidate = tanh_stable(fmaf(reset, recurrent[2], input[2]));
    return fmaf(1.0f - update, candidate, update * state);
}

// One direction of one row: where its tokens lie.
struct GruRow {
    int length;
    int token;  // of step 0
    int stride; // 1, or -1 in reverse
    const float* gates;
    int64_t out;

    // The token of a step, from the row's first.
    __device__ __forceinline__ int64_t token_of(int step) const { return token + step * stride; }

    __device__ __forceinline__ const float* gates_of(const GruRecurrenceParams& p, int step) const {
        return gates + token_of(step) * (2 * GATES * p.hidden);
    }

    __device__ __forceinline__ void store(const GruRecurrenceParams& p, int step, int unit, float state) const {
        store_as(p.out, out + token_of(step) * p.out_token_stride + unit, p.out_dtype, state);
    }
};

__device__ __forceinline__ GruRow gru_row(const GruRecurrenceParams& p, int row, int direction) {
    const int length = row_length(p.lengths, row, p.steps);
    GruRow place;
    place.length = length;
    place.token = direction == 0 ? 0 : length - 1;
    place.stride = direction == 0 ? 1 : -1;
    place.gates = static_cast<const float*>(p.gates) +
                  (int64_t(row) * p.steps * 2 + direction) * (GATES * p.hidden);
    place.out = row * p.out_batch_stride + direction * p.hidden;
    return place;
}

__device__ __forceinline__ float initial_state(const GruRecurrenceParams& p, int row, int direction, int unit) {
    if (p.initial == nullptr) return 0.0f;
    const int64_t index = direction * p.initial_direction_stride + row * p.initial_batch_stride + unit;
    return load_as(p.initial, index, p.initial_dtype);
}

__device__ __forceinline__ void store_last(const GruRecurrenceParams& p, int row, int direction, int unit,
                                           float state) {
    if (p.last == nullptr) return;
    store_as(p.last, direction * p.last_direction_stride + row * p.last_batch_stride + unit, p.last_dtype, state);
}

// Zeros behind a row's length; called by the whole block.
__device__ __forceinline__ void clear_padding(const GruRecurrenceParams& p, const GruRow& place) {
    const int64_t elements = int64_t(p.steps - place.length) * p.hidden;
    for (int64_t i = threadIdx.x; i < elements; i += blockDim.x) {
        const int64_t token = place.length + i / p.hidden;
        store_as(p.out, place.out + token * p.out_token_stride + i % p.hidden, p.out_dtype, 0.0f);
    }
}
