//! The scalar oracle of `compact_weight`.

use super::{CompactWeight, CompactWeightArgs};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn compact_weight(
    op: &CompactWeight,
    mut args: CompactWeightArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let weight = args.weight.to_f64();
    let members = |selection: Option<TensorRef<'_>>, all: usize| -> Vec<usize> {
        match selection {
            Some(indices) => index_values(indices).iter().map(|&index| index as usize).collect(),
            None => (0..all).collect(),
        }
    };
    let (rows, columns) = (members(args.rows, op.rows), members(args.columns, op.columns));
    let padding = args.out.layout().columns() - columns.len();
    let mut out = Vec::new();
    for row in rows {
        out.extend(columns.iter().map(|column| weight[row * op.columns + column]));
        out.extend(std::iter::repeat_n(0.0, padding));
    }
    args.out.write_f64(out);
    Ok(())
}
