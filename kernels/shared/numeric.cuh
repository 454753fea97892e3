// Arithmetic and memory access by 16-byte chunks, shared by every family.
#pragma once
#include "device.cuh"

typedef float f32; // beside f16 and bf16, where a macro spells a kernel's dtypes

// silu(x) = x / (1 + exp(-x)), for every finite x: where exp overflows to infinity the quotient is -0, never NaN.
// expf is within 2 ulp and __fdividef within 2 ulp (it gives 0 where the divisor exceeds 2^126, where |silu| < 2e-36).
__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + expf(-x)); }

// The value a tensor of type T would hold.
template <class T> __device__ __forceinline__ float round_to(float value) { return to_float(from_float<T>(value)); }

// silu(gate) * up as KeepF32 (all of it in f32) or as RoundGateUp (every intermediate result rounded to T, as
// frameworks do that run one kernel an operation). The caller's store does the last rounding.
template <class T> __device__ __forceinline__ float silu_gate(float gate, float up, bool round_gate_up) {
    if (round_gate_up) return round_to<T>(silu(round_to<T>(gate))) * round_to<T>(up);
    return silu(gate) * up;
}

template <class T> __device__ __forceinline__ float silu_plain(float gate, bool round_gate_up) {
    return silu(round_gate_up ? round_to<T>(gate) : gate);
}

// Elements of T in a chunk of 16 bytes, the widest access of one thread.
template <class T> constexpr int CHUNK = 16 / int(sizeof(T));

template <class T> struct Chunk {
    __device__ __forceinline__ static void unpack(uint4 words, float (&value)[8]) {
        const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 pair = unpack2<T>(word[i]);
            value[2 * i] = pair.x;
            value[2 * i + 1] = pair.y;
        }
    }
    __device__ __forceinline__ static uint4 pack(const float (&value)[8]) {
        return make_uint4(pack2<T>(value[0], value[1]), pack2<T>(value[2], value[3]), pack2<T>(value[4], value[5]),
                          pack2<T>(value[6], value[7]));
    }
    __device__ __forceinline__ static uint32_t bits(T value) { return value.bits; }
};

template <> struct Chunk<float> {
    __device__ __forceinline__ static void unpack(uint4 words, float (&value)[4]) {
        value[0] = __uint_as_float(words.x);
        value[1] = __uint_as_float(words.y);
        value[2] = __uint_as_float(words.z);
        value[3] = __uint_as_float(words.w);
    }
    __device__ __forceinline__ static uint4 pack(const float (&value)[4]) {
        return make_uint4(__float_as_uint(value[0]), __float_as_uint(value[1]), __float_as_uint(value[2]),
                          __float_as_uint(value[3]));
    }
    __device__ __forceinline__ static uint32_t bits(float value) { return __float_as_uint(value); }
};

// The chunk of a row that starts at `column`, element by element: any alignment, zeros past the row's end.
template <class T> __device__ __forceinline__ uint4 load_chunk_elements(const T* row, int column, int columns) {
    constexpr int PER_WORD = 4 / int(sizeof(T));
    uint32_t word[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < CHUNK<T>; ++i) {
        if (column + i < columns) word[i / PER_WORD] |= Chunk<T>::bits(row[column + i]) << (i % PER_WORD * 16);
    }
    return make_uint4(word[0], word[1], word[2], word[3]);
}

// The same, in one access where the chunk is whole and `vectorised` promises that it is aligned.
template <class T> __device__ __forceinline__ uint4 load_chunk(const T* row, int column, int columns, bool vectorised) {
    if (vectorised && column + CHUNK<T> <= columns) return load16(row + column);
    return load_chunk_elements(row, column, columns);
}

// N consecutive elements of a row as floats, N a multiple of the chunk.
template <class T, int N>
__device__ __forceinline__ void load_floats(const T* row, int column, int columns, bool vectorised, float (&value)[N]) {
#pragma unroll
    for (int first = 0; first < N; first += CHUNK<T>) {
        float part[CHUNK<T>];
        Chunk<T>::unpack(load_chunk(row, column + first, columns, vectorised), part);
#pragma unroll
        for (int i = 0; i < CHUNK<T>; ++i) value[first + i] = part[i];
    }
}

// N consecutive floats, each rounded once, to a 16-byte aligned address.
template <class T, int N>
__device__ __forceinline__ void store_floats_aligned(T* destination, const float (&value)[N]) {
#pragma unroll
    for (int first = 0; first < N; first += CHUNK<T>) {
        float part[CHUNK<T>];
#pragma unroll
        for (int i = 0; i < CHUNK<T>; ++i) part[i] = value[first + i];
        store16(destination + first, Chunk<T>::pack(part));
    }
}

// How parameters name a dtype that is known at run time only.
template <class T> constexpr int DTYPE_CODE = 0;
template <> constexpr int DTYPE_CODE<f16> = 1;
template <> constexpr int DTYPE_CODE<bf16> = 2;

// A tensor of such a dtype.
__device__ __forceinline__ void store_as(void* tensor, int64_t index, int dtype, float value) {
    if (dtype == 0) {
        static_cast<float*>(tensor)[index] = value;
    } else if (dtype == 1) {
        static_cast<f16*>(tensor)[index] = from_float<f16>(value);
    } else {
        static_cast<bf16*>(tensor)[index] = from_float<bf16>(value);
    }
}

// An optional vector: 0 where the pointer is null.
template <class T> __device__ __forceinline__ float load_or_zero(const void* vector, int64_t index) {
    return vector == nullptr ? 0.0f : to_float(static_cast<const T*>(vector)[index]);
}
