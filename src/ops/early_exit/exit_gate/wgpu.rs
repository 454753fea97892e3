//! `exit_gate` through wgpu: one launch, after one for the cosines if they are asked for.

use super::{ExitGate, ExitGateArgs, Require};
use crate::backend::wgpu::registry::{exit_cosine, exit_gate};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Reduction, Wgpu, WgpuTensor, dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::early_exit::binding::{check_outputs, optional};
use crate::ops::silu_mlp::mlp::wgpu::strategy;

impl Wgpu {
    /// Binds [`ExitGate`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_exit_gate(
        &self,
        op: &ExitGate,
        args: ExitGateArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let args = args.try_map(
            |info, tensor| Operand::new(ExitGate::NAME, info.name, tensor, self.capabilities()),
            |info, tensor| Operand::new(ExitGate::NAME, info.name, tensor, self.capabilities()),
        )?;
        check_outputs(args)?;
        let mut plan = PlanBuilder::new(self, ExitGate::NAME);
        if let (Some(hidden), Some(previous), Some(threshold)) =
            (args.hidden, args.previous_hidden, op.thresholds().cosine)
        {
            cosines(self, &mut plan, [hidden, previous], threshold, args.go_on)?;
        }
        gate(self, &mut plan, op, &args)?;
        plan.finish()
    }
}

/// Leaves in `go_on` whose states are saturated.
fn cosines<'a>(
    wgpu: &Wgpu,
    plan: &mut PlanBuilder<'a>,
    [hidden, previous]: [Operand<'a>; 2],
    threshold: f32,
    go_on: Operand<'a>,
) -> Result<(), Error> {
    let layout = hidden.layout();
    let (rows, features) = (layout.shape()[0], layout.columns());
    let most = match features {
        // Nothing to bind.
        0 => rows.max(1),
        _ => hidden.rows_per_binding()?.min(previous.rows_per_binding()?),
    };
    let capabilities = wgpu.capabilities();
    let constants = exit_cosine::Constants {
        threads: strategy::threads(features, capabilities),
        activation: dtype_code(layout.dtype()),
    };
    let shader = match strategy::reduction(capabilities, &wgpu.dispatch()) {
        Reduction::Subgroup => &exit_cosine::SUBGROUP,
        Reduction::Workgroup => &exit_cosine::WORKGROUP,
    };
    for first in (0..rows).step_by(most) {
        let count = most.min(rows - first);
        let bind = |states: &Operand<'a>| match features {
            0 => Ok(Bound::ABSENT),
            _ => states.rows(first, count),
        };
        let bindings = exit_cosine::Bindings {
            hidden: bind(&hidden)?,
            previous_hidden: bind(&previous)?,
            go_on: go_on.whole()?,
        };
        let parameters = exit_cosine::Parameters {
            features: features as u32,
            rows: count as u32,
            first_row: first as u32,
            cosine: threshold,
            hidden_start: bindings.hidden.start,
            hidden_stride: hidden.stride(),
            previous_start: bindings.previous_hidden.start,
            previous_stride: previous.stride(),
            go_on_start: bindings.go_on.start,
        };
        let bindings = bindings.into_array();
        plan.dispatch(shader, constants.values(), &parameters, bindings, count as u64)?;
    }
    Ok(())
}

fn gate<'a>(
    wgpu: &Wgpu,
    plan: &mut PlanBuilder<'a>,
    op: &ExitGate,
    args: &ExitGateArgs<Operand<'a>, Operand<'a>>,
) -> Result<(), Error> {
    let bindings = exit_gate::Bindings {
        max_logit: optional(&args.max_logit)?,
        second_logit: optional(&args.second_logit)?,
        log_sum_exp: optional(&args.log_sum_exp)?,
        entropy: optional(&args.entropy)?,
        classifier: optional(&args.classifier)?,
        go_on: optional(&Some(args.go_on))?,
        permutation: optional(&Some(args.permutation))?,
        go_on_count: args.go_on_count.whole()?,
    };
    let thresholds = op.thresholds();
    let parameters = exit_gate::Parameters {
        rows: args.go_on.layout().elements() as u32,
        criteria: thresholds.criteria(),
        require_all: u32::from(op.require() == Require::All),
        log_max_prob: thresholds.log_max_prob(),
        margin: thresholds.margin.unwrap_or_default(),
        most_entropy: thresholds.entropy.unwrap_or_default(),
        classifier_score: thresholds.classifier.unwrap_or_default(),
        max_start: bindings.max_logit.start,
        second_start: bindings.second_logit.start,
        log_sum_exp_start: bindings.log_sum_exp.start,
        entropy_start: bindings.entropy.start,
        classifier_start: bindings.classifier.start,
        go_on_start: bindings.go_on.start,
        permutation_start: bindings.permutation.start,
        count_start: bindings.go_on_count.start,
    };
    let constants = exit_gate::Constants { threads: wgpu.capabilities().invocations.min(128) };
    let bindings = bindings.into_array();
    plan.dispatch(&exit_gate::ONLY, constants.values(), &parameters, bindings, 1)
}
