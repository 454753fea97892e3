//! `merge_exit_states` through wgpu: one launch, or one for every six results, by the contract in
//! `kernels/early_exit/exit_merge.wgsl`.

use super::{MergeExitStates, MergeExitStatesArgs};
use crate::backend::wgpu::registry::{exit_merge, exit_merge_all};
use crate::backend::wgpu::{Operand, Plan, PlanBuilder, Wgpu, WgpuTensor};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::early_exit::binding::{check_outputs, optional};

impl Wgpu {
    /// Binds [`MergeExitStates`] to buffers: one dispatch. Of more than six results it takes a second one on a device that
    /// binds fewer than 11 storage buffers.
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

/// Results of one launch: with two inputs that is what every device can bind.
const RESULTS: usize = 6;
/// All of them, and the storage buffers that they take with the inputs.
const ALL_RESULTS: usize = 9;
const ALL_BUFFERS: u32 = 11;

/// A result and what it is, as the shader knows it.
type Coded<'a> = (u32, Operand<'a>);

/// Adds one launch, or one for every six results; there is at least one row.
pub(in crate::ops::early_exit) fn record<'a>(
    wgpu: &Wgpu,
    plan: &mut PlanBuilder<'a>,
    top_k: usize,
    args: &MergeExitStatesArgs<Operand<'a>, Operand<'a>>,
) -> Result<(), Error> {
    let coded = [
        (1, args.token),
        (2, args.max_logit),
        (3, args.second_logit),
        (4, args.log_sum_exp),
        (5, args.entropy),
        (6, args.gathered_logit),
        (7, args.sampled_token),
        (8, args.top_tokens),
        (9, args.top_logits),
    ];
    // A result without elements is none: there is nothing to write.
    let results: Vec<Coded<'a>> = coded
        .into_iter()
        .filter_map(|(code, operand)| Some((code, operand?)))
        .filter(|(_, operand)| operand.layout().elements() > 0)
        .collect();
    let most = if wgpu.storage_buffers() < ALL_BUFFERS { RESULTS } else { ALL_RESULTS };
    for results in results.chunks(most) {
        merge(wgpu, plan, top_k, args, results)?;
    }
    Ok(())
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
    results: &[Coded<'a>],
) -> Result<(), Error> {
    let [tiles, rows] = [0, 1].map(|axis| args.state_values.layout().shape()[axis] as u32);
    let out = |index: usize| optional(&results.get(index).map(|(_, operand)| *operand));
    let bindings = exit_merge_all::Bindings {
        // Nothing where there are no tiles.
        state_values: optional(&Some(args.state_values))?,
        state_tokens: optional(&Some(args.state_tokens))?,
        out_0: out(0)?,
        out_1: out(1)?,
        out_2: out(2)?,
        out_3: out(3)?,
        out_4: out(4)?,
        out_5: out(5)?,
        out_6: out(6)?,
        out_7: out(7)?,
        out_8: out(8)?,
    };
    let code = |index: usize| results.get(index).map_or(0, |(code, _)| *code);
    let stride = |index: usize| match results.get(index) {
        Some((_, operand)) if operand.layout().shape().len() == 2 => operand.stride(),
        _ => 1,
    };
    let has_lists = results.iter().any(|(code, _)| *code >= 8);
    let (values, tokens) = (strides(&args.state_values), strides(&args.state_tokens));
    // The two shaders have their parameters in common.
    let parameters = exit_merge_all::Parameters {
        output_rows: rows,
        tiles,
        // Nobody looks for what nobody wants.
        top_k: if has_lists { top_k as u32 } else { 0 },
        wanted: results.iter().map(|(code, _)| 1 << code).sum(),
        values_start: bindings.state_values.start,
        values_row_stride: values[1],
        values_tile_stride: values[0],
        tokens_start: bindings.state_tokens.start,
        tokens_row_stride: tokens[1],
        tokens_tile_stride: tokens[0],
        out_0_code: code(0),
        out_0_start: bindings.out_0.start,
        out_0_stride: stride(0),
        out_1_code: code(1),
        out_1_start: bindings.out_1.start,
        out_1_stride: stride(1),
        out_2_code: code(2),
        out_2_start: bindings.out_2.start,
        out_2_stride: stride(2),
        out_3_code: code(3),
        out_3_start: bindings.out_3.start,
        out_3_stride: stride(3),
        out_4_code: code(4),
        out_4_start: bindings.out_4.start,
        out_4_stride: stride(4),
        out_5_code: code(5),
        out_5_start: bindings.out_5.start,
        out_5_stride: stride(5),
        out_6_code: code(6),
        out_6_start: bindings.out_6.start,
        out_6_stride: stride(6),
        out_7_code: code(7),
        out_7_start: bindings.out_7.start,
        out_7_stride: stride(7),
        out_8_code: code(8),
        out_8_start: bindings.out_8.start,
        out_8_stride: stride(8),
    };
    let (threads, workgroups) = (threads(wgpu), u64::from(rows));
    if results.len() > RESULTS {
        let (shader, bindings) = (&exit_merge_all::ONLY, bindings.into_array());
        let constants = exit_merge_all::Constants { threads }.values();
        return plan.dispatch(shader, constants, &parameters, bindings, workgroups);
    }
    let bindings = exit_merge::Bindings {
        state_values: bindings.state_values,
        state_tokens: bindings.state_tokens,
        out_0: bindings.out_0,
        out_1: bindings.out_1,
        out_2: bindings.out_2,
        out_3: bindings.out_3,
        out_4: bindings.out_4,
        out_5: bindings.out_5,
    };
    let (shader, bindings) = (&exit_merge::ONLY, bindings.into_array());
    let constants = exit_merge::Constants { threads }.values();
    plan.dispatch(shader, constants, &parameters, bindings, workgroups)
}
