//! A ragged batch of drafts through wgpu, by the contract in `kernels/early_exit/verify_end.wgsl`.

use super::{Batch, Outputs};
use crate::backend::wgpu::registry::verify_end;
use crate::backend::wgpu::{Bound, Operand, PlanBuilder, Wgpu};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::ops::early_exit::binding::optional;

/// A result and what it is, as the shader knows it.
#[derive(Clone, Copy)]
pub(in crate::ops::early_exit) struct Coded<'a> {
    pub code: u32,
    pub operand: Operand<'a>,
}

/// The code of a tree's paths.
pub(in crate::ops::early_exit) const PATH: u32 = 2;

impl<'a> Outputs<Operand<'a>> {
    /// Those that are wanted.
    pub fn coded(&self) -> Vec<Coded<'a>> {
        let coded = [
            (1, self.tokens),
            (3, self.accepted),
            (4, self.emitted),
            (5, self.next_token),
            (6, self.last_row),
            (7, self.finish),
        ];
        let wanted = |(code, operand): (u32, Option<Operand<'a>>)| {
            operand.map(|operand| Coded { code, operand })
        };
        coded.into_iter().filter_map(wanted).collect()
    }
}

/// What is bound apart from the results.
pub(in crate::ops::early_exit) struct Inputs<'a> {
    pub draft: Operand<'a>,
    pub offsets: Operand<'a>,
    pub stop_ids: Option<Operand<'a>>,
    pub budget: Option<Operand<'a>>,
    /// What the walks are read from, and elements between the rows of sequences in it.
    pub source: Bound<'a>,
    pub source_stride: u32,
}

/// What walks are read from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::ops::early_exit) enum Source {
    /// Target tokens, along which it walks itself.
    Target,
    /// Walks that the launch before has stored.
    Walks,
}

/// Results of one launch: with five inputs that is what every device can bind.
const RESULTS: usize = 3;

/// Invocations of a workgroup.
pub(in crate::ops::early_exit) fn threads(wgpu: &Wgpu) -> u32 {
    64.min(wgpu.capabilities().invocations)
}

/// Adds a launch for every three results; there is at least one sequence.
pub(in crate::ops::early_exit) fn record<'a>(
    wgpu: &Wgpu,
    plan: &mut PlanBuilder<'a>,
    batch: &Batch,
    source: Source,
    inputs: &Inputs<'a>,
    results: &[Coded<'a>],
) -> Result<(), Error> {
    for results in results.chunks(RESULTS) {
        let out = |index: usize| optional(&results.get(index).map(|result| result.operand));
        let bindings = verify_end::Bindings {
            draft: optional(&Some(inputs.draft))?,
            offsets: inputs.offsets.whole()?,
            stop_ids: optional(&inputs.stop_ids)?,
            budget: optional(&inputs.budget)?,
            walk_source: inputs.source,
            out_0: out(0)?,
            out_1: out(1)?,
            out_2: out(2)?,
        };
        // A result without elements is none: there is nothing to write.
        let code = |index: usize| match results.get(index) {
            Some(result) if result.operand.layout().elements() > 0 => result.code,
            _ => 0,
        };
        let stride = |index: usize| match results.get(index) {
            Some(result) if result.operand.layout().shape().len() == 2 => result.operand.stride(),
            _ => 1,
        };
        let stop_count = inputs.stop_ids.map_or(0, |ids| ids.layout().elements());
        let parameters = verify_end::Parameters {
            sequences: batch.sequences as u32,
            drafts: batch.drafts as u32,
            max_draft: batch.max_draft as u32,
            stop_count: stop_count as u32,
            has_budget: u32::from(inputs.budget.is_some()),
            draft_start: bindings.draft.start,
            offsets_start: bindings.offsets.start,
            stop_ids_start: bindings.stop_ids.start,
            budget_start: bindings.budget.start,
            source_start: bindings.walk_source.start,
            source_stride: inputs.source_stride,
            out_0_code: code(0),
            out_0_start: bindings.out_0.start,
            out_0_stride: stride(0),
            out_1_code: code(1),
            out_1_start: bindings.out_1.start,
            out_1_stride: stride(1),
            out_2_code: code(2),
            out_2_start: bindings.out_2.start,
            out_2_stride: stride(2),
        };
        let threads = threads(wgpu);
        let workgroups = (batch.sequences as u64).div_ceil(u64::from(threads));
        let shader = match source {
            Source::Target => &verify_end::TARGET,
            Source::Walks => &verify_end::STORED,
        };
        let constants = verify_end::Constants { threads }.values();
        plan.dispatch(shader, constants, &parameters, bindings.into_array(), workgroups)?;
    }
    Ok(())
}
