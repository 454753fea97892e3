//! `silu` in vectors.

use super::instructions::Vectors;

/// `silu(gate) * up`, finite for finite arguments unless the result itself is too large.
///
/// With `e = exp(-|gate|)`, `silu(gate)` is `gate / (1 + e)` for positive and `gate * e / (1 + e)` for
/// negative arguments: nothing overflows. The factor `e` goes to `up`, as two square roots: where `e` alone
/// would be lost to underflow, a large `up` still gives the right product. Below `gate = -174` the result
/// is zero. Within 5 ulp wherever neither `up * e` nor the result is denormal.
#[inline(always)]
pub(crate) fn silu_mul<V: Vectors>(v: V, gate: V::Vector, up: V::Vector) -> V::Vector {
    let size = v.abs(gate);
    let root = exp_of_negative(v, v.mul(size, v.splat(-0.5)));
    let quotient = v.div(gate, v.add(v.splat(1.0), v.mul(root, root)));
    let faded = v.mul(v.mul(up, root), root);
    v.mul(quotient, v.select_less(gate, v.splat(0.0), faded, up))
}

/// `exp(x)` for `x <= 0`, zero below -87; within 1 ulp above.
///
/// `exp(x) = 2^n exp(r)` with `n` an integer and `|r| <= ln(2) / 2`, where a polynomial of degree 6 is
/// exact to 2^-26 (coefficients: Remez, f32).
#[inline(always)]
pub(crate) fn exp_of_negative<V: Vectors>(v: V, x: V::Vector) -> V::Vector {
    /// Adding it leaves `n + 127`, an exponent of `2^n`, in the low bits of the sum.
    const ROUND: f32 = 1.5 * (1 << 23) as f32 + 127.0;
    /// `exp` of it is the smallest normal number, nearly.
    const LOWEST: f32 = -87.0;
    /// ln(2) in two parts; products of the first with small integers are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
    let lowest = v.splat(LOWEST);
    let clamped = v.select_less(x, lowest, lowest, x);
    let shifted = v.mul_add(clamped, v.splat(std::f32::consts::LOG2_E), v.splat(ROUND));
    let negative_n = v.sub(v.splat(ROUND), shifted);
    let r = v.mul_add(negative_n, v.splat(LN_2[0]), clamped);
    let r = v.mul_add(negative_n, v.splat(LN_2[1]), r);
    let mut sum = v.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        sum = v.mul_add(sum, r, v.splat(*coefficient));
    }
    let exp_r = v.add(v.mul_add(v.mul(r, r), sum, r), v.splat(1.0));
    let exp = v.mul(exp_r, v.shift_to_exponent(shifted));
    v.select_less(x, lowest, v.splat(0.0), exp)
}

#[cfg(test)]
#[allow(unsafe_code, reason = "loads and stores of whole vectors in local arrays")]
mod tests {
    use super::*;
    use crate::backend::cpu::instructions::{InstructionSet, MAX_LANES, Supported, VectorJob};

    /// Largest errors, in units in the last place of the expectation, of `exp` and `silu_mul`.
    struct Errors;

    impl VectorJob for Errors {
        type Output = [f64; 2];

        fn run<V: Vectors>(self, v: V) -> [f64; 2] {
            let mut worst = [0f64; 2];
            let mut x = -86.9f32;
            while x < 120.0 {
                let mut values = [0f32; MAX_LANES];
                for value in &mut values {
                    *value = x;
                    x += 1.7e-4;
                }
                let up = 3.7e15f32;
                let (mut exp, mut silu) = ([0f32; MAX_LANES], [0f32; MAX_LANES]);
                // SAFETY: the arrays hold a whole vector.
                unsafe {
                    let vector = v.load_f32(values.as_ptr());
                    let negative = v.sub(v.splat(0.0), v.abs(vector));
                    v.store_f32(exp_of_negative(v, negative), exp.as_mut_ptr());
                    v.store_f32(silu_mul(v, vector, v.splat(up)), silu.as_mut_ptr());
                }
                for lane in 0..V::LANES {
                    let x = f64::from(values[lane]);
                    if x.abs() < 87.0 {
                        worst[0] = worst[0].max(ulps(exp[lane], (-x.abs()).exp()));
                    }
                    let want = x / (1.0 + (-x).exp()) * f64::from(up);
                    worst[1] = worst[1].max(ulps(silu[lane], want));
                }
            }
            worst
        }
    }

    fn ulps(got: f32, want: f64) -> f64 {
        let nearest = (want as f32).abs();
        let unit = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
        (f64::from(got) - want).abs() / unit
    }

    #[test]
    fn errors_are_as_documented() {
        for set in InstructionSet::available() {
            let [exp, silu] = Supported::new(set).unwrap().dispatch(Errors);
            println!("{set}: exp {exp:.2} ulp, silu {silu:.2} ulp");
            assert!(exp <= 1.0 && silu <= 5.0, "{set}: exp {exp} ulp, silu {silu} ulp");
        }
    }

    struct At(f32, f32);

    impl VectorJob for At {
        type Output = f32;

        fn run<V: Vectors>(self, v: V) -> f32 {
            let mut output = [0f32; MAX_LANES];
            // SAFETY: the array holds a whole vector.
            unsafe {
                v.store_f32(silu_mul(v, v.splat(self.0), v.splat(self.1)), output.as_mut_ptr())
            };
            output[0]
        }
    }

    #[test]
    fn extremes_give_what_the_formula_gives() {
        for set in InstructionSet::available() {
            let at = |gate, up| Supported::new(set).unwrap().dispatch(At(gate, up));
            for gate in [-1e5, -65504.0, -200.0, f32::MIN, -0.0, 0.0] {
                assert_eq!(at(gate, 3e38), 0.0, "{set}: {gate}");
            }
            assert_eq!(at(1e5, 1.0), 1e5);
            assert_eq!(at(f32::MAX, 1.0), f32::MAX);
            assert_eq!(at(f32::MAX, -2.0), f32::NEG_INFINITY);
            let faded = -104.0 * (-104f64).exp() * f64::from(f32::MAX);
            assert!(ulps(at(-104.0, f32::MAX), faded) < 5.0);
            assert!(at(f32::NAN, 1.0).is_nan() && at(1.0, f32::NAN).is_nan());
            assert!(at(f32::NEG_INFINITY, 1.0).is_nan());
            assert_eq!(at(f32::INFINITY, 1.0), f32::INFINITY);
        }
    }
}
