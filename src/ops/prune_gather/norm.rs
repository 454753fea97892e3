//! The RMS norm that selects features: which of them its statistics are over.

use super::NormScope;
use crate::error::{Error, Problem};
use crate::ops::silu_mlp::mlp::config::{EPS, NORM_SCOPE, NormEpsilon};
use crate::parameters::Parameters;

/// What an RMS norm needs to know besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Norm {
    epsilon: NormEpsilon,
    pub scope: NormScope,
}

impl Norm {
    pub fn new(op: &'static str, eps: f32, scope: NormScope) -> Result<Norm, Error> {
        if !(eps.is_finite() && eps >= 0.0) {
            let expected = "a finite number of at least 0";
            return Err(Error::argument(op, EPS.name, Problem::Value, expected, eps, ""));
        }
        Ok(Norm { epsilon: NormEpsilon(eps), scope })
    }

    /// The norm that the parameters describe, if there is a weight for it.
    pub fn describe(
        op: &'static str,
        present: bool,
        parameters: &Parameters,
    ) -> Result<Option<Norm>, Error> {
        let eps: Option<f32> = parameters.parse(op, &EPS)?;
        let scope = parameters.choose(op, &NORM_SCOPE, &NormScope::CHOICES)?;
        if present {
            return Norm::new(op, eps.unwrap_or(1e-5), scope.unwrap_or_default()).map(Some);
        }
        match (eps, scope) {
            (None, None) => Ok(None),
            _ => Err(Error::argument(
                op,
                "norm_weight",
                Problem::Missing,
                "a tensor",
                "none",
                "eps and norm_scope belong to the norm",
            )),
        }
    }

    pub fn eps(&self) -> f32 {
        self.epsilon.0
    }

    /// What the sum of squares is divided by.
    pub fn divisor(&self, features: usize, selected: usize) -> usize {
        match self.scope {
            NormScope::Selected => selected,
            NormScope::Full | NormScope::SelectedSumOverD => features,
        }
    }

    /// `1 / rms` of a row, for the scalar oracles.
    pub fn inverse_rms(&self, row: &[f64], indices: &[u32]) -> f64 {
        let sum: f64 = match self.scope {
            NormScope::Full => row.iter().map(|x| x * x).sum(),
            _ => indices.iter().map(|&j| row[j as usize] * row[j as usize]).sum(),
        };
        let mean_square = sum / self.divisor(row.len(), indices.len()) as f64;
        1.0 / (mean_square + f64::from(self.eps())).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_norm_need_its_weight() {
        let none = Parameters::new();
        assert_eq!(Norm::describe("op", false, &none).unwrap(), None);
        let default = Norm::describe("op", true, &none).unwrap().unwrap();
        assert_eq!((default.eps(), default.scope), (1e-5, NormScope::Full));
        for parameters in [none.clone().with("eps", "1"), none.with("norm_scope", "selected")] {
            assert!(Norm::describe("op", true, &parameters).is_ok());
            let error = Norm::describe("op", false, &parameters).unwrap_err();
            assert_eq!(error.problem(), Some(Problem::Missing));
        }
        for eps in [-1.0, f32::NAN, f32::INFINITY] {
            let error = Norm::new("op", eps, NormScope::Full).unwrap_err();
            assert_eq!(error.problem(), Some(Problem::Value));
        }
    }

    #[test]
    fn scopes_differ_in_what_is_summed_and_what_it_is_divided_by() {
        let row = [3.0, 1.0, 2.0, 0.0];
        let rms = |scope, indices: &[u32]| {
            Norm::new("op", 0.0, scope).unwrap().inverse_rms(&row, indices).powi(-2)
        };
        assert!((rms(NormScope::Full, &[0, 2]) - 14.0 / 4.0).abs() < 1e-12);
        assert!((rms(NormScope::Selected, &[0, 2]) - 13.0 / 2.0).abs() < 1e-12);
        assert!((rms(NormScope::SelectedSumOverD, &[0, 2]) - 13.0 / 4.0).abs() < 1e-12);
    }
}
