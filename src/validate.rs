//! The checks that operations compose their validation from.

use std::fmt;

use crate::backend::cpu::packed_weight::{PackedWeight, WeightForm};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::ops::silu_mlp::MLP_DTYPES;

/// Largest extent of one dimension: kernels index rows and columns with 32-bit signed integers.
pub(crate) const MAX_DIMENSION: usize = i32::MAX as usize;

/// Checks arguments of one operation; every error names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validator {
    op: &'static str,
}

impl Validator {
    pub(crate) const fn new(op: &'static str) -> Validator {
        Validator { op }
    }

    /// A descriptor's extent.
    pub(crate) fn dimension(
        &self,
        name: &'static str,
        value: usize,
        minimum: usize,
    ) -> Result<(), Error> {
        let problem = if value < minimum {
            Problem::Value
        } else if value > MAX_DIMENSION {
            Problem::Size
        } else {
            return Ok(());
        };
        let expected = format!("{minimum} to {MAX_DIMENSION}");
        Err(Error::argument(self.op, name, problem, expected, value, ""))
    }

    /// A dtype that must be floating-point.
    pub(crate) fn float(&self, name: &'static str, dtype: DType) -> Result<(), Error> {
        if dtype.is_float() {
            return Ok(());
        }
        Err(Error::argument(self.op, name, Problem::DType, "f32, f16 or bf16", dtype, ""))
    }

    /// That no more features are selected than there are.
    pub(crate) fn subset(
        &self,
        name: &'static str,
        selected: usize,
        features: usize,
    ) -> Result<(), Error> {
        if selected <= features {
            return Ok(());
        }
        let expected = format!("at most {features} indices");
        let got = format!("{selected}");
        Err(self.error(name, Problem::Value, expected, got, "indices are strictly ascending"))
    }

    /// A type of weights that goes with this type of activations.
    pub(crate) fn weight_dtype(&self, activation: DType, weight: DType) -> Result<(), Error> {
        if MLP_DTYPES.contains(&(activation, weight)) {
            return Ok(());
        }
        let expected = format!("{activation} (or any with f32 activations)");
        let remedy = "convert the activations to f32 or the weights to the activations' type";
        Err(self.error("weight_dtype", Problem::DType, expected, weight, remedy))
    }

    /// A tensor of exactly this type and shape with unit inner stride and rows that do not overlap.
    pub(crate) fn tensor(
        &self,
        name: &'static str,
        layout: &Layout,
        dtype: DType,
        shape: &[usize],
        meaning: &'static str,
    ) -> Result<(), Error> {
        if layout.dtype() != dtype {
            return Err(self.error(name, Problem::DType, dtype, layout.dtype(), meaning));
        }
        if layout.shape() != shape {
            let (expected, got) = (format!("{shape:?}"), format!("{:?}", layout.shape()));
            return Err(self.error(name, Problem::Shape, expected, got, meaning));
        }
        self.strides(name, layout)
    }

    /// That a tensor has no gaps.
    pub(crate) fn contiguous(&self, name: &'static str, layout: &Layout) -> Result<(), Error> {
        if layout.is_contiguous() {
            return Ok(());
        }
        let got = format!("{:?}", layout.strides());
        Err(self.error(name, Problem::Stride, "no gaps between rows", got, ""))
    }

    /// How a weight lies. If it is packed, its `layout` becomes what it would be without gaps.
    pub(crate) fn weight_form(
        &self,
        name: &'static str,
        layout: &mut Layout,
        [rows, columns]: [usize; 2],
    ) -> Result<WeightForm, Error> {
        if layout.shape().len() < 3 {
            return Ok(WeightForm::AsTheyLie);
        }
        let dtype = layout.dtype();
        let packed = PackedWeight::layout(dtype, rows, columns)?;
        if layout.shape() != packed.shape() {
            let expected = format!("[{rows}, {columns}], or packed {:?}", packed.shape());
            let got = format!("{:?}", layout.shape());
            let remedy = "give the weight as it lies, or as PackedWeight makes it";
            return Err(self.error(name, Problem::Shape, expected, got, remedy));
        }
        self.contiguous(name, layout)?;
        *layout = Layout::contiguous(dtype, &[rows, columns])?;
        Ok(WeightForm::Packed)
    }

    /// That `name` is not packed where `other` is, or the other way round.
    pub(crate) fn mixed_packing(
        &self,
        name: &'static str,
        other: &'static str,
        others: WeightForm,
    ) -> Error {
        let (expected, got) = match others {
            WeightForm::Packed => ("packed", "as it lies"),
            WeightForm::AsTheyLie => ("as it lies", "packed"),
        };
        let expected = format!("{expected}, as {other} is");
        let remedy = "pack all weights of the operation, or none";
        self.error(name, Problem::Shape, expected, got, remedy)
    }

    /// An optional tensor: checked like [`Validator::tensor`] if it is there.
    pub(crate) fn optional_tensor(
        &self,
        name: &'static str,
        layout: &Option<Layout>,
        dtype: DType,
        shape: &[usize],
        meaning: &'static str,
    ) -> Result<(), Error> {
        match layout {
            Some(layout) => self.tensor(name, layout, dtype, shape, meaning),
            None => Ok(()),
        }
    }

    /// The number of rows of a `[M, columns]` tensor, which the caller does not know beforehand.
    pub(crate) fn rows(
        &self,
        name: &'static str,
        layout: &Layout,
        columns: usize,
        meaning: &'static str,
    ) -> Result<usize, Error> {
        match *layout.shape() {
            [rows, got] if got == columns => {
                self.dimension("rows", rows, 0)?;
                Ok(rows)
            }
            ref got => {
                let (expected, got) = (format!("[M, {columns}]"), format!("{got:?}"));
                Err(self.error(name, Problem::Shape, expected, got, meaning))
            }
        }
    }

    /// That an optional tensor is there exactly if the descriptor asks for it.
    pub(crate) fn presence(
        &self,
        name: &'static str,
        present: bool,
        wanted: bool,
        remedy: &'static str,
    ) -> Result<(), Error> {
        match (present, wanted) {
            (true, false) => Err(self.error(name, Problem::Unexpected, "none", "a tensor", remedy)),
            (false, true) => Err(self.error(name, Problem::Missing, "a tensor", "none", remedy)),
            _ => Ok(()),
        }
    }

    fn strides(&self, name: &'static str, layout: &Layout) -> Result<(), Error> {
        if !layout.has_unit_inner_stride() {
            let got = format!("{:?}", layout.strides());
            let remedy = "make the tensor contiguous along its last dimension";
            return Err(self.error(name, Problem::Stride, "an inner stride of 1", got, remedy));
        }
        let mut inner_span = layout.columns();
        for (axis, (&length, &stride)) in
            layout.shape().iter().zip(layout.strides()).enumerate().rev().skip(1)
        {
            if length > 1 && stride < inner_span {
                let expected = format!("stride {axis} of at least {inner_span}");
                let got = format!("{:?}", layout.strides());
                return Err(self.error(
                    name,
                    Problem::Stride,
                    expected,
                    got,
                    "rows must not overlap",
                ));
            }
            // Saturates for empty tensors only, whose strides are never followed.
            inner_span = length.saturating_sub(1).saturating_mul(stride).saturating_add(inner_span);
        }
        Ok(())
    }

    fn error(
        &self,
        name: &'static str,
        problem: Problem,
        expected: impl fmt::Display,
        got: impl fmt::Display,
        remedy: &'static str,
    ) -> Error {
        Error::argument(self.op, name, problem, expected, got, remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: Validator = Validator::new("test");

    fn problem(layout: Layout) -> Option<Problem> {
        CHECK.tensor("x", &layout, DType::F32, &[2, 3], "").err()?.problem()
    }

    #[test]
    fn each_mistake_has_its_own_problem() {
        let strided = |strides| Layout::strided(DType::F32, &[2, 3], strides).unwrap();
        assert_eq!(problem(strided(&[3, 1])), None);
        assert_eq!(problem(strided(&[7, 1])), None);
        assert_eq!(problem(strided(&[2, 1])), Some(Problem::Stride));
        assert_eq!(problem(strided(&[0, 1])), Some(Problem::Stride));
        assert_eq!(problem(strided(&[1, 2])), Some(Problem::Stride));
        let contiguous = |dtype, shape| Layout::contiguous(dtype, shape).unwrap();
        assert_eq!(problem(contiguous(DType::F16, &[2, 3])), Some(Problem::DType));
        assert_eq!(problem(contiguous(DType::F32, &[3, 2])), Some(Problem::Shape));
        assert_eq!(problem(contiguous(DType::F32, &[6])), Some(Problem::Shape));
    }

    #[test]
    fn strides_of_single_rows_and_columns_do_not_matter() {
        let layout = Layout::strided(DType::F32, &[1, 1], &[0, 9]).unwrap();
        CHECK.tensor("x", &layout, DType::F32, &[1, 1], "").unwrap();
    }

    #[test]
    fn strides_of_empty_tensors_may_be_anything() {
        let layout = Layout::strided(DType::F32, &[0, 3, 2], &[1, usize::MAX / 2, 1]).unwrap();
        let result = CHECK.tensor("x", &layout, DType::F32, &[0, 3, 2], "");
        assert!(result.is_ok(), "{result:?}");
    }

    #[test]
    fn rows_are_read_off_the_tensor() {
        let layout = Layout::contiguous(DType::F32, &[5, 3]).unwrap();
        assert_eq!(CHECK.rows("x", &layout, 3, "").unwrap(), 5);
        assert_eq!(CHECK.rows("x", &layout, 4, "").unwrap_err().problem(), Some(Problem::Shape));
    }

    #[test]
    fn dimensions_stay_in_32_bits() {
        assert!(CHECK.dimension("hidden", MAX_DIMENSION, 1).is_ok());
        let error = CHECK.dimension("hidden", MAX_DIMENSION + 1, 1).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Size));
        let error = CHECK.dimension("hidden", 0, 1).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Value));
    }
}
