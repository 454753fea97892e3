//! The one case list that tests, `siluette verify` and the benches run, on every backend.
//!
//! Not part of the crate's stable interface.

mod cases;
mod random;
mod run;
mod tolerance;

pub use cases::{cases, cases_for, tolerance_for};
pub(crate) use random::list_lengths;
pub use run::{Oracle, Outcome, Status, packed_weights};
pub use tolerance::{Comparison, Tolerance};

use crate::device::NamedTensors;
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::parameters::Parameters;
use crate::tensor::Tensor;

/// One operation on one set of inputs.
#[derive(Clone, Debug)]
pub struct Case {
    /// The operation.
    pub op: &'static str,
    /// What is special about the case; unique within operation, dtype and purpose.
    pub name: String,
    /// Element types in short: that of the activations, or `activations/weights`.
    pub dtype: String,
    /// Whether to verify or to measure it.
    pub purpose: Purpose,
    /// Inputs, by description.
    pub tensors: Vec<TensorSpec>,
    /// Parameters, as on the command line.
    pub parameters: Parameters,
    /// Elements between the rows of every output.
    pub output_gap: usize,
    /// How exact the result must be.
    pub tolerance: Tolerance,
}

/// What a case is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Small, with an expected result.
    Conformance,
    /// Of a real model's size; too large for the scalar oracle.
    Bench,
}

/// An input, by description.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// The argument.
    pub name: &'static str,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Elements between rows.
    pub gap: usize,
    /// Values.
    pub fill: Fill,
}

/// How an input's values are drawn, always from the same seed for the same case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Normally distributed around 0.
    Normal {
        /// Standard deviation.
        scale: f64,
    },
    /// Normally distributed around 1: norm weights.
    AroundOne {
        /// Standard deviation.
        scale: f64,
    },
    /// Normally distributed, with one element in 64 a thousand times as large: real activations.
    Outliers {
        /// Standard deviation of the others.
        scale: f64,
    },
    /// Cycles through zeros of both signs, the type's largest and smallest magnitudes and what lies
    /// between.
    Extremes,
    /// Strictly ascending members of `0..below`, spread over all of it.
    Ascending {
        /// One more than the largest.
        below: usize,
    },
    /// The inverse of the tensor `of`, which holds `count` such members of as many features as this tensor has
    /// elements.
    Rank {
        /// The tensor of indices.
        of: &'static str,
        /// Its length.
        count: usize,
    },
    /// Small integers, from -2 to 2, times a power of two: sums of their products are exact in f32, in any order.
    Steps {
        /// The power of two.
        step: f64,
    },
    /// Strictly ascending members of `0..below`, a list for each of `rows` rows; rows differ in length, from none to all.
    Lists {
        /// How many lists.
        rows: usize,
        /// One more than the largest member.
        below: usize,
        /// What share of `0..below` the first list has, and others of its length.
        share: f64,
    },
    /// Where such lists start, and where the last ends.
    ListOffsets {
        /// As in [`Fill::Lists`].
        rows: usize,
        /// As in [`Fill::Lists`].
        below: usize,
        /// As in [`Fill::Lists`].
        share: f64,
    },
    /// Whole numbers from `from` up to, but not including, `below`, all as likely.
    Integers {
        /// The least.
        from: i32,
        /// One more than the largest.
        below: i32,
    },
    /// Links of random trees of drafts, one for each list of these lengths: first children by row, which are one more than
    /// drafts, or next siblings by draft.
    TreeLinks {
        /// As in [`Fill::Lists`].
        rows: usize,
        /// As in [`Fill::Lists`].
        below: usize,
        /// As in [`Fill::Lists`].
        share: f64,
        /// Next siblings; otherwise first children.
        siblings: bool,
    },
    /// Different members of `0..below`, or of as many as the tensor has elements if that is more, in no order.
    Permutation {
        /// One more than the largest.
        below: usize,
    },
    /// Strictly ascending members of `0..below` in each row; in every fourth row half as many, then -1.
    Paths {
        /// One more than the largest.
        below: usize,
    },
    /// Normally distributed, with NaN and both infinities in every seven elements.
    NotFinite {
        /// Standard deviation of the others.
        scale: f64,
    },
    /// `state_values`, or `state_tokens` that go with them, of tiles of random logits: the tensor's shape says of how
    /// many tiles, rows and best tokens. One tile in eight is masked.
    ExitStates,
    /// One number throughout.
    Constant {
        /// The number.
        value: f64,
    },
    /// Multiples of 2^-24 from 0 up to, but not including, 1.
    Uniform,
    /// Rows of probabilities that are multiples of `2^-steps`, many of them 0, and add up to 1.
    Probabilities {
        /// Their fraction bits.
        steps: u32,
    },
    /// Bytes, or factors, this share of which are not 0; factors are then 1.
    Mask {
        /// From 0 to 1.
        share: f64,
    },
}

impl Case {
    /// The inputs. Elements in the gaps between rows are NaN.
    ///
    /// # Errors
    /// A shape that no layout can hold.
    pub fn inputs(&self) -> Result<NamedTensors, Error> {
        self.tensors
            .iter()
            .map(|spec| {
                let source = match spec.fill {
                    Fill::Rank { of, .. } => of,
                    Fill::ExitStates => "states",
                    Fill::TreeLinks { .. } => "links",
                    _ => spec.name,
                };
                let seed = random::seed(&[self.op, &self.name, &self.dtype, source]);
                Ok((spec.name.to_owned(), spec.draw(seed)?))
            })
            .collect()
    }
}

impl TensorSpec {
    /// The tensor that a seed gives; elements in the gaps between rows are NaN.
    ///
    /// # Errors
    /// A shape that no layout can hold.
    pub fn draw(&self, seed: u64) -> Result<Tensor, Error> {
        let layout = with_gap(&Layout::contiguous(self.dtype, &self.shape)?, self.gap)?;
        let mut tensor = Tensor::zeros(layout);
        poison(&mut tensor);
        let values = random::values(seed, self.fill, &layout);
        tensor.view_mut().write_f64(values);
        Ok(tensor)
    }
}

/// The layout with `gap` more elements between rows.
pub(crate) fn with_gap(layout: &Layout, gap: usize) -> Result<Layout, Error> {
    let mut strides = vec![1; layout.shape().len()];
    let mut stride = layout.columns() + gap;
    for (axis, &length) in layout.shape().iter().enumerate().rev().skip(1) {
        strides[axis] = stride;
        stride *= length.max(1);
    }
    Layout::strided(layout.dtype(), layout.shape(), &strides)
}

/// Sets every bit: NaN in every floating-point type, out of range in every index type.
pub(crate) fn poison(tensor: &mut Tensor) {
    tensor.span_bytes_mut().fill(0xFF);
}
