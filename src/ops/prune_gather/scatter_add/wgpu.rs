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
        let operand =
            |name, tensor| Operand::new(ScatterAdd::NAME, name, tensor, self.capabilities());
        let residual = operand("residual", args.residual)?;
        let y = operand("y", args.y)?;
        let indices = operand("indices", args.indices)?;
        let rank = args.rank.map(|rank| operand("rank", rank)).transpose()?;
        let out = operand("out", args.out)?;
        let inputs: Vec<_> =
            [Some(residual), Some(y), Some(indices), rank].into_iter().flatten().collect();
        check_disjoint(&out, &inputs)?;

        let constants = Constants {
            threads: self.capabilities().invocations.min(128),
            input: dtype_code(op.dtype),
            out: dtype_code(out.layout().dtype()),
            has_rank: rank.is_some(),
        };
        let units = out.words_per_row();
        let some = op.selected > 0;
        let mut chunk = residual.rows_per_binding()?.min(out.rows_per_binding()?);
        if some {
            chunk = chunk.min(y.rows_per_binding()?);
        }
        for first in (0..rows).step_by(chunk) {
            let count = chunk.min(rows - first);
            let bindings = Bindings {
                residual: residual.rows(first, count)?,
                y: if some { y.rows(first, count)? } else { Bound::ABSENT },
                indices: if some { indices.whole()? } else { Bound::ABSENT },
                rank: rank.map_or(Ok(Bound::ABSENT), |rank| rank.whole())?,
                out: out.rows(first, count)?,
            };
            let parameters = Parameters {
                features: op.features as u32,
                selected: op.selected as u32,
                rows: count as u32,
                units,
                residual_start: bindings.residual.start,
                residual_stride: residual.stride(),
                y_start: bindings.y.start,
                y_stride: y.stride(),
                indices_start: bindings.indices.start,
                rank_start: bindings.rank.start,
                out_start: bindings.out.start,
                out_stride: out.stride(),
            };
            let workgroups =
                (count as u64 * u64::from(units)).div_ceil(u64::from(constants.threads));
            let bindings = bindings.into_array();
            plan.dispatch(&ONLY, constants.values(), &parameters, bindings, workgroups)?;
        }
        plan.finish()
    }
}
