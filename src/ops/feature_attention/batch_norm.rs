//! A batch norm behind a linear layer, folded into the layer when a model is loaded.

use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::{HasLayout as _, Layout};
use crate::tensor::{Tensor, TensorRef};
use crate::validate::Validator;

const OP: &str = "batch_norm";

/// A trained batch norm over `out` features, in host memory.
///
/// `y = weight * (x - running_mean) / sqrt(running_var + eps) + bias`, the inference form of PyTorch's `BatchNorm1d`.
/// Vectors of `out` numbers in f32, f16 or bf16.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// Scale, `[out]`.
    pub weight: TensorRef<'a>,
    /// Shift, `[out]`.
    pub bias: TensorRef<'a>,
    /// Mean of the training data, `[out]`.
    pub running_mean: TensorRef<'a>,
    /// Variance of the training data, `[out]`.
    pub running_var: TensorRef<'a>,
    /// Added to the variance before its root.
    pub eps: f64,
}

impl BatchNorm<'_> {
    /// Weight and bias, in f32, of the linear layer that does what `weight [out, in]`, `bias [out]` and then the norm
    /// do: `W' = g W / sqrt(var + eps)` and `b' = g (b - mean) / sqrt(var + eps) + beta`, computed in f64 and rounded
    /// once.
    ///
    /// # Errors
    /// [`Problem::Shape`] and [`Problem::DType`] name the tensor; [`Problem::Value`] a variance that is negative or not a
    /// number, one that is 0 under an `eps` of 0, and an `eps` that is negative or not finite.
    pub fn fold(
        &self,
        weight: TensorRef<'_>,
        bias: Option<TensorRef<'_>>,
    ) -> Result<(Tensor, Tensor), Error> {
        let [rows, columns] = matrix_shape(weight)?;
        let vectors = [
            ("weight", Some(self.weight)),
            ("bias", Some(self.bias)),
            ("running_mean", Some(self.running_mean)),
            ("running_var", Some(self.running_var)),
            ("linear bias", bias),
        ];
        for (name, vector) in vectors {
            check_vector(name, vector, rows)?;
        }
        let mut folded = weight.to_f64();
        let mut folded_bias = bias.map_or(vec![0.0; rows], |bias| bias.to_f64());
        self.fold_f64(&mut folded, &mut folded_bias)?;
        Ok((
            Tensor::from_f64(Layout::contiguous(DType::F32, &[rows, columns])?, folded),
            Tensor::from_f64(Layout::contiguous(DType::F32, &[rows])?, folded_bias),
        ))
    }

    /// Folds the norm into a weight and a bias of as many rows as the norm has features.
    pub(crate) fn fold_f64(&self, weight: &mut [f64], bias: &mut [f64]) -> Result<(), Error> {
        let factors = self.factors()?;
        let columns = weight.len() / bias.len().max(1);
        for (row, weights) in weight.chunks_exact_mut(columns.max(1)).enumerate() {
            for weight in weights {
                *weight *= factors[row];
            }
        }
        let (beta, mean) = (self.bias.to_f64(), self.running_mean.to_f64());
        for (row, bias) in bias.iter_mut().enumerate() {
            *bias = factors[row] * (*bias - mean[row]) + beta[row];
        }
        Ok(())
    }

    /// `weight / sqrt(running_var + eps)`.
    fn factors(&self) -> Result<Vec<f64>, Error> {
        let value = |argument: &'static str, expected: &str, got: String| {
            Err(Error::argument(OP, argument, Problem::Value, expected, got, ""))
        };
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return value("eps", "a finite number of at least 0", self.eps.to_string());
        }
        let mut factors = Vec::new();
        for (row, (weight, variance)) in
            self.weight.to_f64().into_iter().zip(self.running_var.to_f64()).enumerate()
        {
            if variance.is_nan() || variance < 0.0 {
                let got = format!("{variance} at {row}");
                return value("running_var", "a variance of at least 0", got);
            }
            if variance + self.eps == 0.0 {
                let got = format!("0 at {row}, a division by zero");
                return value("running_var", "a variance above 0, since eps is 0", got);
            }
            factors.push(weight / (variance + self.eps).sqrt());
        }
        Ok(factors)
    }
}

fn matrix_shape(weight: TensorRef<'_>) -> Result<[usize; 2], Error> {
    let layout = weight.layout();
    let check = Validator::new(OP);
    check.float("linear weight", layout.dtype())?;
    match *layout.shape() {
        [rows, columns] => Ok([rows, columns]),
        ref got => {
            let got = format!("{got:?}");
            Err(Error::argument(OP, "linear weight", Problem::Shape, "[out, in]", got, ""))
        }
    }
}

fn check_vector(
    name: &'static str,
    vector: Option<TensorRef<'_>>,
    rows: usize,
) -> Result<(), Error> {
    let Some(layout) = vector.map(|vector| vector.layout()) else { return Ok(()) };
    let check = Validator::new(OP);
    check.float(name, layout.dtype())?;
    check.tensor(name, &layout, layout.dtype(), &[rows], "one value for each output of the layer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(data: &[f32]) -> TensorRef<'_> {
        TensorRef::new(data, &[data.len()]).unwrap()
    }

    fn norm<'a>(variance: &'a [f32], eps: f64) -> BatchNorm<'a> {
        BatchNorm {
            weight: vector(&[2.0, -3.0]),
            bias: vector(&[0.5, 0.25]),
            running_mean: vector(&[1.0, -2.0]),
            running_var: vector(variance),
            eps,
        }
    }

    const WEIGHT: [f32; 6] = [1.0, 2.0, 3.0, -4.0, 5.0, 6.0];

    #[test]
    fn folding_follows_the_formula() {
        // sqrt(3 + 1) = 2 and sqrt(8 + 1) = 3: factors 1 and -1.
        let norm = norm(&[3.0, 8.0], 1.0);
        let weight = TensorRef::new(&WEIGHT, &[2, 3]).unwrap();
        let (folded, bias) = norm.fold(weight, Some(vector(&[3.0, 1.0]))).unwrap();
        assert_eq!(folded.view().to_f64(), [1.0, 2.0, 3.0, 4.0, -5.0, -6.0]);
        // 1 (3 - 1) + 0.5 and -1 (1 + 2) + 0.25
        assert_eq!(bias.view().to_f64(), [2.5, -2.75]);
        let (_, bias) = norm.fold(weight, None).unwrap();
        assert_eq!(bias.view().to_f64(), [-0.5, -1.75]);
        assert_eq!((folded.layout().dtype(), folded.layout().shape()), (DType::F32, &[2, 3][..]));
    }

    #[test]
    fn a_variance_of_zero_is_fine_if_eps_is_not() {
        let weight = TensorRef::new(&WEIGHT, &[2, 3]).unwrap();
        let (folded, _) = norm(&[0.0, 0.0], 0.25).fold(weight, None).unwrap();
        assert_eq!(folded.view().to_f64()[..3], [4.0, 8.0, 12.0]);
    }

    #[test]
    fn each_mistake_is_named() {
        let weight = TensorRef::new(&WEIGHT, &[2, 3]).unwrap();
        let fold = |variance: &[f32], eps| norm(variance, eps).fold(weight, None).unwrap_err();
        let message = |error: Error| error.to_string();
        let error = fold(&[1.0, -1.0], 1e-6);
        assert_eq!(error.problem(), Some(Problem::Value));
        assert!(message(error).contains("-1 at 1"));
        assert!(message(fold(&[f32::NAN, 1.0], 1e-6)).contains("NaN at 0"));
        assert!(message(fold(&[1.0, 0.0], 0.0)).contains("0 at 1, a division by zero"));
        assert!(message(fold(&[1.0, 1.0], -1.0)).contains("eps"));
        assert!(message(fold(&[1.0, 1.0], f64::NAN)).contains("eps"));
        assert_eq!(fold(&[1.0, 1.0, 1.0], 1.0).problem(), Some(Problem::Shape));
        let norm = norm(&[1.0, 1.0], 1.0);
        let error = norm.fold(weight, Some(vector(&[1.0]))).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Shape));
        assert!(message(error).contains("linear bias"));
        let error = norm.fold(vector(&[1.0, 2.0]), None).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Shape));
        let integers = TensorRef::new(&[1u32; 6], &[2, 3]).unwrap();
        assert_eq!(norm.fold(integers, None).unwrap_err().problem(), Some(Problem::DType));
    }
}
