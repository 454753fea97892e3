//! `sigmoid` and `tanh` in vectors. Both are right at either infinity, and a NaN stays one.

use super::instructions::Vectors;
use super::silu::exp_of_negative;

/// `1 / (1 + exp(-x))`, within 3 ulp; zero below -87.
///
/// The exponential of `-|x|` never overflows; below zero it is the numerator, so that a small result is as exact as a
/// large one.
#[inline(always)]
pub(crate) fn sigmoid<V: Vectors>(v: V, x: V::Vector) -> V::Vector {
    let (zero, one) = (v.splat(0.0), v.splat(1.0));
    let e = exp_of_negative(v, v.sub(zero, v.abs(x)));
    v.div(v.select_less(x, zero, e, one), v.add(one, e))
}

/// `tanh(x)`, within 3 ulp.
///
/// From 0.625 on `(1 - e) / (1 + e)` with `e = exp(-2|x|)`, which would lose every digit of a small `x`; below an odd
/// polynomial, exact to 2^-25 (coefficients: Chebyshev's approximation of `(tanh(x) / x - 1) / x^2` in `x^2`).
#[inline(always)]
pub(crate) fn tanh<V: Vectors>(v: V, x: V::Vector) -> V::Vector {
    const SMALL: f32 = 0.625;
    const POLYNOMIAL: [f32; 6] =
        [2.292_744_8e-3, -8.343_945e-3, 2.176_891_9e-2, -5.395_926e-2, 0.133_333_04, -0.333_333_33];
    let (zero, one) = (v.splat(0.0), v.splat(1.0));
    let size = v.abs(x);
    let e = exp_of_negative(v, v.mul(size, v.splat(-2.0)));
    let large = v.div(v.sub(one, e), v.add(one, e));
    let large = v.select_less(x, zero, v.sub(zero, large), large);
    let square = v.mul(x, x);
    let mut sum = v.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        sum = v.mul_add(sum, square, v.splat(*coefficient));
    }
    let small = v.mul_add(v.mul(square, sum), x, x);
    v.select_less(size, v.splat(SMALL), small, large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::instructions::{InstructionSet, MAX_LANES, Supported, VectorJob};

    /// Both of up to a vector of numbers.
    struct Both<'a>(&'a [f32]);

    impl VectorJob for Both<'_> {
        type Output = Vec<[f32; 2]>;

        fn run<V: Vectors>(self, v: V) -> Vec<[f32; 2]> {
            let mut results = Vec::new();
            for x in self.0.chunks(V::LANES) {
                let vector = v.load_slice(x);
                let [mut a, mut b] = [[0f32; MAX_LANES]; 2];
                v.store_slice(sigmoid(v, vector), &mut a[..V::LANES]);
                v.store_slice(tanh(v, vector), &mut b[..V::LANES]);
                results.extend(a.into_iter().zip(b).map(|(a, b)| [a, b]).take(x.len()));
            }
            results
        }
    }

    fn ulps(got: f32, want: f64) -> f64 {
        let nearest = (want as f32).abs();
        let unit = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
        (f64::from(got) - want).abs() / unit
    }

    #[test]
    fn errors_are_as_documented() {
        let magnitudes = (0..200_000).map(|step| 1.000_2f32.powi(step - 100_000));
        let x: Vec<f32> = magnitudes.filter(|x| *x < 86.0).flat_map(|x| [x, -x]).collect();
        for set in InstructionSet::available() {
            let mut worst = [0f64; 2];
            for (x, [s, t]) in x.iter().zip(Supported::new(set).unwrap().dispatch(Both(&x))) {
                let x = f64::from(*x);
                worst[0] = worst[0].max(ulps(s, 1.0 / (1.0 + (-x).exp())));
                worst[1] = worst[1].max(ulps(t, x.tanh()));
            }
            assert!(worst[0] <= 3.0 && worst[1] <= 3.0, "{set}: {worst:?} ulp");
        }
    }

    #[test]
    fn ends_of_the_range_are_right() {
        let x = [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, f32::NAN];
        for set in InstructionSet::available() {
            let results = Supported::new(set).unwrap().dispatch(Both(&x));
            let finite =
                [[1.0, 1.0], [0.0, -1.0], [1.0, 1.0], [0.0, -1.0], [0.5, 0.0], [0.5, -0.0]];
            assert_eq!(results[..6], finite, "{set}");
            assert!(results[6].iter().all(|value| value.is_nan()), "{set}");
        }
    }
}
