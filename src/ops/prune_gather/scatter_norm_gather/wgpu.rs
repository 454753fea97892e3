//! `scatter_norm_gather` through wgpu.

use super::{ScatterNormGather, ScatterNormGatherArgs};
use crate::backend::wgpu::registry::scatter_norm_gather::{
    Bindings, Constants, Parameters, SUBGROUP_COMPUTED, SUBGROUP_STAGED, WORKGROUP_COMPUTED,
    WORKGROUP_STAGED,
};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Reduction, Shader, Wgpu, WgpuTensor, check_disjoint,
    dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::silu_mlp::mlp::wgpu::strategy;

impl Wgpu {
    /// Binds [`ScatterNormGather`] to buffers: `residual_out = residual + scatter(y)`, `gathered =
    /// rms_norm(residual_out)[:, in_indices]`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_scatter_norm_gather(
        &self,
        op: &ScatterNormGather,
        args: ScatterNormGatherArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let mut plan = PlanBuilder::new(self, ScatterNormGather::NAME);
        let rows = args.residual_out.layout().shape()[0];
        if rows == 0 {
            return plan.finish();
        }
        let launch = Launch { op, args: operands(self, args)? };
        let most = launch.rows_at_once()?;
        let (shader, constants) = launch.shader(self);
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            let bindings = launch.bindings(first, count)?;
            let parameters = launch.parameters(&bindings, count);
            let bindings = bindings.into_array();
            plan.dispatch(shader, constants.values(), &parameters, bindings, count as u64)?;
        }
        plan.finish()
    }
}

struct Launch<'a> {
    op: &'a ScatterNormGather,
    args: ScatterNormGatherArgs<Operand<'a>, Operand<'a>>,
}

impl<'a> Launch<'a> {
    fn rows_at_once(&self) -> Result<usize, Error> {
        let ScatterNormGatherArgs { residual, y, residual_out, gathered, .. } = &self.args;
        let mut most = residual.rows_per_binding()?.min(residual_out.rows_per_binding()?);
        for tensor in [y, gathered] {
            if tensor.layout().elements() > 0 {
                most = most.min(tensor.rows_per_binding()?);
            }
        }
        Ok(most)
    }

    /// The variant: the row lies in workgroup memory if there is room.
    fn shader(&self, wgpu: &Wgpu) -> (&'static Shader, Constants) {
        let capabilities = wgpu.capabilities();
        let variants = match strategy::reduction(capabilities, &wgpu.dispatch()) {
            Reduction::Subgroup => [&SUBGROUP_STAGED, &SUBGROUP_COMPUTED],
            Reduction::Workgroup => [&WORKGROUP_STAGED, &WORKGROUP_COMPUTED],
        };
        let op = self.op;
        let mut constants = Constants {
            // As many invocations as `gather_norm` takes, so that sums come out the same.
            threads: strategy::threads(op.features, capabilities),
            activation: dtype_code(op.dtype),
            weight: dtype_code(op.weight_dtype),
            // Few values, so that few pipelines serve all widths.
            row: op.features.next_multiple_of(1024) as u32,
        };
        let bytes = (variants[0].workgroup_bytes)(&constants.values());
        if bytes <= u64::from(capabilities.workgroup_bytes) {
            return (variants[0], constants);
        }
        constants.row = 1;
        (variants[1], constants)
    }

    fn bindings(&self, first: usize, count: usize) -> Result<Bindings<Bound<'a>>, Error> {
        let args = &self.args;
        let some = |tensor: &Operand<'_>| tensor.layout().elements() > 0;
        let rows = |tensor: &Operand<'a>| match some(tensor) {
            true => tensor.rows(first, count),
            false => Ok(Bound::ABSENT),
        };
        let whole = |tensor: &Operand<'a>| match some(tensor) {
            true => tensor.whole(),
            false => Ok(Bound::ABSENT),
        };
        Ok(Bindings {
            residual: rows(&args.residual)?,
            y: rows(&args.y)?,
            out_indices: whole(&args.out_indices)?,
            out_rank: args.out_rank.as_ref().map_or(Ok(Bound::ABSENT), whole)?,
            norm_weight: whole(&args.norm_weight)?,
            in_indices: whole(&args.in_indices)?,
            residual_out: rows(&args.residual_out)?,
            gathered: rows(&args.gathered)?,
        })
    }

    fn parameters(&self, bindings: &Bindings<Bound<'_>>, count: usize) -> Parameters {
        let (op, args) = (self.op, &self.args);
        Parameters {
            features: op.features as u32,
            out_selected: op.written as u32,
            in_selected: op.read as u32,
            tokens: count as u32,
            residual_out_units: args.residual_out.words_per_row(),
            gathered_units: args.gathered.words_per_row(),
            eps: op.norm.eps(),
            residual_start: bindings.residual.start,
            residual_stride: args.residual.stride(),
            y_start: bindings.y.start,
            y_stride: args.y.stride(),
            out_indices_start: bindings.out_indices.start,
            out_rank_start: bindings.out_rank.start,
            norm_start: bindings.norm_weight.start,
            in_indices_start: bindings.in_indices.start,
            residual_out_start: bindings.residual_out.start,
            residual_out_stride: args.residual_out.stride(),
            gathered_start: bindings.gathered.start,
            gathered_stride: args.gathered.stride(),
            residual_out_dtype: dtype_code(args.residual_out.layout().dtype()),
            gathered_dtype: dtype_code(args.gathered.layout().dtype()),
            has_rank: u32::from(args.out_rank.is_some()),
            scope: op.norm.scope.code(),
        }
    }
}

/// Checks the buffers.
fn operands<'a>(
    wgpu: &Wgpu,
    args: ScatterNormGatherArgs<WgpuTensor<'a>, WgpuTensor<'a>>,
) -> Result<ScatterNormGatherArgs<Operand<'a>, Operand<'a>>, Error> {
    let operand =
        |name, tensor| Operand::new(ScatterNormGather::NAME, name, tensor, wgpu.capabilities());
    let operands = ScatterNormGatherArgs {
        residual: operand("residual", args.residual)?,
        y: operand("y", args.y)?,
        out_indices: operand("out_indices", args.out_indices)?,
        norm_weight: operand("norm_weight", args.norm_weight)?,
        in_indices: operand("in_indices", args.in_indices)?,
        out_rank: args.out_rank.map(|rank| operand("out_rank", rank)).transpose()?,
        residual_out: operand("residual_out", args.residual_out)?,
        gathered: operand("gathered", args.gathered)?,
    };
    let ScatterNormGatherArgs { residual, y, out_indices, norm_weight, in_indices, .. } = operands;
    let mut inputs = vec![residual, y, out_indices, norm_weight, in_indices];
    inputs.extend(operands.out_rank);
    check_disjoint(&operands.gathered, &inputs)?;
    inputs.push(operands.gathered);
    check_disjoint(&operands.residual_out, &inputs)?;
    Ok(operands)
}
