//! Heads through wgpu: a launch for each part of the weight that fits a binding. Where a device binds few buffers, rows
//! are prepared first.

use super::{ExitHead, ExitHeadArgs, ExitHeadStates, ExitHeadStatesArgs};
use crate::backend::wgpu::registry::{exit_prepare, exit_states, exit_states_prepared};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Reduction, Wgpu, WgpuTensor, WgpuWorkspace, dtype_code,
};
use crate::error::{Backend, Error};
use crate::layout::HasLayout as _;
use crate::ops::early_exit::VOCABULARY_TILE;
use crate::ops::early_exit::binding::{check_outputs, optional};
use crate::ops::early_exit::config::{HeadConfig, INFO_WORDS};
use crate::ops::early_exit::merge_exit_states::wgpu as merge;
use crate::ops::early_exit::state;
use crate::ops::silu_mlp::mlp::config::scratch_stride;
use crate::ops::silu_mlp::mlp::wgpu::strategy;

/// Rows that a workgroup of `exit_states` takes.
const GROUP_ROWS: usize = 8;
/// Storage buffers that `exit_states` binds.
const INPUTS_AND_STATES: u32 = 11;

impl Wgpu {
    /// Binds [`ExitHead`] to buffers: two dispatches whatever the options, a pass over the weight and a merge.
    ///
    /// A device that binds fewer than 11 storage buffers a shader takes one dispatch more, which prepares the rows, and
    /// another one for more than six results; [`Wgpu::open`] asks for what the adapter has. So does a software device, see
    /// [`WgpuDispatch::few_buffers`](crate::backend::wgpu::WgpuDispatch::few_buffers). A weight that exceeds the largest binding
    /// takes a pass for each part. Rows are prepared, too, if an output shares a buffer with an input.
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
        op.config.validate_results(&layouts)?;
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

    /// Binds [`ExitHeadStates`] to buffers: one dispatch, or two, as of [`Wgpu::plan_exit_head`]'s first half.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_exit_head_states(
        &self,
        op: &ExitHeadStates,
        args: ExitHeadStatesArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        op.config.validate_states(&args.layouts())?;
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

/// Some rows of the outputs.
struct Batch<'a> {
    first: usize,
    count: usize,
    prepared: Option<Prepared<'a>>,
}

/// Some rows of the weight.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    count: usize,
}

/// Where rows are prepared, and what else is told of them.
#[derive(Clone, Copy)]
struct Prepared<'a> {
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
        let is_prepared = self.is_prepared();
        let mut most = rows;
        if is_prepared {
            let limit = usize::try_from(capabilities.storage_binding_bytes).unwrap_or(usize::MAX);
            most = (limit / (columns * size_of::<f32>())).max(1);
        }
        if let Some(logits) = &self.args.logits {
            most = most.min(logits.rows_per_binding()?);
        }
        let behind_n = offset + (op.prepared_bytes(rows) - op.info_bytes(rows)) as u64;
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            let mut batch = Batch { first, count, prepared: None };
            if is_prepared {
                let scratch = |offset, columns| {
                    workspace.tensor(op.op, offset, &[count, columns], capabilities)?.whole()
                };
                let (n, info) = (scratch(offset, columns)?, scratch(behind_n, INFO_WORDS)?);
                let prepared = Prepared { n, info };
                self.prepare(plan, &batch, prepared)?;
                batch.prepared = Some(prepared);
            }
            self.states(plan, &batch)?;
        }
        Ok(())
    }

    /// Whether the inputs cannot be bound beside the outputs. Never by the number of rows, on which no bit may depend.
    fn is_prepared(&self) -> bool {
        let args = &self.args;
        let inputs = [
            Some(args.hidden),
            args.norm_weight,
            args.rows,
            args.positions,
            args.gather_tokens,
            args.seeds,
        ];
        let outputs = [Some(args.state_values), Some(args.state_tokens), args.logits];
        let shares =
            |output: &Operand<'_>| inputs.iter().flatten().any(|input| input.shares_buffer(output));
        self.wgpu.storage_buffers() < INPUTS_AND_STATES || outputs.iter().flatten().any(shares)
    }

    fn prepare(
        &self,
        plan: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
        prepared: Prepared<'a>,
    ) -> Result<(), Error> {
        let (op, args, capabilities) = (self.op, &self.args, self.wgpu.capabilities());
        let hidden_rows = args.hidden.layout().shape()[0];
        let bindings = exit_prepare::Bindings {
            hidden: optional(&Some(args.hidden))?,
            norm_weight: optional(&args.norm_weight)?,
            rows: optional(&args.rows)?,
            positions: optional(&args.positions)?,
            gather_tokens: optional(&args.gather_tokens)?,
            seeds: optional(&args.seeds)?,
            n: prepared.n,
            info: prepared.info,
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
        let (op, args) = (self.op, &self.args);
        let logits = args.logits.as_ref();
        let bindings = exit_states::Bindings {
            head_weight: args.head_weight.rows(first, count)?,
            head_bias: optional(&args.head_bias)?,
            state_values: args.state_values.whole()?,
            state_tokens: args.state_tokens.whole()?,
            logits: logits.map_or(Ok(Bound::ABSENT), |all| all.rows(batch.first, batch.count))?,
            hidden: optional(&Some(args.hidden))?,
            norm_weight: optional(&args.norm_weight)?,
            rows: optional(&args.rows)?,
            positions: optional(&args.positions)?,
            gather_tokens: optional(&args.gather_tokens)?,
            seeds: optional(&args.seeds)?,
        };
        let part = Part { first, count };
        let parameters = self.parameters(batch, part, &bindings);
        let workgroups = u64::from(parameters.workgroups);
        let vector = !self.wgpu.dispatch().scalar_loads && args.head_weight.is_vectorisable();
        let threads = (VOCABULARY_TILE as u32).min(self.wgpu.capabilities().invocations);
        let (weight, sample) = (dtype_code(op.weight_dtype), args.positions.is_some());
        let Some(prepared) = batch.prepared else {
            let norm = op.norm.is_some();
            let activation = dtype_code(op.activation_dtype);
            let constants = exit_states::Constants { norm, activation, threads, weight, sample };
            let shader = if vector { &exit_states::VECTOR } else { &exit_states::SCALAR };
            let bindings = bindings.into_array();
            return plan.dispatch(shader, constants.values(), &parameters, bindings, workgroups);
        };
        let bindings = exit_states_prepared::Bindings {
            head_weight: bindings.head_weight,
            head_bias: bindings.head_bias,
            state_values: bindings.state_values,
            state_tokens: bindings.state_tokens,
            logits: bindings.logits,
            n: prepared.n,
            info: prepared.info,
        };
        let constants = exit_states_prepared::Constants { threads, weight, sample };
        let shader =
            if vector { &exit_states_prepared::VECTOR } else { &exit_states_prepared::SCALAR };
        let bindings = bindings.into_array();
        plan.dispatch(shader, constants.values(), &parameters, bindings, workgroups)
    }

    /// Of both shaders, which have them in common.
    fn parameters(
        &self,
        batch: &Batch<'a>,
        part: Part,
        bindings: &exit_states::Bindings<Bound<'a>>,
    ) -> exit_states::Parameters {
        let (op, args) = (self.op, &self.args);
        let row_groups = batch.count.div_ceil(GROUP_ROWS);
        let workgroups = (row_groups * part.count.div_ceil(VOCABULARY_TILE)) as u64;
        let [values, tokens] = [&args.state_values, &args.state_tokens].map(|states| {
            let layout = states.layout();
            // Fit, since the binding does.
            [layout.strides()[0] as u32, layout.strides()[1] as u32]
        });
        let (rows_start, rows_stride) = match &batch.prepared {
            Some(prepared) => (prepared.n.start, scratch_stride(op.hidden) as u32),
            None => (bindings.hidden.start, args.hidden.stride()),
        };
        exit_states::Parameters {
            features: op.hidden as u32,
            output_rows: batch.count as u32,
            row_groups: row_groups as u32,
            workgroups: u32::try_from(workgroups).unwrap_or(u32::MAX),
            first_index: part.first as u32,
            indices: part.count as u32,
            valid: op.valid_rows().saturating_sub(part.first).min(part.count) as u32,
            vocab_offset: op.vocab_offset as u32,
            first_tile: (part.first / VOCABULARY_TILE) as u32,
            first_row: batch.first as u32,
            top_k: op.top_k as u32,
            has_bias: u32::from(args.head_bias.is_some()),
            has_gather: u32::from(args.gather_tokens.is_some()),
            has_logits: u32::from(args.logits.is_some()),
            inv_temperature: op.inv_temperature(),
            softcap: op.softcap().unwrap_or(0.0),
            weight_start: bindings.head_weight.start,
            weight_stride: args.head_weight.stride(),
            bias_start: bindings.head_bias.start + part.first as u32,
            values_start: bindings.state_values.start,
            values_row_stride: values[1],
            values_tile_stride: values[0],
            tokens_start: bindings.state_tokens.start,
            tokens_row_stride: tokens[1],
            tokens_tile_stride: tokens[0],
            logits_start: bindings.logits.start,
            logits_stride: args.logits.map_or(0, |logits| logits.stride()),
            rows_start,
            rows_stride,
            info_start: batch.prepared.map_or(0, |prepared| prepared.info.start),
            hidden_rows: args.hidden.layout().shape()[0] as u32,
            has_selection: u32::from(args.rows.is_some()),
            has_seeds: u32::from(args.seeds.is_some()),
            eps: op.norm.map_or(0.0, |eps| eps.0),
            norm_start: bindings.norm_weight.start,
            selection_start: bindings.rows.start,
            positions_start: bindings.positions.start,
            gather_start: bindings.gather_tokens.start,
            seeds_start: bindings.seeds.start,
            seeds_stride: args.seeds.map_or(0, |seeds| seeds.stride()),
            seed_low: op.seed as u32,
            seed_high: (op.seed >> 32) as u32,
        }
    }
}
