//! `scatter_add` through wgpu.

use super::{ScatterAdd, ScatterAddArgs};
use crate::backend::wgpu::registry::scatter_add::{Bindings, Constants, ONLY, Parameters};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, check_disjoint, dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;

impl Wgpu {
    /// Binds [`ScatterAdd`] to buffers: `out = residual + scatter(y)`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_scatter_add(
        &self,
        op: &ScatterAdd,
        args: ScatterAddArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let mut plan = PlanBuilder::new(self, ScatterAdd::NAME);
        let rows = args.out.layout().shape()[0];
        if args.out.layout().elements() == 0 {
            return plan.finish();
        }
        let args = operands(self, args)?;
        let constants = Constants {
            threads: self.capabilities().invocations.min(128),
            input: dtype_code(op.dtype),
        };
        let mut most = args.residual.rows_per_binding()?.min(args.out.rows_per_binding()?);
        if op.selected > 0 {
            most = most.min(args.y.rows_per_binding()?);
        }
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            let bindings = bindings(op, &args, first, count)?;
            let parameters = Parameters {
                features: op.features as u32,
                selected: op.selected as u32,
                rows: count as u32,
                units: args.out.words_per_row(),
                residual_start: bindings.residual.start,
                residual_stride: args.residual.stride(),
                y_start: bindings.y.start,
                y_stride: args.y.stride(),
                indices_start: bindings.indices.start,
                rank_start: bindings.rank.start,
                out_start: bindings.out.start,
                out_stride: args.out.stride(),
                out_dtype: dtype_code(args.out.layout().dtype()),
                has_rank: u32::from(args.rank.is_some()),
            };
            let words = count as u64 * u64::from(parameters.units);
            let workgroups = words.div_ceil(u64::from(constants.threads));
            let bindings = bindings.into_array();
            plan.dispatch(&ONLY, constants.values(), &parameters, bindings, workgroups)?;
        }
        plan.finish()
    }
}

fn bindings<'a>(
    op: &ScatterAdd,
    args: &ScatterAddArgs<Operand<'a>, Operand<'a>>,
    first: usize,
    count: usize,
) -> Result<Bindings<Bound<'a>>, Error> {
    let some = op.selected > 0;
    Ok(Bindings {
        residual: args.residual.rows(first, count)?,
        y: if some { args.y.rows(first, count)? } else { Bound::ABSENT },
        indices: if some { args.indices.whole()? } else { Bound::ABSENT },
        rank: args.rank.map_or(Ok(Bound::ABSENT), |rank| rank.whole())?,
        out: args.out.rows(first, count)?,
    })
}

/// Checks the buffers.
fn operands<'a>(
    wgpu: &Wgpu,
    args: ScatterAddArgs<WgpuTensor<'a>, WgpuTensor<'a>>,
) -> Result<ScatterAddArgs<Operand<'a>, Operand<'a>>, Error> {
    let operand = |name, tensor| Operand::new(ScatterAdd::NAME, name, tensor, wgpu.capabilities());
    let operands = ScatterAddArgs {
        residual: operand("residual", args.residual)?,
        y: operand("y", args.y)?,
        indices: operand("indices", args.indices)?,
        rank: args.rank.map(|rank| operand("rank", rank)).transpose()?,
        out: operand("out", args.out)?,
    };
    let mut inputs = vec![operands.residual, operands.y, operands.indices];
    inputs.extend(operands.rank);
    check_disjoint(&operands.out, &inputs)?;
    Ok(operands)
}
