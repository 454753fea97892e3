//! The scalar oracle of `scatter_add`.

use super::{ScatterAdd, ScatterAddArgs};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn scatter_add(
    op: &ScatterAdd,
    mut args: ScatterAddArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let sum = scattered(&args.inputs(), |residual, y| residual + y);
    args.out.write_f64(sum);
    Ok(())
}

/// `|residual| + |y|`, as [`crate::Operation::magnitude`].
pub(super) fn magnitude(args: &ScatterAddArgs<TensorRef<'_>, Layout>) -> Vec<f64> {
    scattered(args, |residual, y| residual.abs() + y.abs())
}

fn scattered(
    args: &ScatterAddArgs<TensorRef<'_>, Layout>,
    add: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let indices = index_values(args.indices);
    let features = args.out.columns();
    let (mut out, y) = (args.residual.to_f64(), args.y.to_f64());
    for (place, y) in y.iter().enumerate() {
        let (row, index) = (place / indices.len(), indices[place % indices.len()] as usize);
        let out = &mut out[row * features + index];
        *out = add(*out, *y);
    }
    out
}
