//! What the operations that choose elements share: lists of indices whose length the data decides, and the k largest of
//! many scores.

use crate::device::NamedTensors;
use crate::error::{Error, Problem};
use crate::layout::{HasLayout as _, Layout};
use crate::operation::NamedLayouts;
use crate::tensor::Tensor;

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
