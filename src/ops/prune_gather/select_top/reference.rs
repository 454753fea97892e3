//! The scalar oracle of `select_top`.

use super::{SelectTop, SelectTopArgs};
use crate::error::Error;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn select_top(
    op: &SelectTop,
    mut args: SelectTopArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let mut top = descending(&args.scores.to_f64());
    top.truncate(op.k);
    top.sort_unstable();
    args.indices.write_f64(top.into_iter().map(|index| index as f64));
    Ok(())
}

/// Positions by descending score, ties by ascending position. None of the scores is NaN.
pub(in crate::ops::prune_gather) fn descending(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Stable, and both zeros are equal.
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(std::cmp::Ordering::Equal));
    order
}
