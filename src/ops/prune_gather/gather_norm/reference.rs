//! The scalar oracle of `gather_norm`.

use super::{GatherNorm, GatherNormArgs};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn gather_norm(
    op: &GatherNorm,
    mut args: GatherNormArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let values = values(op, &args.inputs());
    args.out.write_f64(values);
    Ok(())
}

/// Each element is one product, whose magnitude is its own.
pub(super) fn magnitude(op: &GatherNorm, args: &GatherNormArgs<TensorRef<'_>, Layout>) -> Vec<f64> {
    values(op, args).into_iter().map(f64::abs).collect()
}

fn values(op: &GatherNorm, args: &GatherNormArgs<TensorRef<'_>, Layout>) -> Vec<f64> {
    let indices = index_values(args.indices);
    let weight = args.norm_weight.map(|weight| weight.to_f64());
    let mut out = Vec::new();
    for x in args.x.to_f64().chunks_exact(op.features.max(1)) {
        let inverse_rms = op.norm.map(|norm| norm.inverse_rms(x, indices));
        out.extend(indices.iter().map(|&j| {
            let j = j as usize;
            match (&weight, inverse_rms) {
                (Some(weight), Some(inverse_rms)) => weight[j] * x[j] * inverse_rms,
                _ => x[j],
            }
        }));
    }
    out
}
