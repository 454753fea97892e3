//! `verify_sampled` through wgpu: what sequences ask for, each row on its own, the walks, and their ends.

use super::{FilterOrder, SampledMode, SampledValues, Scratch, VerifySampled, VerifySampledArgs};
use crate::backend::wgpu::registry::{sampled_prepare, sampled_rows, sampled_walk};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, WgpuWorkspace, dtype_code,
};
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::early_exit::binding::{check_outputs, optional};
use crate::ops::early_exit::verification::wgpu::{Inputs, Source, record, threads};
use crate::ops::early_exit::verification::{Batch, common, walk_words};

impl Wgpu {
    /// Binds [`VerifySampled`] to buffers. Each tensor must fit one binding; the workspace takes
    /// [`Operation::workspace_bytes`](crate::Operation) bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_verify_sampled(
        &self,
        op: &VerifySampled,
        args: VerifySampledArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let batch = op.batch(&layouts.draft, &layouts.offsets)?;
        let mut plan = PlanBuilder::new(self, VerifySampled::NAME);
        if batch.sequences == 0 {
            return plan.finish();
        }
        let operand =
            |name, tensor| Operand::new(VerifySampled::NAME, name, tensor, self.capabilities());
        let args =
            args.try_map(|info, t| operand(info.name, t), |info, t| operand(info.name, t))?;
        check_outputs(args)?;
        let parts = op.scratch(batch.sequences);
        let memory = |words: usize, shape: &[usize]| {
            let offset = (words * 4) as u64;
            workspace.tensor(VerifySampled::NAME, offset, shape, self.capabilities())
        };
        let scratch = memory(0, &[parts.bytes() / 4])?.whole()?;
        let call = Call { wgpu: self, op, batch, args, parts, scratch };
        call.prepare(&mut plan)?;
        call.rows(&mut plan, false)?;
        if batch.drafts > 0 && args.draft_distribution.is_some() {
            call.rows(&mut plan, true)?;
        }
        call.walk(&mut plan)?;
        let words = walk_words(op.max_draft);
        let common = common!(args);
        let inputs = Inputs {
            draft: common.draft,
            offsets: common.offsets,
            stop_ids: common.stop_ids,
            budget: common.budget,
            source: memory(parts.walks(), &[batch.sequences, words])?.whole()?,
            source_stride: words as u32,
        };
        record(self, &mut plan, &batch, Source::Walks, &inputs, &common.outputs.coded())?;
        plan.finish()
    }
}

/// A call's tensors, checked.
struct Call<'a> {
    wgpu: &'a Wgpu,
    op: &'a VerifySampled,
    batch: Batch,
    args: VerifySampledArgs<Operand<'a>, Operand<'a>>,
    parts: Scratch,
    scratch: Bound<'a>,
}

impl<'a> Call<'a> {
    /// Invocations of a workgroup that owns a row: a power of two.
    fn row_threads(&self) -> u32 {
        128.min(self.wgpu.capabilities().invocations)
    }

    /// First words of the sequences, and of the walks.
    fn places(&self) -> [u32; 2] {
        [self.parts.profiles(), self.parts.walks()].map(|word| self.scratch.start + word as u32)
    }

    fn prepare(&self, plan: &mut PlanBuilder<'a>) -> Result<(), Error> {
        let args = &self.args;
        let bindings = sampled_prepare::Bindings {
            offsets: args.offsets.whole()?,
            temperature: optional(&args.temperature)?,
            top_k: optional(&args.top_k)?,
            top_p: optional(&args.top_p)?,
            min_p: optional(&args.min_p)?,
            positions: optional(&args.positions)?,
            seeds: optional(&args.seeds)?,
            scratch: self.scratch,
        };
        let given = [
            &args.temperature,
            &args.top_k,
            &args.top_p,
            &args.min_p,
            &args.positions,
            &args.seeds,
        ];
        let bit = |(place, tensor): (usize, &&Option<_>)| u32::from(tensor.is_some()) << place;
        let parameters = sampled_prepare::Parameters {
            sequences: self.batch.sequences as u32,
            drafts: self.batch.drafts as u32,
            max_draft: self.batch.max_draft as u32,
            given: given.iter().enumerate().map(bit).sum(),
            seed_low: self.op.seed as u32,
            seed_high: (self.op.seed >> 32) as u32,
            offsets_start: bindings.offsets.start,
            temperature_start: bindings.temperature.start,
            top_k_start: bindings.top_k.start,
            top_p_start: bindings.top_p.start,
            min_p_start: bindings.min_p.start,
            positions_start: bindings.positions.start,
            seeds_start: bindings.seeds.start,
            seeds_stride: args.seeds.map_or(0, |seeds| seeds.stride()),
            sequences_start: self.places()[0],
        };
        let constants = sampled_prepare::Constants { threads: threads(self.wgpu) };
        let workgroups = (self.batch.sequences as u64).div_ceil(u64::from(constants.threads));
        let bindings = bindings.into_array();
        let shader = &sampled_prepare::ONLY;
        plan.dispatch(shader, constants.values(), &parameters, bindings, workgroups)
    }

    /// Rows of the target, or of the drafts' distributions.
    fn rows(&self, plan: &mut PlanBuilder<'a>, of_drafts: bool) -> Result<(), Error> {
        let (op, args) = (self.op, &self.args);
        let values = args.draft_distribution.filter(|_| of_drafts).unwrap_or(args.target);
        let bindings = sampled_rows::Bindings {
            values: values.whole()?,
            draft: optional(&Some(args.draft))?,
            scratch: self.scratch,
        };
        let profiles = if of_drafts { self.parts.profiles() / 2 } else { 0 };
        let parameters = sampled_rows::Parameters {
            rows: self.parts.slots as u32,
            slots: op.max_draft as u32 + 1,
            valid: op.valid_vocab as u32,
            is_logits: u32::from(op.values == SampledValues::Logits),
            is_draft: u32::from(of_drafts),
            is_sequential: u32::from(op.filter == FilterOrder::Sequential),
            sum_tolerance: op.sum_tolerance(),
            values_start: bindings.values.start,
            values_stride: values.stride(),
            draft_start: bindings.draft.start,
            profiles_start: self.scratch.start + profiles as u32,
            sequences_start: self.places()[0],
        };
        let constants = sampled_rows::Constants {
            threads: self.row_threads(),
            values: dtype_code(op.dtype),
            sample: op.mode == SampledMode::Match,
        };
        let rows = self.parts.slots as u64;
        let bindings = bindings.into_array();
        plan.dispatch(&sampled_rows::ONLY, constants.values(), &parameters, bindings, rows)
    }

    fn walk(&self, plan: &mut PlanBuilder<'a>) -> Result<(), Error> {
        let (op, args) = (self.op, &self.args);
        let bindings = sampled_walk::Bindings {
            p_values: args.target.whole()?,
            q_values: optional(&args.draft_distribution)?,
            draft: optional(&Some(args.draft))?,
            uniforms: optional(&args.uniforms)?,
            scratch: self.scratch,
        };
        let [sequences_start, walks_start] = self.places();
        let stride = |tensor: &Option<Operand<'_>>| tensor.map_or(0, |tensor| tensor.stride());
        let parameters = sampled_walk::Parameters {
            sequences: self.batch.sequences as u32,
            slots: op.max_draft as u32 + 1,
            valid: op.valid_vocab as u32,
            is_logits: u32::from(op.values == SampledValues::Logits),
            mode: match op.mode {
                SampledMode::Match => 0,
                SampledMode::OneHot => 1,
                SampledMode::Full => 2,
                SampledMode::Block => 3,
            },
            has_uniforms: u32::from(args.uniforms.is_some()),
            p_start: bindings.p_values.start,
            p_stride: args.target.stride(),
            q_start: bindings.q_values.start,
            q_stride: stride(&args.draft_distribution),
            draft_start: bindings.draft.start,
            uniforms_start: bindings.uniforms.start,
            uniforms_stride: stride(&args.uniforms),
            sequences_start,
            q_profiles_start: self.scratch.start + (self.parts.profiles() / 2) as u32,
            walks_start,
            walk_words: self.parts.walk_words as u32,
        };
        let constants =
            sampled_walk::Constants { threads: self.row_threads(), values: dtype_code(op.dtype) };
        let sequences = self.batch.sequences as u64;
        let bindings = bindings.into_array();
        plan.dispatch(&sampled_walk::ONLY, constants.values(), &parameters, bindings, sequences)
    }
}
