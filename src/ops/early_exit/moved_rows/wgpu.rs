//! Rows moved through wgpu.

use super::{Direction, MovedRows, Tensors};
use crate::backend::wgpu::registry::move_rows::{Bindings, Constants, ONLY, Parameters};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, check_disjoint, dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::ops::early_exit::binding::optional;

/// Binds a movement of validated tensors.
pub(in crate::ops::early_exit) fn plan(
    wgpu: &Wgpu,
    moved: &MovedRows,
    direction: Direction,
    args: Tensors<WgpuTensor<'_>, WgpuTensor<'_>>,
) -> Result<Plan, Error> {
    let mut plan = PlanBuilder::new(wgpu, moved.op);
    let listed = args.permutation.layout().elements();
    if listed == 0 || args.to.layout().elements() == 0 {
        return plan.finish();
    }
    let Tensors { from, permutation, count, to, .. } = operands(wgpu, moved, args)?;
    let scatters = direction == Direction::Scatter;
    // Any row of the one tensor may be wanted: all of it is bound. Of the other, what fits.
    let (whole, parts) = if scatters { (to, from) } else { (from, to) };
    let constants = Constants {
        threads: wgpu.capabilities().invocations.min(128),
        dtype: dtype_code(moved.dtype),
        scatters,
    };
    let most = parts.rows_per_binding()?.min(permutation.elements_per_binding());
    for first in (0..listed).step_by(most) {
        let rows = most.min(listed - first);
        let part = parts.rows(first, rows)?;
        let whole_bound = optional(&Some(whole))?;
        let (source, destination) =
            if scatters { (part, whole_bound) } else { (whole_bound, part) };
        let bindings = Bindings {
            source,
            permutation: permutation.elements(first, rows)?,
            count: count.map_or(Ok(Bound::ABSENT), |count| count.whole())?,
            destination,
        };
        let parameters = Parameters {
            listed: rows as u32,
            first_row: first as u32,
            rows: whole.layout().shape()[0] as u32,
            columns: moved.features as u32,
            units: to.words_per_row(),
            has_count: u32::from(count.is_some()),
            from_start: bindings.source.start,
            from_stride: from.stride(),
            permutation_start: bindings.permutation.start,
            count_start: bindings.count.start,
            to_start: bindings.destination.start,
            to_stride: to.stride(),
        };
        let words = rows as u64 * u64::from(parameters.units);
        let workgroups = words.div_ceil(u64::from(constants.threads));
        plan.dispatch(&ONLY, constants.values(), &parameters, bindings.into_array(), workgroups)?;
    }
    plan.finish()
}

/// Checks the buffers.
fn operands<'a>(
    wgpu: &Wgpu,
    moved: &MovedRows,
    args: Tensors<WgpuTensor<'a>, WgpuTensor<'a>>,
) -> Result<Tensors<Operand<'a>, Operand<'a>>, Error> {
    let operand = |name, tensor| Operand::new(moved.op, name, tensor, wgpu.capabilities());
    let from = operand(args.names[0], args.from)?;
    let to = operand(args.names[1], args.to)?;
    let permutation = operand("permutation", args.permutation)?;
    let count = args.count.map(|count| operand("count", count)).transpose()?;
    check_disjoint(&to, &[from, permutation])?;
    if let Some(count) = count {
        check_disjoint(&to, &[count])?;
    }
    Ok(Tensors { names: args.names, from, permutation, count, to })
}
