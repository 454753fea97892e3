//! How far a result may be from the oracle's.

use crate::dtype::DType;

/// The permitted error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// The same bits.
    Exact,
    /// `|error| <= inner * magnitude + outer * |expected|` for each element, and
    /// `sum error^2 <= nmse * sum expected^2` for the whole, where `magnitude` is the sum of the
    /// magnitudes of the products that an element is made of.
    ///
    /// The first catches a wrong element, the second an error that is small everywhere but systematic.
    Rounded {
        /// Relative error of each product and intermediate result.
        inner: f64,
        /// Relative error of the last rounding.
        outer: f64,
        /// Normalised mean square error.
        nmse: f64,
    },
}

/// A result against the oracle's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Elements compared.
    pub elements: usize,
    /// Largest `|error|` among finite elements.
    pub max_absolute_error: f64,
    /// Largest `|error|` as a share of what the element's bound permits; above 1 fails.
    pub worst_share: f64,
    /// Normalised mean square error over elements that are finite in both.
    pub nmse: f64,
    /// The first element over its bound: index, result, expected.
    pub first_failure: Option<(usize, f64, f64)>,
}

impl Comparison {
    /// Compares elements in row-major order. `magnitude` may be empty for [`Tolerance::Exact`].
    pub fn new(
        tolerance: Tolerance,
        dtype: DType,
        result: &[f64],
        expected: &[f64],
        magnitude: &[f64],
    ) -> Comparison {
        assert_eq!(result.len(), expected.len(), "results and expectations of one shape");
        let mut comparison = Comparison { elements: result.len(), ..Comparison::default() };
        let (mut error_square, mut expected_square) = (0.0, 0.0);
        for (index, (&got, &want)) in result.iter().zip(expected).enumerate() {
            let bound = match tolerance {
                Tolerance::Exact => 0.0,
                Tolerance::Rounded { inner, outer, .. } => {
                    inner * magnitude[index] + outer * want.abs() + smallest_step(dtype)
                }
            };
            let share = share_of_bound(dtype, got, want, bound);
            if share > 1.0 && comparison.first_failure.is_none() {
                comparison.first_failure = Some((index, got, want));
            }
            comparison.worst_share = comparison.worst_share.max(share);
            if got.is_finite() && want.is_finite() {
                let error = (got - want).abs();
                comparison.max_absolute_error = comparison.max_absolute_error.max(error);
                error_square += error * error;
                expected_square += want * want;
            }
        }
        comparison.nmse = if error_square == 0.0 { 0.0 } else { error_square / expected_square };
        comparison
    }

    /// Whether the tolerance holds.
    pub fn passes(&self, tolerance: Tolerance) -> bool {
        let nmse_limit = match tolerance {
            Tolerance::Exact => 0.0,
            Tolerance::Rounded { nmse, .. } => nmse,
        };
        self.worst_share <= 1.0 && self.nmse <= nmse_limit
    }
}

/// How much of its bound an element's error takes up; infinite where no bound can be met.
fn share_of_bound(dtype: DType, got: f64, want: f64, bound: f64) -> f64 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() == want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == want {
        return 0.0;
    }
    if got.is_infinite() || want.is_infinite() {
        // Either may have overflowed where the other stayed just below the largest finite value.
        let both_large = got.signum() == want.signum()
            && got.abs() + bound >= largest(dtype)
            && want.abs() + bound >= largest(dtype);
        return if both_large { 0.0 } else { f64::INFINITY };
    }
    if bound == 0.0 { f64::INFINITY } else { (got - want).abs() / bound }
}

fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 65504.0,
        DType::BF16 => 3.3895e38,
        _ => f64::from(f32::MAX),
    }
}

/// Below the smallest normal number, errors are absolute; a device may also flush to zero there.
fn smallest_step(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-14),
        _ => f64::from(f32::MIN_POSITIVE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDED: Tolerance = Tolerance::Rounded { inner: 1e-3, outer: 0.0, nmse: 1e-4 };

    fn passes(tolerance: Tolerance, got: f64, want: f64) -> bool {
        Comparison::new(tolerance, DType::F32, &[got], &[want], &[want.abs()]).passes(tolerance)
    }

    #[test]
    fn errors_within_the_bound_pass_and_others_fail() {
        assert!(passes(ROUNDED, 1.0005, 1.0));
        assert!(!passes(ROUNDED, 1.002, 1.0));
        assert!(!passes(ROUNDED, 0.0, 1.0));
        assert!(passes(Tolerance::Exact, 1.0, 1.0) && !passes(Tolerance::Exact, 1.0 + 1e-15, 1.0));
    }

    #[test]
    fn nan_matches_only_nan_and_infinity_only_itself() {
        assert!(passes(ROUNDED, f64::NAN, f64::NAN));
        assert!(!passes(ROUNDED, f64::NAN, 1.0) && !passes(ROUNDED, 1.0, f64::NAN));
        assert!(passes(ROUNDED, f64::INFINITY, f64::INFINITY));
        assert!(!passes(ROUNDED, f64::NEG_INFINITY, f64::INFINITY));
        assert!(!passes(ROUNDED, f64::INFINITY, 1.0));
    }

    #[test]
    fn small_systematic_errors_fail_by_their_mean_square() {
        let want = vec![1.0; 100];
        let got = vec![1.0009; 100];
        let strict = Tolerance::Rounded { inner: 1e-3, outer: 0.0, nmse: 1e-7 };
        let comparison = Comparison::new(strict, DType::F32, &got, &want, &want);
        assert!(comparison.worst_share <= 1.0 && !comparison.passes(strict));
    }
}
