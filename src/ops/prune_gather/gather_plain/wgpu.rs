//! Copies of selected rows and columns through wgpu.

use super::{GatherPlain, GatherPlainTensors};
use crate::backend::wgpu::registry::gather_plain::{Bindings, Constants, ONLY, Parameters};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, check_disjoint, dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;

/// The arguments' names where they differ from those of [`GatherPlainTensors`].
#[derive(Clone, Copy)]
pub(in crate::ops::prune_gather) struct Names {
    pub x: &'static str,
    pub columns: &'static str,
}

/// Binds a copy; the tensors' shapes are validated.
pub(in crate::ops::prune_gather) fn plan(
    wgpu: &Wgpu,
    gather: &GatherPlain,
    names: Names,
    args: GatherPlainTensors<WgpuTensor<'_>, WgpuTensor<'_>>,
) -> Result<Plan, Error> {
    let mut plan = PlanBuilder::new(wgpu, gather.op);
    let layout = args.out.layout();
    if layout.elements() == 0 {
        return plan.finish();
    }
    let operand = |name, tensor| Operand::new(gather.op, name, tensor, wgpu.capabilities());
    let x = operand(names.x, args.x)?;
    let out = operand("out", args.out)?;
    let row_indices = args.rows.map(|rows| operand("rows", rows)).transpose()?;
    let column_indices = args.columns.map(|columns| operand(names.columns, columns)).transpose()?;
    let inputs: Vec<_> = [Some(x), row_indices, column_indices].into_iter().flatten().collect();
    check_disjoint(&out, &inputs)?;

    let constants = Constants {
        threads: wgpu.capabilities().invocations.min(128),
        input: dtype_code(gather.dtype),
        out: dtype_code(layout.dtype()),
        has_rows: row_indices.is_some(),
        has_columns: column_indices.is_some(),
    };
    let whole = |tensor: Option<Operand<'_>>| tensor.map_or(0, |tensor| tensor.layout().elements());
    let nothing = x.layout().elements() == 0 || whole(column_indices) == 0 && constants.has_columns;
    let units = out.words_per_row();
    let rows = layout.shape()[0];
    let mut chunk = out.rows_per_binding()?;
    if row_indices.is_none() && !nothing {
        chunk = chunk.min(x.rows_per_binding()?);
    }
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        // Where rows are selected, any of them may be wanted.
        let x_rows = if row_indices.is_some() { x.layout().shape()[0] } else { count };
        let bindings = Bindings {
            x: match (nothing, row_indices) {
                (true, _) => Bound::ABSENT,
                (false, Some(_)) => x.whole()?,
                (false, None) => x.rows(first, count)?,
            },
            row_indices: row_indices
                .map_or(Ok(Bound::ABSENT), |tensor| tensor.elements(first, count))?,
            column_indices: column_indices
                .filter(|_| !nothing)
                .map_or(Ok(Bound::ABSENT), |tensor| tensor.whole())?,
            out: out.rows(first, count)?,
        };
        let parameters = Parameters {
            x_rows: if nothing { 0 } else { x_rows as u32 },
            x_columns: x.layout().columns() as u32,
            rows: count as u32,
            selected: gather.selected as u32,
            columns: layout.columns() as u32,
            units,
            x_start: bindings.x.start,
            x_stride: x.stride(),
            rows_start: bindings.row_indices.start,
            columns_start: bindings.column_indices.start,
            out_start: bindings.out.start,
            out_stride: out.stride(),
        };
        let workgroups = (count as u64 * u64::from(units)).div_ceil(u64::from(constants.threads));
        plan.dispatch(&ONLY, constants.values(), &parameters, bindings.into_array(), workgroups)?;
    }
    plan.finish()
}
