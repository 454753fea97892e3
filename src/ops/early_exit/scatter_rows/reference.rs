//! The scalar oracle of `scatter_rows`.

use super::{ScatterRows, ScatterRowsArgs};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef, with_float};

pub(super) fn scatter_rows(
    op: &ScatterRows,
    mut args: ScatterRowsArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let (from, to) = (args.rows.layout(), args.destination.layout());
    let permutation = args.permutation.to_f64();
    let count = args.count.map_or(f64::INFINITY, |count| count.to_f64()[0]);
    with_float!(op.dtype(), T => {
        let rows: &[T] = args.rows.as_slice().unwrap_or_default();
        let destination: &mut [T] = args.destination.as_mut_slice().unwrap_or_default();
        for (place, &row) in permutation.iter().enumerate() {
            if (place as f64) < count && row >= 0.0 && row < to.shape()[0] as f64 {
                for column in 0..op.features() {
                    let value = rows[place * from.row_stride() + column];
                    destination[row as usize * to.row_stride() + column] = value;
                }
            }
        }
    });
    Ok(())
}
