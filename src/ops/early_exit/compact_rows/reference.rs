//! The scalar oracle of `compact_rows`.

use super::{CompactRows, CompactRowsArgs};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn compact_rows(
    op: &CompactRows,
    mut args: CompactRowsArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    let x = args.x.to_f64();
    let (rows, features) = (args.x.layout().shape()[0], op.features());
    let permutation = args.permutation.to_f64();
    let count = args.count.map_or(f64::INFINITY, |count| count.to_f64()[0]);
    let mut compacted = Vec::new();
    for (place, &row) in permutation.iter().enumerate() {
        if (place as f64) < count && row >= 0.0 && row < rows as f64 {
            compacted.extend_from_slice(&x[row as usize * features..][..features]);
        } else {
            compacted.resize(compacted.len() + features, 0.0);
        }
    }
    args.compacted.write_f64(compacted);
    Ok(())
}
