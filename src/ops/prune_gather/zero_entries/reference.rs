//! The scalar oracle of `zero_entries`.

use super::{ZeroEntries, ZeroEntriesArgs, matrix};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef, with_float};

pub(super) fn zero_entries(
    op: &ZeroEntries,
    mut args: ZeroEntriesArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let used = op.used(args.indices, args.count)?;
    let (from, to) = (args.weight.layout(), args.out.layout());
    let [rows, columns] = matrix(&from);
    with_float!(op.dtype, T => {
        // Of another type they would have been refused.
        let weight: &[T] = args.weight.as_slice().unwrap_or_default();
        let out: &mut [T] = args.out.as_mut_slice().unwrap_or_default();
        for row in 0..rows {
            for column in 0..columns {
                out[row * to.row_stride() + column] = weight[row * from.row_stride() + column];
            }
        }
        for &index in used {
            let (row, column) = (index as usize / columns, index as usize % columns);
            out[row * to.row_stride() + column] = T::default();
        }
    });
    Ok(())
}
