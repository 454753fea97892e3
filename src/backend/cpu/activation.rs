//! `sigmoid` and `tanh` in vectors. Both are right at either infinity, and a NaN stays one.

use super::instructions::Vectors;
use super::silu::exp_of_negative;

/// `1 / (1 + exp(-x))`, within 3 ulp; zero below -87.
///
/// The exponential of `-|x|` never overflows; below zero it is the numerator, so that a small result is as exact as a
/// large one.
#[inline(always)]
pub(crate) fn sigmoid<V: Vectors>(v: V, x: V::Vector) -> V::Vector {
    let [above, below] = sigmoid_parts(v, x);
    v.div(above, below)
}

/// [`sigmoid`] of two, within 4 ulp, by one division; where either is NaN, both are.
#[inline(always)]
pub(crate) fn sigmoids<V: Vectors>(v: V, [a, b]: [V::Vector; 2]) -> [V::Vector; 2] {
    let [above_a, below_a] = sigmoid_parts(v, a);
    let [above_b, below_b] = sigmoid_parts(v, b);
    let inverse = v.div(v.splat(1.0), v.mul(below_a, below_b));
    [v.mul(above_a, v.mul(below_b, inverse)), v.mul(above_b, v.mul(below_a, inverse))]
}

/// Numerator and denominator of [`sigmoid`]; the latter is between 1 and 2.
#[inline(always)]
fn sigmoid_parts<V: Vectors>(v: V, x: V::Vector) -> [V::Vector; 2] {
    let (zero, one) = (v.splat(0.0), v.splat(1.0));
    let e = exp_of_negative(v, v.sub(zero, v.abs(x)));
    [v.select_less(x, zero, e, one), v.add(one, e)]
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

    /// All of some numbers: [`sigmoid`], [`tanh`] and [`sigmoids`] of it and of half of it.
    struct All<'a>(&'a [f32]);

    impl VectorJob for All<'_> {
        type Output = Vec<[f32; 4]>;

        fn run<V: Vectors>(self, v: V) -> Vec<[f32; 4]> {
            let mut results = Vec::new();
            for x in self.0.chunks(V::LANES) {
                let vector = v.load_slice(x);
                let [first, second] = sigmoids(v, [vector, v.mul(vector, v.splat(0.5))]);
                let mut lanes = [[0f32; MAX_LANES]; 4];
                for (result, lanes) in
                    [sigmoid(v, vector), tanh(v, vector), first, second].into_iter().zip(&mut lanes)
                {
                    v.store_slice(result, &mut lanes[..V::LANES]);
                }
                results.extend((0..x.len()).map(|lane| lanes.map(|lanes| lanes[lane])));
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
            let mut worst = [0f64; 4];
            for (x, got) in x.iter().zip(Supported::new(set).unwrap().dispatch(All(&x))) {
                let (x, half) = (f64::from(*x), f64::from(*x * 0.5));
                let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
                let want = [sigmoid(x), x.tanh(), sigmoid(x), sigmoid(half)];
                for (worst, (got, want)) in worst.iter_mut().zip(got.into_iter().zip(want)) {
                    *worst = worst.max(ulps(got, want));
                }
            }
            let limits = [3.0, 3.0, 4.0, 4.0];
            assert!(
                worst.iter().zip(limits).all(|(worst, limit)| *worst <= limit),
                "{set}: {worst:?} ulp"
            );
        }
    }

    #[test]
    fn ends_of_the_range_are_right() {
        let x = [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, f32::NAN];
        for set in InstructionSet::available() {
            let results = Supported::new(set).unwrap().dispatch(All(&x));
            let finite =
                [[1.0, 1.0], [0.0, -1.0], [1.0, 1.0], [0.0, -1.0], [0.5, 0.0], [0.5, -0.0]];
            assert_eq!(results[..6], finite.map(|[s, t]| [s, t, s, s]), "{set}");
            assert!(results[6].iter().all(|value| value.is_nan()), "{set}");
        }
    }
}
