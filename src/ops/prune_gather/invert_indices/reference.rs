//! The scalar oracle of `invert_indices`.

use super::{InvertIndices, InvertIndicesArgs};
use crate::error::Error;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn invert_indices(
    op: &InvertIndices,
    mut args: InvertIndicesArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    let indices = args.indices.to_f64();
    let first_invalid = (0..indices.len()).find(|&position| {
        let is_above = position == 0 || indices[position] > indices[position - 1];
        indices[position] >= op.features as f64 || !is_above
    });
    let mut rank = vec![-1.0; op.features];
    if first_invalid.is_none() {
        for (position, &index) in indices.iter().enumerate() {
            rank[index as usize] = position as f64;
        }
    }
    args.rank.write_f64(rank);
    if let Some(tensor) = &mut args.first_invalid {
        tensor.write_f64([first_invalid.map_or(-1.0, |position| position as f64)]);
    }
    Ok(())
}
