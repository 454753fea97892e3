// Conversions between f32 and the 16-bit types, against arithmetic that shares nothing with them: every 16-bit value,
// and for every pair of neighbours the middle between them and the floats beside it.
#include "check.hpp"

#include <cmath>
#include <limits>

namespace {

// A 16-bit format's value by its definition.
double value_of(uint16_t bits, int exponent_bits, int mantissa_bits) {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
    const double fraction = double(bits & ((1 << mantissa_bits) - 1)) / double(1 << mantissa_bits);
    const double sign = bits >> 15 ? -1.0 : 1.0;
    if (exponent == (1 << exponent_bits) - 1) {
        return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
    }
    if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias);
    return sign * std::ldexp(1.0 + fraction, exponent - bias);
}

template <class T> void test_every_value(int exponent_bits, int mantissa_bits) {
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        const double expected = value_of(uint16_t(bits), exponent_bits, mantissa_bits);
        const float converted = to_float(T{uint16_t(bits)});
        if (std::isnan(expected)) {
            check(std::isnan(converted), "NaN to float", bits);
            check(from_float<T>(converted).bits == 0x7fff, "NaN from float", bits);
        } else {
            check(double(converted) == expected && std::signbit(converted) == std::signbit(expected), "to float", bits);
            check(from_float<T>(converted).bits == bits, "there and back", bits);
        }
    }
}

// Between the neighbours `low` and `low + 1`: below the middle rounds down, above it up, the middle itself to even.
template <class T> void test_rounding(int exponent_bits, int mantissa_bits) {
    const uint16_t infinity = uint16_t(((1 << exponent_bits) - 1) << mantissa_bits);
    for (uint32_t low = 0; low < infinity; low++) {
        const uint16_t even = uint16_t(low + (low & 1));
        const double below = value_of(uint16_t(low), exponent_bits, mantissa_bits);
        double above = value_of(uint16_t(low + 1), exponent_bits, mantissa_bits);
        // For rounding, infinity stands where the next value would be.
        if (std::isinf(above)) above = below + (below - value_of(uint16_t(low - 1), exponent_bits, mantissa_bits));
        const double middle = (below + above) / 2;
        const float exact = float(middle);
        if (double(exact) != middle) continue; // below f32's own resolution
        check(from_float<T>(exact).bits == even, "a tie", low);
        check(from_float<T>(-exact).bits == (even | 0x8000), "a negative tie", low);
        check(from_float<T>(std::nextafterf(exact, 0.0f)).bits == low, "below a tie", low);
        check(from_float<T>(std::nextafterf(exact, INFINITY)).bits == low + 1, "above a tie", low);
    }
    check(from_float<T>(INFINITY).bits == infinity, "infinity", 0);
    check(from_float<T>(-INFINITY).bits == (infinity | 0x8000), "negative infinity", 0);
    check(from_float<T>(std::numeric_limits<float>::max()).bits == infinity, "overflow", 0);
    check(from_float<T>(std::numeric_limits<float>::denorm_min()).bits == 0, "underflow", 0);
}

template <class T> void test_pairs() {
    for (uint32_t i = 0; i < INPUT_WORDS; i++) {
        const float low = __uint_as_float(input_word(i));
        const float high = __uint_as_float(input_word(i + INPUT_WORDS));
        const uint32_t packed = pack2<T>(low, high);
        check(uint16_t(packed) == from_float<T>(low).bits, "pack2, low half", i);
        check(packed >> 16 == from_float<T>(high).bits, "pack2, high half", i);
        const float2 unpacked = unpack2<T>(packed);
        check(__float_as_uint(unpacked.x) == __float_as_uint(to_float(T{uint16_t(packed)})), "unpack2, low half", i);
        check(__float_as_uint(unpacked.y) == __float_as_uint(to_float(T{uint16_t(packed >> 16)})), "unpack2, high", i);
    }
}

} // namespace

void test_conversions() {
    test_every_value<f16>(5, 10);
    test_every_value<bf16>(8, 7);
    test_rounding<f16>(5, 10);
    test_rounding<bf16>(8, 7);
    test_pairs<f16>();
    test_pairs<bf16>();
}
