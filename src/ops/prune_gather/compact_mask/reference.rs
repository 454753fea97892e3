//! The scalar oracle of `compact_mask`.

use super::{CompactMask, CompactMaskArgs};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection::NO_INDEX;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn compact_mask(
    op: &CompactMask,
    mut args: CompactMaskArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    let mask = args.mask.to_f64();
    let (mut indices, mut rank, mut count) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..op.masks(&args.mask.layout())? {
        let mask = &mask[row * op.features..][..op.features];
        let mut members = 0.0;
        for (index, &byte) in mask.iter().enumerate() {
            if byte != 0.0 {
                indices.push(index as f64);
                rank.push(members);
                members += 1.0;
            } else {
                rank.push(-1.0);
            }
        }
        indices.resize((row + 1) * op.features, f64::from(NO_INDEX));
        count.push(members);
    }
    args.indices.write_f64(indices);
    if let Some(tensor) = &mut args.rank {
        tensor.write_f64(rank);
    }
    if let Some(tensor) = &mut args.count {
        tensor.write_f64(count);
    }
    Ok(())
}
