//! `selective_feature_attention` through wgpu, by the contracts in `kernels/feature_attention/selective_*.wgsl`.

use super::workspace::Sections;
use super::{Select, SelectiveFeatureAttention, SelectiveFeatureAttentionArgs, StackMode};
use crate::backend::wgpu::registry::{
    selective_expand, selective_gates, selective_squeeze, selective_total,
};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, WgpuWorkspace, dtype_code,
};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{HasLayout as _, Layout};
use crate::operation::Operation as _;
use crate::ops::early_exit::binding::check_outputs;
use crate::ops::feature_attention::gru::gru_tensors;
use crate::ops::feature_attention::gru::wgpu::{Layer, Product, States};

type Args<'a> = SelectiveFeatureAttentionArgs<Operand<'a>, Operand<'a>>;

impl Wgpu {
    /// Binds [`SelectiveFeatureAttention`] to buffers: three dispatches, three more for each branch, and one more for
    /// [`Select::GlobalSum`], for as many texts as the device can bind at once.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_selective_feature_attention(
        &self,
        op: &SelectiveFeatureAttention,
        args: SelectiveFeatureAttentionArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        const NAME: &str = SelectiveFeatureAttention::NAME;
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let [batch, steps] = op.extent(&layouts.x)?;
        let mut plan = PlanBuilder::new(self, NAME);
        if batch * steps == 0 {
            return plan.finish();
        }
        let capabilities = self.capabilities();
        let args = args.try_map(
            |info, tensor| Operand::new(NAME, info.name, tensor, capabilities),
            |info, tensor| Operand::new(NAME, info.name, tensor, capabilities),
        )?;
        check_outputs(args)?;
        let sections = op.workspace(batch, steps);
        let tensor = |offset: usize, shape: &[usize]| {
            workspace.tensor(NAME, offset as u64, shape, capabilities)
        };
        let call = Call {
            wgpu: self,
            op,
            extent: [batch, steps],
            workspace,
            reduced: tensor(sections.reduced, &[batch, steps, op.reduced])?,
            states: tensor(sections.states, &[batch, steps, op.branches * op.reduced])?,
            squeezed: tensor(sections.squeezed, &[batch, op.reduced + op.squeezed])?,
            weights: tensor(sections.weights, &[batch, op.branches * op.reduced])?,
            sections,
            args,
        };
        call.record(&mut plan)?;
        plan.finish()
    }
}

/// A call whose tensors have been checked.
struct Call<'a> {
    wgpu: &'a Wgpu,
    op: &'a SelectiveFeatureAttention,
    /// Texts and tokens of a text.
    extent: [usize; 2],
    workspace: WgpuWorkspace<'a>,
    sections: Sections,
    /// `[B, L, d1]`.
    reduced: Operand<'a>,
    /// `[B, L, N d1]`.
    states: Operand<'a>,
    /// `[B, d1 + d2]`.
    squeezed: Operand<'a>,
    /// `[B, N d1]`.
    weights: Operand<'a>,
    args: Args<'a>,
}

/// Some texts of the batch.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    count: usize,
}

impl<'a> Call<'a> {
    fn record(&self, plan: &mut PlanBuilder<'a>) -> Result<(), Error> {
        let reduce = Product {
            x: self.args.x,
            weight: self.args.reduce_weight,
            bias: self.args.reduce_bias,
            lengths: self.args.lengths,
            out: self.reduced,
        };
        reduce.record(self.wgpu, plan)?;
        self.branches(plan)?;
        let parts = self.parts()?;
        for part in &parts {
            self.squeeze(plan, part)?;
            for branch in 0..self.op.branches {
                self.gates(plan, part, branch)?;
            }
        }
        if self.op.select == Select::GlobalSum {
            self.total(plan)?;
        }
        parts.iter().try_for_each(|part| self.expand(plan, part))
    }

    fn parts(&self) -> Result<Vec<Part>, Error> {
        let batch = self.extent[0];
        let mut most = batch;
        for tensor in [self.states, self.squeezed, self.weights, self.args.out] {
            most = most.min(tensor.slices_per_binding()?);
        }
        let part = |first| Part { first, count: most.min(batch - first) };
        Ok((0..batch).step_by(most).map(part).collect())
    }

    /// The states of a branch among those of all, `[B, L, d1]`.
    fn branch_states(&self, branch: usize) -> Result<Operand<'a>, Error> {
        let [batch, steps] = self.extent;
        let (d1, row) = (self.op.reduced, self.op.branches * self.op.reduced);
        let layout = Layout::strided(DType::F32, &[batch, steps, d1], &[steps * row, row, 1])?;
        let offset = (self.sections.states + size_of::<f32>() * branch * d1) as u64;
        let capabilities = self.wgpu.capabilities();
        self.workspace.strided(SelectiveFeatureAttention::NAME, offset, layout, capabilities)
    }

    /// The final states of a branch, `[2, B, h]`, where the one before the branch before it had them.
    fn last_states(&self, branch: usize) -> Result<States<'a>, Error> {
        let offset = self.sections.last[branch % 2] as u64;
        let (name, capabilities) = (SelectiveFeatureAttention::NAME, self.wgpu.capabilities());
        let shape = [2, self.extent[0], self.op.hidden()];
        let tensor = self.workspace.tensor(name, offset, &shape, capabilities)?;
        Ok(States { tensor, first: 0, is_inner: true })
    }

    fn branches(&self, plan: &mut PlanBuilder<'a>) -> Result<(), Error> {
        let args = &self.args;
        let weights = gru_tensors!(args);
        let [batch, steps] = self.extent;
        let is_chained = self.op.stack_mode == StackMode::StateChained;
        for branch in 0..self.op.branches {
            let before = branch.checked_sub(1);
            let last = is_chained.then(|| self.last_states(branch)).transpose()?;
            let (x, initial) = match before {
                Some(before) if is_chained => (self.reduced, Some(self.last_states(before)?)),
                Some(before) => (self.branch_states(before)?, None),
                None => (self.reduced, None),
            };
            let layer = Layer {
                extent: self.op.gru_extent(batch, steps),
                weights: weights.layer(branch),
                x,
                is_inner: true,
                lengths: args.lengths,
                initial,
                out: self.branch_states(branch)?,
                last,
            };
            layer.record(self.wgpu, plan, self.workspace, &self.sections.gru)?;
        }
        Ok(())
    }

    fn lengths(&self, part: &Part) -> Result<Bound<'a>, Error> {
        let lengths = self.args.lengths;
        lengths.map_or(Ok(Bound::ABSENT), |lengths| lengths.elements(part.first, part.count))
    }

    /// Invocations of a workgroup that adds up many numbers.
    fn threads(&self) -> u32 {
        const MOST: u32 = 128;
        // A barrier of a software device switches between invocations one by one.
        const FEW: u32 = 32;
        let capabilities = self.wgpu.capabilities();
        if capabilities.cpu { FEW } else { MOST.min(capabilities.invocations) }
    }

    fn squeeze(&self, plan: &mut PlanBuilder<'a>, part: &Part) -> Result<(), Error> {
        let args = &self.args;
        let bindings = selective_squeeze::Bindings {
            states: self.states.slices(part.first, part.count)?,
            weight: args.squeeze_weight.whole()?,
            bias: optional(args.squeeze_bias)?,
            lengths: self.lengths(part)?,
            squeezed: self.squeezed.slices(part.first, part.count)?,
        };
        let constants = selective_squeeze::Constants {
            threads: self.threads(),
            weight: dtype_code(self.op.weight_dtype),
        };
        let parameters = selective_squeeze::Parameters {
            texts: part.count as u32,
            tokens: self.extent[1] as u32,
            reduced: self.op.reduced as u32,
            squeezed: self.op.squeezed as u32,
            branches: self.op.branches as u32,
            has_bias: u32::from(args.squeeze_bias.is_some()),
            has_lengths: u32::from(args.lengths.is_some()),
            states_start: bindings.states.start,
            weight_start: bindings.weight.start,
            weight_stride: args.squeeze_weight.stride(),
            bias_start: bindings.bias.start,
            lengths_start: bindings.lengths.start,
            squeezed_start: bindings.squeezed.start,
        };
        let (shader, workgroups) = (&selective_squeeze::ONLY, part.count as u64);
        plan.dispatch(shader, constants.values(), &parameters, bindings.into_array(), workgroups)
    }

    fn gates(&self, plan: &mut PlanBuilder<'a>, part: &Part, branch: usize) -> Result<(), Error> {
        let args = &self.args;
        let weight = *args.select_weight.get(branch).expect("validated: one for each branch");
        let bias = args.select_bias.get(branch).copied();
        let bindings = selective_gates::Bindings {
            squeezed: self.squeezed.slices(part.first, part.count)?,
            weight: weight.whole()?,
            bias: optional(bias)?,
            lengths: self.lengths(part)?,
            weights: self.weights.slices(part.first, part.count)?,
        };
        let constants = selective_gates::Constants {
            weight: dtype_code(self.op.weight_dtype),
            ..selective_gates::Constants::default()
        };
        let is_last = branch + 1 == self.op.branches;
        let parameters = selective_gates::Parameters {
            texts: part.count as u32,
            tokens: self.extent[1] as u32,
            reduced: self.op.reduced as u32,
            squeezed: self.op.squeezed as u32,
            branches: self.op.branches as u32,
            branch: branch as u32,
            normalises: u32::from(is_last && self.op.select == Select::BranchSoftmax),
            has_bias: u32::from(bias.is_some()),
            has_lengths: u32::from(args.lengths.is_some()),
            squeezed_start: bindings.squeezed.start,
            weight_start: bindings.weight.start,
            weight_stride: weight.stride(),
            bias_start: bindings.bias.start,
            lengths_start: bindings.lengths.start,
            weights_start: bindings.weights.start,
        };
        let workgroups = (part.count * self.op.reduced).div_ceil(constants.threads as usize);
        let shader = &selective_gates::ONLY;
        let bindings = bindings.into_array();
        plan.dispatch(shader, constants.values(), &parameters, bindings, workgroups as u64)
    }

    fn total(&self, plan: &mut PlanBuilder<'a>) -> Result<(), Error> {
        let bindings = selective_total::Bindings { weights: self.weights.whole()? };
        let constants = selective_total::Constants { threads: self.threads() };
        let parameters = selective_total::Parameters {
            elements: self.weights.layout().elements() as u32,
            weights_start: bindings.weights.start,
        };
        let shader = &selective_total::ONLY;
        plan.dispatch(shader, constants.values(), &parameters, bindings.into_array(), 1)
    }

    fn expand(&self, plan: &mut PlanBuilder<'a>, part: &Part) -> Result<(), Error> {
        let args = &self.args;
        let (weight, out) = (args.expand_weight, args.out);
        let bindings = selective_expand::Bindings {
            states: self.states.slices(part.first, part.count)?,
            weights: self.weights.slices(part.first, part.count)?,
            weight: weight.whole()?,
            bias: optional(args.expand_bias)?,
            lengths: self.lengths(part)?,
            out: out.slices(part.first, part.count)?,
        };
        let constants = selective_expand::Constants {
            weight: dtype_code(self.op.weight_dtype),
            out: dtype_code(out.layout().dtype()),
            ..selective_expand::Constants::default()
        };
        let steps = self.extent[1];
        let token_tiles = (part.count * steps).div_ceil(4 * constants.threads_m as usize);
        let row_tiles = self.op.features.div_ceil(4 * constants.threads_n as usize);
        let workgroups = token_tiles as u64 * row_tiles as u64;
        // Strides that do not fit lead to a binding too large, or nowhere.
        let stride = |axis| u32::try_from(out.layout().strides()[axis]).unwrap_or(u32::MAX);
        let parameters = selective_expand::Parameters {
            texts: part.count as u32,
            tokens: steps as u32,
            reduced: self.op.reduced as u32,
            branches: self.op.branches as u32,
            features: self.op.features as u32,
            token_tiles: token_tiles as u32,
            workgroups: workgroups as u32,
            has_bias: u32::from(args.expand_bias.is_some()),
            has_lengths: u32::from(args.lengths.is_some()),
            states_start: bindings.states.start,
            weights_start: bindings.weights.start,
            weight_start: bindings.weight.start,
            weight_stride: weight.stride(),
            bias_start: bindings.bias.start,
            lengths_start: bindings.lengths.start,
            out_start: bindings.out.start,
            out_text_stride: stride(0),
            out_token_stride: stride(1),
        };
        let shader = &selective_expand::ONLY;
        plan.dispatch(shader, constants.values(), &parameters, bindings.into_array(), workgroups)
    }
}

fn optional(tensor: Option<Operand<'_>>) -> Result<Bound<'_>, Error> {
    tensor.map_or(Ok(Bound::ABSENT), |tensor| tensor.whole())
}
