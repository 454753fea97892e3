//! Heads through wgpu: rows are prepared, then a launch for each part of the weight that fits a binding.

use super::{ExitHead, ExitHeadArgs, ExitHeadStates, ExitHeadStatesArgs};
use crate::backend::wgpu::registry::{exit_prepare, exit_states};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Reduction, Wgpu, WgpuTensor, WgpuWorkspace, dtype_code,
};
use crate::error::{Backend, Error};
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::early_exit::VOCABULARY_TILE;
use crate::ops::early_exit::binding::{check_outputs, optional};
use crate::ops::early_exit::config::{HeadConfig, INFO_WORDS};
use crate::ops::early_exit::merge_exit_states::wgpu as merge;
use crate::ops::early_exit::state;
use crate::ops::silu_mlp::mlp::config::scratch_stride;
use crate::ops::silu_mlp::mlp::wgpu::strategy;

/// Rows that a workgroup of `exit_states` takes.
const GROUP_ROWS: usize = 8;

impl Wgpu {
    /// Binds [`ExitHead`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_exit_head(
        &self,
        op: &ExitHead,
        args: ExitHeadArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let (config, capabilities) = (&op.config, self.capabilities());
        let mut plan = PlanBuilder::new(self, config.op);
        let rows = config.output_rows(&layouts.hidden, layouts.rows.as_ref())?;
        if rows == 0 {
            return plan.finish();
        }
        let args = args.try_map(
            |info, tensor| Operand::new(config.op, info.name, tensor, capabilities),
            |info, tensor| Operand::new(config.op, info.name, tensor, capabilities),
        )?;
        check_outputs(args)?;
        let [values_bytes, tokens_bytes] = config.states_bytes(rows).map(|bytes| bytes as u64);
        let [values, tokens] = state::shapes(config.tiles(), rows, config.top_k);
        let values = workspace.tensor(config.op, 0, &values, capabilities)?;
        let tokens = workspace.tensor(config.op, values_bytes, &tokens, capabilities)?;
        let head = Head { wgpu: self, op: config, args: args.states(values, tokens, args.logits) };
        head.record(&mut plan, workspace, values_bytes + tokens_bytes)?;
        merge::record(self, &mut plan, config.top_k, &args.into_merge(values, tokens))?;
        plan.finish()
    }

    /// Binds [`ExitHeadStates`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_exit_head_states(
        &self,
        op: &ExitHeadStates,
        args: ExitHeadStatesArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let (config, capabilities) = (&op.config, self.capabilities());
        let mut plan = PlanBuilder::new(self, config.op);
        if args.state_values.layout().shape()[1] == 0 {
            return plan.finish();
        }
        let args = args.try_map(
            |info, tensor| Operand::new(config.op, info.name, tensor, capabilities),
            |info, tensor| Operand::new(config.op, info.name, tensor, capabilities),
        )?;
        check_outputs(args)?;
        Head { wgpu: self, op: config, args }.record(&mut plan, workspace, 0)?;
        plan.finish()
    }
}

/// From the inputs to the states.
struct Head<'a> {
    wgpu: &'a Wgpu,
    op: &'a HeadConfig,
    args: ExitHeadStatesArgs<Operand<'a>, Operand<'a>>,
}

/// Some rows of the outputs, prepared.
struct Batch<'a> {
    first: usize,
    count: usize,
    n: Bound<'a>,
    info: Bound<'a>,
}

impl<'a> Head<'a> {
    /// Everything, with prepared rows from `offset` bytes of the workspace on.
    fn record(
        &self,
        plan: &mut PlanBuilder<'a>,
        workspace: WgpuWorkspace<'a>,
        offset: u64,
    ) -> Result<(), Error> {
        let (op, capabilities) = (self.op, self.wgpu.capabilities());
        let rows = self.args.state_values.layout().shape()[1];
        let columns = scratch_stride(op.hidden);
        let row_bytes = columns * size_of::<f32>();
        let limit = usize::try_from(capabilities.storage_binding_bytes).unwrap_or(usize::MAX);
        let mut most = (limit / row_bytes).max(1);
        if let Some(logits) = &self.args.logits {
            most = most.min(logits.rows_per_binding()?);
        }
        let behind_n = offset + (op.prepared_bytes(rows) - op.info_bytes(rows)) as u64;
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            let scratch = |offset, columns| {
                workspace.tensor(op.op, offset, &[count, columns], capabilities)?.whole()
            };
            let batch = Batch {
                first,
                count,
                n: scratch(offset, columns)?,
                info: scratch(behind_n, INFO_WORDS)?,
            };
            self.prepare(plan, &batch)?;
            self.states(plan, &batch)?;
        }
        Ok(())
    }

    fn prepare(&self, plan: &mut PlanBuilder<'a>, batch: &Batch<'a>) -> Result<(), Error> {
        let (op, args, capabilities) = (self.op, &self.args, self.wgpu.capabilities());
        let hidden_rows = args.hidden.layout().shape()[0];
        let bindings = exit_prepare::Bindings {
            hidden: if hidden_rows == 0 { Bound::ABSENT } else { args.hidden.whole()? },
            norm_weight: optional(&args.norm_weight)?,
            rows: optional(&args.rows)?,
            positions: optional(&args.positions)?,
            gather_tokens: optional(&args.gather_tokens)?,
            seeds: optional(&args.seeds)?,
            n: batch.n,
            info: batch.info,
        };
        let parameters = exit_prepare::Parameters {
            features: op.hidden as u32,
            hidden_rows: hidden_rows as u32,
            output_rows: batch.count as u32,
            first_row: batch.first as u32,
            eps: op.norm.map_or(0.0, |eps| eps.0),
            has_rows: u32::from(args.rows.is_some()),
            has_positions: u32::from(args.positions.is_some()),
            has_gather: u32::from(args.gather_tokens.is_some()),
            has_seeds: u32::from(args.seeds.is_some()),
            seed_low: op.seed as u32,
            seed_high: (op.seed >> 32) as u32,
            hidden_start: bindings.hidden.start,
            hidden_stride: args.hidden.stride(),
            norm_start: bindings.norm_weight.start,
            rows_start: bindings.rows.start,
            positions_start: bindings.positions.start,
            gather_start: bindings.gather_tokens.start,
            seeds_start: bindings.seeds.start,
            seeds_stride: args.seeds.map_or(0, |seeds| seeds.stride()),
            n_start: bindings.n.start,
            n_stride: scratch_stride(op.hidden) as u32,
            info_start: bindings.info.start,
        };
        let constants = exit_prepare::Constants {
            threads: strategy::threads(op.hidden, capabilities),
            norm: op.norm.is_some(),
            activation: dtype_code(op.activation_dtype),
            weight: dtype_code(op.weight_dtype),
        };
        let shader = match strategy::reduction(capabilities, &self.wgpu.dispatch()) {
            Reduction::Subgroup => &exit_prepare::SUBGROUP,
            Reduction::Workgroup => &exit_prepare::WORKGROUP,
        };
        let bindings = bindings.into_array();
        plan.dispatch(shader, constants.values(), &parameters, bindings, batch.count as u64)
    }

    /// One launch for each part of the weight.
    fn states(&self, plan: &mut PlanBuilder<'a>, batch: &Batch<'a>) -> Result<(), Error> {
        let op = self.op;
        let most = self.args.head_weight.rows_per_binding()?;
        // Parts are whole tiles.
        let most =
            if most < op.vocabulary { most / VOCABULARY_TILE * VOCABULARY_TILE } else { most };
        if most == 0 {
            return Err(Error::Unsupported {
                op: op.op,
                backend: Backend::Wgpu,
                reason: format!(
                    "{VOCABULARY_TILE} rows of head_weight exceed the device's \
                     max_storage_buffer_binding_size"
                ),
                remedy: "request the device with `required_limits: adapter.limits()`".into(),
            });
        }
        for first in (0..op.vocabulary).step_by(most) {
            self.part(plan, batch, first, most.min(op.vocabulary - first))?;
        }
        Ok(())
    }

    /// `count` of the weight's rows from `first` on.
    fn part(
        &self,
        plan: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let (op, args, capabilities) = (self.op, &self.args, self.wgpu.capabilities());
        let logits = args.logits.as_ref();
        let bindings = exit_states::Bindings {
            n: batch.n,
            info: batch.info,
            head_weight: args.head_weight.rows(first, count)?,
            head_bias: optional(&args.head_bias)?,
            state_values: args.state_values.whole()?,
            state_tokens: args.state_tokens.whole()?,
            logits: logits.map_or(Ok(Bound::ABSENT), |all| all.rows(batch.first, batch.count))?,
        };
        let row_groups = batch.count.div_ceil(GROUP_ROWS);
        let workgroups = (row_groups * count.div_ceil(VOCABULARY_TILE)) as u64;
        let [values, tokens] = [&args.state_values, &args.state_tokens].map(|states| {
            let layout = states.layout();
            // Fit, since the binding does.
            [layout.strides()[0] as u32, layout.strides()[1] as u32]
        });
        let parameters = exit_states::Parameters {
            features: op.hidden as u32,
            output_rows: batch.count as u32,
            row_groups: row_groups as u32,
            workgroups: u32::try_from(workgroups).unwrap_or(u32::MAX),
            first_index: first as u32,
            indices: count as u32,
            valid: op.valid_rows().saturating_sub(first).min(count) as u32,
            vocab_offset: op.vocab_offset as u32,
            first_tile: (first / VOCABULARY_TILE) as u32,
            first_row: batch.first as u32,
            top_k: op.top_k as u32,
            has_bias: u32::from(args.head_bias.is_some()),
            has_gather: u32::from(args.gather_tokens.is_some()),
            has_logits: u32::from(logits.is_some()),
            inv_temperature: op.inv_temperature(),
            softcap: op.softcap().unwrap_or(0.0),
            n_start: bindings.n.start,
            n_stride: scratch_stride(op.hidden) as u32,
            info_start: bindings.info.start,
            weight_start: bindings.head_weight.start,
            weight_stride: args.head_weight.stride(),
            bias_start: bindings.head_bias.start + first as u32,
            values_start: bindings.state_values.start,
            values_row_stride: values[1],
            values_tile_stride: values[0],
            tokens_start: bindings.state_tokens.start,
            tokens_row_stride: tokens[1],
            tokens_tile_stride: tokens[0],
            logits_start: bindings.logits.start,
            logits_stride: logits.map_or(0, Operand::stride),
        };
        let constants = exit_states::Constants {
            threads: (VOCABULARY_TILE as u32).min(capabilities.invocations),
            weight: dtype_code(op.weight_dtype),
            sample: args.positions.is_some(),
        };
        let vector = !self.wgpu.dispatch().scalar_loads && args.head_weight.is_vectorisable();
        let shader = if vector { &exit_states::VECTOR } else { &exit_states::SCALAR };
        let bindings = bindings.into_array();
        plan.dispatch(shader, constants.values(), &parameters, bindings, workgroups)
    }
}
