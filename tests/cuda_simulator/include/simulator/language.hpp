// The CUDA language surface: qualifiers, vector types, storage types and arithmetic builtins.
// `__shared__` is deliberately not defined: only SHARED_ARRAY and DYNAMIC_SHARED are poisoned and checked.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1) : x(x_size), y(y_size), z(z_size) {}
};

#define SIMULATOR_VECTOR_TYPES(element, prefix)                                                                       \
    struct alignas(2 * sizeof(element)) prefix##2 {                                                                   \
        element x, y;                                                                                                 \
    };                                                                                                                \
    struct alignas(4 * sizeof(element)) prefix##4 {                                                                   \
        element x, y, z, w;                                                                                           \
    };                                                                                                                \
    inline prefix##2 make_##prefix##2(element x, element y) {                                                         \
        return {x, y};                                                                                                \
    }                                                                                                                 \
    inline prefix##4 make_##prefix##4(element x, element y, element z, element w) {                                   \
        return {x, y, z, w};                                                                                          \
    }
SIMULATOR_VECTOR_TYPES(float, float)
SIMULATOR_VECTOR_TYPES(int, int)
SIMULATOR_VECTOR_TYPES(unsigned, uint)
#undef SIMULATOR_VECTOR_TYPES

inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __int_as_float(int bits) { return __uint_as_float(unsigned(bits)); }
inline int __float_as_int(float value) { return int(__float_as_uint(value)); }

// ------------------------------------------------------------------------------------------------ storage types

struct f16 {
    uint16_t bits;
};

struct bf16 {
    uint16_t bits;
};

inline float to_float(float value) { return value; }

inline float to_float(bf16 value) { return __uint_as_float(uint32_t(value.bits) << 16); }

inline float to_float(f16 value) {
    const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
    // Moving the exponent field and scaling by 2^(127-15) is exact for normal and subnormal numbers alike.
    const float magnitude = __uint_as_float(uint32_t(value.bits & 0x7fffu) << 13) * 0x1p112f;
    const bool infinite_or_nan = magnitude >= 65536.0f;
    return __uint_as_float(__float_as_uint(magnitude) | sign | (infinite_or_nan ? 0x7f800000u : 0u));
}

template <class T> T from_float(float value);

template <> inline float from_float<float>(float value) { return value; }

template <> inline bf16 from_float<bf16>(float value) {
    const uint32_t bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    const uint32_t ties_to_even = 0x7fffu + ((bits >> 16) & 1u);
    return {uint16_t((bits + ties_to_even) >> 16)};
}

template <> inline f16 from_float<f16>(float value) {
    const uint32_t bits = __float_as_uint(value);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint16_t sign = uint16_t(bits >> 16 & 0x8000u);
    const uint32_t smallest_that_rounds_to_infinity = 0x477ff000u; // 65520
    const uint32_t smallest_normal = 0x38800000u;                  // 2^-14
    if (magnitude > 0x7f800000u) return {0x7fff};
    if (magnitude >= smallest_that_rounds_to_infinity) return {uint16_t(sign | 0x7c00u)};
    if (magnitude < smallest_normal) {
        // 0.5 has the ulp of f16's subnormals, so the float addition itself does the rounding.
        const uint32_t rounded = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u;
        return {uint16_t(sign | rounded)};
    }
    const uint32_t ties_to_even = 0xfffu + ((magnitude >> 13) & 1u);
    const uint32_t rebias = 0x38000000u; // (127 - 15) << 23
    return {uint16_t(sign | ((magnitude + ties_to_even - rebias) >> 13))};
}

template <class T> float2 unpack2(uint32_t word) {
    return {to_float(T{uint16_t(word)}), to_float(T{uint16_t(word >> 16)})};
}

template <class T> uint32_t pack2(float low, float high) {
    return uint32_t(from_float<T>(low).bits) | uint32_t(from_float<T>(high).bits) << 16;
}

// ------------------------------------------------------------------------------------------------ arithmetic

using std::max;
using std::min;

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
template <class T> T __ldg(const T* pointer) { return *pointer; }
