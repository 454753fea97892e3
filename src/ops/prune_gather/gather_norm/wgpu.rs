//! `gather_norm` through wgpu.

use super::{GatherNorm, GatherNormArgs};
use crate::backend::wgpu::registry::gather_norm::{
    Bindings, Constants, Parameters, SUBGROUP, WORKGROUP,
};
use crate::backend::wgpu::{
    Operand, Plan, PlanBuilder, Reduction, Wgpu, WgpuTensor, check_disjoint, dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::prune_gather::gather_plain::{GatherPlain, GatherPlainTensors, Names, plan_wgpu};
use crate::ops::prune_gather::norm::Norm;
use crate::ops::silu_mlp::mlp::wgpu::strategy;

impl Wgpu {
    /// Binds [`GatherNorm`] to buffers: `out = rms_norm(x)[:, indices]`, or `x[:, indices]`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_gather_norm(
        &self,
        op: &GatherNorm,
        args: GatherNormArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let (Some(norm), Some(norm_weight)) = (op.norm, args.norm_weight) else {
            let gather =
                GatherPlain { op: GatherNorm::NAME, dtype: op.dtype, selected: op.selected };
            let names = Names { x: "x", columns: "indices" };
            let GatherNormArgs { x, indices, out, .. } = args;
            let tensors = GatherPlainTensors { x, rows: None, columns: Some(indices), out };
            return plan_wgpu(self, &gather, names, tensors);
        };
        normalised(self, op, norm, norm_weight, args)
    }
}

fn normalised(
    wgpu: &Wgpu,
    op: &GatherNorm,
    norm: Norm,
    norm_weight: WgpuTensor<'_>,
    args: GatherNormArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
) -> Result<Plan, Error> {
    let mut plan = PlanBuilder::new(wgpu, GatherNorm::NAME);
    if args.out.layout().elements() == 0 {
        return plan.finish();
    }
    let capabilities = wgpu.capabilities();
    let operand = |name, tensor| Operand::new(GatherNorm::NAME, name, tensor, capabilities);
    let x = operand("x", args.x)?;
    let indices = operand("indices", args.indices)?;
    let norm_weight = operand("norm_weight", norm_weight)?;
    let out = operand("out", args.out)?;
    check_disjoint(&out, &[x, indices, norm_weight])?;

    // As many invocations as `rms_norm` takes, so that sums come out the same.
    let constants = Constants {
        threads: strategy::threads(op.features, capabilities),
        activation: dtype_code(op.dtype),
        weight: dtype_code(op.weight_dtype),
    };
    let shader = match strategy::reduction(capabilities, &wgpu.dispatch()) {
        Reduction::Subgroup => &SUBGROUP,
        Reduction::Workgroup => &WORKGROUP,
    };
    let rows = x.layout().shape()[0];
    let chunk = x.rows_per_binding()?.min(out.rows_per_binding()?);
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        let bindings = Bindings {
            x: x.rows(first, count)?,
            norm_weight: norm_weight.whole()?,
            indices: indices.whole()?,
            out: out.rows(first, count)?,
        };
        let parameters = Parameters {
            features: op.features as u32,
            selected: op.selected as u32,
            tokens: count as u32,
            units: out.words_per_row(),
            eps: norm.eps(),
            x_start: bindings.x.start,
            x_stride: x.stride(),
            norm_start: bindings.norm_weight.start,
            indices_start: bindings.indices.start,
            out_start: bindings.out.start,
            out_stride: out.stride(),
            out_dtype: dtype_code(out.layout().dtype()),
            scope: norm.scope.code(),
        };
        let bindings = bindings.into_array();
        plan.dispatch(shader, constants.values(), &parameters, bindings, count as u64)?;
    }
    plan.finish()
}
