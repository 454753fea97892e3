//! The scalar oracle of `scatter_norm_gather`.

use super::{ScatterNormGather, ScatterNormGatherArgs};
use crate::dtype::{DType, Float, bf16, f16};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn scatter_norm_gather(
    op: &ScatterNormGather,
    mut args: ScatterNormGatherArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let sum = scattered(&args.inputs(), |residual, y| residual + y);
    let gathered = gathered(op, &args.inputs(), &sum);
    args.residual_out.write_f64(sum);
    args.gathered.write_f64(gathered);
    Ok(())
}

/// `|residual| + |y|` of the sum; of what is gathered, its own and a share of the sum's terms.
pub(super) fn magnitude(
    op: &ScatterNormGather,
    args: &ScatterNormGatherArgs<TensorRef<'_>, Layout>,
    name: &str,
) -> Vec<f64> {
    let terms = scattered(args, |residual, y| residual.abs() + y.abs());
    if name == "residual_out" {
        return terms;
    }
    // An error in a term of the sum is scaled as the sum is.
    let sum = scattered(args, |residual, y| residual + y);
    let weight = args.norm_weight.to_f64();
    let indices = index_values(args.in_indices);
    let mut magnitudes = Vec::new();
    for (row, terms) in sum.chunks_exact(op.features).zip(terms.chunks_exact(op.features)) {
        let inverse_rms = op.norm.inverse_rms(row, indices);
        let of = |&j: &u32| (weight[j as usize] * terms[j as usize] * inverse_rms).abs();
        magnitudes.extend(indices.iter().map(of));
    }
    magnitudes
}

/// The norm of what a separate norm would read: the sum, rounded to the activations' type.
fn gathered(
    op: &ScatterNormGather,
    args: &ScatterNormGatherArgs<TensorRef<'_>, Layout>,
    sum: &[f64],
) -> Vec<f64> {
    let weight = args.norm_weight.to_f64();
    let indices = index_values(args.in_indices);
    let mut out = Vec::new();
    for row in sum.chunks_exact(op.features) {
        let row: Vec<f64> = row.iter().map(|&value| round(op.dtype, value)).collect();
        let inverse_rms = op.norm.inverse_rms(&row, indices);
        out.extend(indices.iter().map(|&j| weight[j as usize] * row[j as usize] * inverse_rms));
    }
    out
}

fn scattered(
    args: &ScatterNormGatherArgs<TensorRef<'_>, Layout>,
    add: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let indices = index_values(args.out_indices);
    let features = args.residual_out.columns();
    let (mut out, y) = (args.residual.to_f64(), args.y.to_f64());
    for (place, y) in y.iter().enumerate() {
        let (row, index) = (place / indices.len(), indices[place % indices.len()] as usize);
        let out = &mut out[row * features + index];
        *out = add(*out, *y);
    }
    out
}

fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => <f16 as Float>::from_f64(value).to_f64(),
        DType::BF16 => <bf16 as Float>::from_f64(value).to_f64(),
        _ => f64::from(value as f32),
    }
}
