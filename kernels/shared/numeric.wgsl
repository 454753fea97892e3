// Element types, rounding and SiLU.
//
// 16-bit elements travel as halves of u32 words, the element with the even index in the low half, so that
// no device feature is needed. Arithmetic is f32 throughout. Rounding is to nearest, ties to even, done on
// the bits: what pack2x16float does between two values is up to the implementation, and a conversion there
// and back may be optimised away. WGSL may assume that there is no NaN, so NaN is told by its bits.

const F32: u32 = 0u;
const F16: u32 = 1u;
const BF16: u32 = 2u;

fn widen_pair(word: u32, dtype: u32) -> vec2<f32> {
    if (dtype == BF16) {
        return vec2(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
    }
    return unpack2x16float(word);
}

fn widen_four(words: vec2<u32>, dtype: u32) -> vec4<f32> {
    return vec4(widen_pair(words.x, dtype), widen_pair(words.y, dtype));
}

fn is_nan(bits: u32) -> bool {
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

// The bf16 nearest to a value, in the low half.
fn bf16_bits(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    // The carry must not turn a NaN into an infinity.
    return select(rounded, (bits >> 16u) | 0x40u, is_nan(bits));
}

// The f16 nearest to a value, in the low half.
fn f16_bits(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return sign | 0x7e00u;
    }
    // 65520, halfway between the largest f16 and what would be the next.
    if (magnitude >= 0x477ff000u) {
        return sign | 0x7c00u;
    }
    // 2^-14, the smallest normal f16: re-bias the exponent from 127 to 15 after rounding 13 bits away.
    if (magnitude >= 0x38800000u) {
        return sign | (((magnitude + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u) - (112u << 10u));
    }
    // Below 2^-25, half of the smallest subnormal.
    if (magnitude < 0x33000000u) {
        return sign;
    }
    // Subnormal: a whole number of 2^-24.
    let significand = (magnitude & 0x7fffffu) | 0x800000u;
    let shift = 126u - (magnitude >> 23u);
    let quotient = significand >> shift;
    let rest = significand & ((1u << shift) - 1u);
    let tie = 1u << (shift - 1u);
    let up = rest > tie || (rest == tie && (quotient & 1u) == 1u);
    return sign | (quotient + select(0u, 1u, up));
}

fn narrow(value: f32, dtype: u32) -> u32 {
    if (dtype == BF16) {
        return bf16_bits(value);
    }
    return f16_bits(value);
}

// A value as it is stored, in the low half where that is a half.
fn bits_of(value: f32, dtype: u32) -> u32 {
    if (dtype == F32) {
        return bitcast<u32>(value);
    }
    return narrow(value, dtype);
}

fn narrow_pair(low: f32, high: f32, dtype: u32) -> u32 {
    return narrow(low, dtype) | (narrow(high, dtype) << 16u);
}

// A value rounded to `dtype`, still in f32.
fn rounded(value: f32, dtype: u32) -> f32 {
    if (dtype == F32) {
        return value;
    }
    return widen_pair(narrow(value, dtype), dtype).x;
}

fn rounded_four(values: vec4<f32>, dtype: u32) -> vec4<f32> {
    if (dtype == F32) {
        return values;
    }
    return vec4(
        rounded(values.x, dtype),
        rounded(values.y, dtype),
        rounded(values.z, dtype),
        rounded(values.w, dtype),
    );
}

// exp(-distance) for a distance of 0 or more is (1 + x) * 2^y with the result's x and y: y is whole, x is the series of
// exp - 1 on +-ln(2) / 2, a few units off at most, where the built-in exp may be off by 3 + 2|x| units. Beyond 174 the
// distance counts as 174: exp(-174) is far below the smallest f32, and half of its power of two is still normal.
fn split_exp(distance: f32) -> vec2<f32> {
    const LOG2_E: f32 = 1.4426950408889634;
    // ln(2) in two parts, the first with so few bits that a multiple of it is exact.
    const LN_2_HIGH: f32 = 0.693359375;
    const LN_2_LOW: f32 = -2.1219444005469057e-4;
    let near = min(distance, 174.0);
    let power = round(-near * LOG2_E);
    let r = (-near - power * LN_2_HIGH) - power * LN_2_LOW;
    var p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    return vec2(p * r, power);
}

// 2^power for a whole power from -126 to 127; 0 below.
fn power_of_two(power: f32) -> f32 {
    return bitcast<f32>(u32(max(i32(power) + 127, 0)) << 23u);
}

// exp(-distance) for a distance of 0 or more, to a few units in the last place wherever it is a normal number.
fn exp_negative(distance: f32) -> f32 {
    let parts = split_exp(distance);
    let half = trunc(parts.y * 0.5);
    return (1.0 + parts.x) * power_of_two(half) * power_of_two(parts.y - half);
}

// silu(x) * factor, to a few units in the last place wherever the result is a normal number.
//
// With e = exp(-|x|) and s = 1 / (1 + e), silu is x * s for x >= 0 and x * e * s below, so nothing
// overflows. e is p * 2^(a + b); the two powers are multiplied in before and after the factor: their product alone
// could underflow although the result does not.
fn silu_times(x: f32, factor: f32) -> f32 {
    let parts = split_exp(abs(x));
    let p = 1.0 + parts.x;
    let a = trunc(parts.y * 0.5);
    let scale_a = power_of_two(a);
    let scale_b = power_of_two(parts.y - a);
    let s = 1.0 / (1.0 + p * scale_a * scale_b);
    if (x >= 0.0) {
        return x * s * factor;
    }
    if (x < -174.0) {
        return x * 0.0 * factor;
    }
    return x * (p * s) * scale_a * factor * scale_b;
}

// silu(gate) * up, with each step rounded to `dtype` if `round_each` is set.
fn gated(gate: f32, up: f32, dtype: u32, round_each: bool) -> f32 {
    if (round_each) {
        let silu = rounded(silu_times(rounded(gate, dtype), 1.0), dtype);
        return silu * rounded(up, dtype);
    }
    return silu_times(gate, up);
}

// silu(up), rounded before as `gated` does.
fn plain(up: f32, dtype: u32, round_each: bool) -> f32 {
    if (round_each) {
        return silu_times(rounded(up, dtype), 1.0);
    }
    return silu_times(up, 1.0);
}
