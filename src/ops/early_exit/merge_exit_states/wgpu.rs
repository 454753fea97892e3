//! `merge_exit_states` through wgpu: a launch for statistics and one for ids, each if anything of it is wanted.

use super::{MergeExitStates, MergeExitStatesArgs};
use crate::backend::wgpu::registry::{exit_choose, exit_merge};
use crate::backend::wgpu::{Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::early_exit::binding::{check_outputs, optional};

impl Wgpu {
    /// Binds [`MergeExitStates`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_merge_exit_states(
        &self,
        op: &MergeExitStates,
        args: MergeExitStatesArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let mut plan = PlanBuilder::new(self, op.op);
        if args.state_values.layout().shape()[1] == 0 {
            return plan.finish();
        }
        let args = args.try_map(
            |info, tensor| Operand::new(op.op, info.name, tensor, self.capabilities()),
            |info, tensor| Operand::new(op.op, info.name, tensor, self.capabilities()),
        )?;
        check_outputs(args)?;
        record(self, &mut plan, op.top_k, &args)?;
        plan.finish()
    }
}

/// Invocations of a workgroup: tiles are many, and a barrier of a software device switches between invocations one by
/// one.
fn threads(wgpu: &Wgpu) -> u32 {
    let capabilities = wgpu.capabilities();
    if capabilities.cpu { 16 } else { 64.min(capabilities.invocations) }
}

/// Adds the launches; there is at least one row.
pub(in crate::ops::early_exit) fn record<'a>(
    wgpu: &Wgpu,
    plan: &mut PlanBuilder<'a>,
    top_k: usize,
    args: &MergeExitStatesArgs<Operand<'a>, Operand<'a>>,
) -> Result<(), Error> {
    let statistics =
        [args.token, args.max_logit, args.second_logit, args.log_sum_exp, args.entropy];
    let ids = [args.top_tokens, args.top_logits, args.gathered_logit, args.sampled_token];
    if statistics.iter().any(Option::is_some) {
        merge(wgpu, plan, top_k, args, &statistics)?;
    }
    if ids.iter().any(Option::is_some) {
        choose(wgpu, plan, top_k, args, &ids)?;
    }
    Ok(())
}

/// Which of the outputs are there, by bit.
fn wanted(outputs: &[Option<Operand<'_>>]) -> u32 {
    let bit = |(index, output): (usize, &Option<Operand<'_>>)| u32::from(output.is_some()) << index;
    outputs.iter().enumerate().map(bit).sum()
}

/// The states, bound; nothing where there are no tiles.
fn states<'a>(
    args: &MergeExitStatesArgs<Operand<'a>, Operand<'a>>,
) -> Result<[Bound<'a>; 2], Error> {
    Ok([optional(&Some(args.state_values))?, optional(&Some(args.state_tokens))?])
}

/// Strides between tiles and rows; fit, since the binding does.
fn strides(states: &Operand<'_>) -> [u32; 2] {
    let layout = states.layout();
    [layout.strides()[0] as u32, layout.strides()[1] as u32]
}

fn merge<'a>(
    wgpu: &Wgpu,
    plan: &mut PlanBuilder<'a>,
    top_k: usize,
    args: &MergeExitStatesArgs<Operand<'a>, Operand<'a>>,
    outputs: &[Option<Operand<'a>>; 5],
) -> Result<(), Error> {
    let [tiles, rows] = [0, 1].map(|axis| args.state_values.layout().shape()[axis] as u32);
    let [state_values, state_tokens] = states(args)?;
    let bindings = exit_merge::Bindings {
        state_values,
        state_tokens,
        token: optional(&outputs[0])?,
        max_logit: optional(&outputs[1])?,
        second_logit: optional(&outputs[2])?,
        log_sum_exp: optional(&outputs[3])?,
        entropy: optional(&outputs[4])?,
    };
    let (values, tokens) = (strides(&args.state_values), strides(&args.state_tokens));
    let parameters = exit_merge::Parameters {
        output_rows: rows,
        tiles,
        top_k: top_k as u32,
        wanted: wanted(outputs),
        values_start: bindings.state_values.start,
        values_row_stride: values[1],
        values_tile_stride: values[0],
        tokens_start: bindings.state_tokens.start,
        tokens_row_stride: tokens[1],
        tokens_tile_stride: tokens[0],
        out_0_start: bindings.token.start,
        out_1_start: bindings.max_logit.start,
        out_2_start: bindings.second_logit.start,
        out_3_start: bindings.log_sum_exp.start,
        out_4_start: bindings.entropy.start,
        top_tokens_stride: 0,
        top_logits_stride: 0,
    };
    let constants = exit_merge::Constants { threads: threads(wgpu) };
    let (shader, bindings) = (&exit_merge::ONLY, bindings.into_array());
    plan.dispatch(shader, constants.values(), &parameters, bindings, u64::from(rows))
}

fn choose<'a>(
    wgpu: &Wgpu,
    plan: &mut PlanBuilder<'a>,
    top_k: usize,
    args: &MergeExitStatesArgs<Operand<'a>, Operand<'a>>,
    outputs: &[Option<Operand<'a>>; 4],
) -> Result<(), Error> {
    let [tiles, rows] = [0, 1].map(|axis| args.state_values.layout().shape()[axis] as u32);
    let [state_values, state_tokens] = states(args)?;
    let bindings = exit_choose::Bindings {
        state_values,
        state_tokens,
        top_tokens: optional(&outputs[0])?,
        top_logits: optional(&outputs[1])?,
        gathered_logit: optional(&outputs[2])?,
        sampled_token: optional(&outputs[3])?,
    };
    let (values, tokens) = (strides(&args.state_values), strides(&args.state_tokens));
    let lists = outputs[0].is_some() || outputs[1].is_some();
    let parameters = exit_choose::Parameters {
        output_rows: rows,
        tiles,
        // Nobody looks for what nobody wants.
        top_k: if lists { top_k as u32 } else { 0 },
        wanted: wanted(outputs),
        values_start: bindings.state_values.start,
        values_row_stride: values[1],
        values_tile_stride: values[0],
        tokens_start: bindings.state_tokens.start,
        tokens_row_stride: tokens[1],
        tokens_tile_stride: tokens[0],
        out_0_start: bindings.top_tokens.start,
        out_1_start: bindings.top_logits.start,
        out_2_start: bindings.gathered_logit.start,
        out_3_start: bindings.sampled_token.start,
        out_4_start: 0,
        top_tokens_stride: outputs[0].map_or(0, |list| list.stride()),
        top_logits_stride: outputs[1].map_or(0, |list| list.stride()),
    };
    let constants = exit_choose::Constants { threads: threads(wgpu) };
    let (shader, bindings) = (&exit_choose::ONLY, bindings.into_array());
    plan.dispatch(shader, constants.values(), &parameters, bindings, u64::from(rows))
}
