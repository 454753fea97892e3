//! What the operations that choose elements share: lists of indices whose length the data decides, and the k largest of
//! many scores.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod host_scores;
mod scratch;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

use crate::device::NamedTensors;
use crate::error::{Error, Problem};
use crate::layout::{HasLayout as _, Layout};
use crate::operation::NamedLayouts;
use crate::tensor::{Tensor, TensorRef, with_float};
use crate::validate::Validator;

pub(crate) use host_scores::{HostScores, ScoreKey};
pub(crate) use scratch::Scratch;

/// What fills a list of indices behind its last one; no index is as large.
pub(crate) const NO_INDEX: u32 = u32::MAX;

/// The layout of an input that [`describe`](crate::Operation::describe) cannot do without.
pub(crate) fn input(
    op: &'static str,
    inputs: &NamedLayouts,
    name: &'static str,
) -> Result<Layout, Error> {
    inputs
        .get(name)
        .copied()
        .ok_or_else(|| Error::argument(op, name, Problem::Missing, "a tensor", "none", ""))
}

/// Cuts the output `indices`, if it is one list, where its filler starts.
pub(crate) fn trim_indices(outputs: &mut NamedTensors) -> Result<(), Error> {
    let Some(indices) = outputs.get_mut("indices") else { return Ok(()) };
    if indices.layout().shape().len() != 1 {
        return Ok(());
    }
    let view = indices.view();
    let values: &[u32] = view.as_slice().unwrap_or_default();
    let count = values.iter().position(|&index| index == NO_INDEX).unwrap_or(values.len());
    let trimmed = Tensor::from_slice(&values[..count], &[count])?;
    *indices = trimmed;
    Ok(())
}

/// The number of elements of a tensor that is looked at by flat index: `[n]` or `[R, C]`.
pub(crate) fn flat_elements(
    op: &'static str,
    name: &'static str,
    layout: &Layout,
) -> Result<usize, Error> {
    if !matches!(layout.shape().len(), 1 | 2) {
        let got = format!("{:?}", layout.shape());
        return Err(Error::argument(op, name, Problem::Shape, "[n] or [R, C]", got, ""));
    }
    Validator::new(op).dimension("elements", layout.elements(), 0)?;
    Ok(layout.elements())
}

/// That no score is NaN, which has no place among the others.
pub(crate) fn check_scores(
    op: &'static str,
    name: &'static str,
    scores: TensorRef<'_>,
) -> Result<(), Error> {
    with_float!(scores.layout().dtype(), T => {
        let scores = HostScores::<T>::new(scores);
        match scores.first_nan() {
            None => Ok(()),
            Some(position) => {
                let got = format!("NaN at position {position}");
                Err(Error::argument(op, name, Problem::Value, "numbers", got, ""))
            }
        }
    })
}
