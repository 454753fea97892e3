//! `coupled_neurons` through wgpu.

use super::{CoupledNeurons, CoupledNeuronsArgs};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, WgpuWorkspace, check_disjoint,
};
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection::wgpu::{
    Parameters, Part, Selection, Set, THREADS, Wanted, dispatch,
};

impl Wgpu {
    /// Binds [`CoupledNeurons`] to buffers. Scores with gaps between their rows must fit one binding.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_coupled_neurons(
        &self,
        op: &CoupledNeurons,
        args: CoupledNeuronsArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let operand =
            |name, tensor| Operand::new(CoupledNeurons::NAME, name, tensor, self.capabilities());
        let scores = [
            operand("general", args.general)?,
            operand("first", args.first)?,
            operand("second", args.second)?,
        ];
        let indices = operand("indices", args.indices)?;
        let count = args.count.map(|count| operand("count", count)).transpose()?;
        check_disjoint(&indices, &scores)?;
        if let Some(count) = &count {
            check_disjoint(count, &scores)?;
            check_disjoint(count, &[indices])?;
        }
        let mut plan = PlanBuilder::new(self, CoupledNeurons::NAME);
        if op.relevant_elements() == 0 && count.is_none() {
            return plan.finish();
        }
        let k = [op.general_k, op.task_k, op.task_k];
        let sets = [0, 1, 2].map(|place| Set { scores: scores[place], k: k[place], place });
        let wanted =
            Wanted { capacity: op.capacity(), lists: op.is_positional(), count: count.is_some() };
        let selection = Selection::new(self, CoupledNeurons::NAME, &sets, wanted, workspace)?;
        let coupling = Coupling {
            selection,
            sets,
            indices: if op.capacity() == 0 { Bound::ABSENT } else { indices.whole()? },
            count: count.map_or(Ok(Bound::ABSENT), |count| count.whole())?,
        };
        if op.relevant_elements() == 0 {
            coupling.offsets(&mut plan, 0)?;
            return plan.finish();
        }
        for set in &coupling.sets {
            coupling.selection.threshold(&mut plan, set)?;
        }
        if op.is_positional() {
            coupling.positional(&mut plan)?;
        } else {
            coupling.intersect(&mut plan)?;
        }
        plan.finish()
    }
}

/// What follows the three thresholds.
struct Coupling<'a> {
    selection: Selection<'a>,
    sets: [Set<'a>; 3],
    indices: Bound<'a>,
    count: Bound<'a>,
}

impl<'a> Coupling<'a> {
    /// Parameters for a part, or for all, of one task's tensor.
    fn with_outputs(&self, parameters: Parameters) -> Parameters {
        let [general, _, second] = &self.sets;
        Parameters {
            general_stride: general.scores.stride(),
            second_stride: second.scores.stride(),
            other_state: self.selection.state(second),
            general_state: self.selection.state(general),
            indices_start: self.indices.start,
            count_start: self.count.start,
            ..parameters
        }
    }

    /// The three tensors' part, bound, and its parameters.
    fn part(&self, part: Part) -> Result<([Bound<'a>; 3], Parameters), Error> {
        let [general, first, second] = &self.sets;
        let bound = [
            self.selection.bind(general, part)?,
            self.selection.bind(first, part)?,
            self.selection.bind(second, part)?,
        ];
        let parameters = Parameters {
            general_start: bound[0].start,
            scores_start: bound[1].start,
            second_start: bound[2].start,
            ..self.with_outputs(self.selection.parameters(first, part))
        };
        Ok((bound, parameters))
    }

    fn offsets(&self, plan: &mut PlanBuilder<'a>, tiles: u32) -> Result<(), Error> {
        let selection = &self.selection;
        let all = self.with_outputs(selection.parameters_of_all(&self.sets[1]));
        let parameters = Parameters { all_tiles: tiles, ..all };
        dispatch!(selection, plan, coupled_offsets, parameters, selection.bits(), 1,
            { scratch: selection.workspace, indices: self.indices, count: self.count })
    }

    fn intersect(&self, plan: &mut PlanBuilder<'a>) -> Result<(), Error> {
        let selection = &self.selection;
        for &part in selection.parts() {
            let ([general, scores, second], parameters) = self.part(part)?;
            let tiles = Selection::tiles(part);
            dispatch!(selection, plan, coupled_count, parameters, selection.bits(), tiles,
                { scores: scores, second: second, general: general, scratch: selection.workspace })?;
        }
        let all = selection.parameters_of_all(&self.sets[1]);
        self.offsets(plan, all.all_tiles)?;
        for &part in selection.parts() {
            let ([general, scores, second], parameters) = self.part(part)?;
            let tiles = Selection::tiles(part);
            dispatch!(selection, plan, coupled_neurons, parameters, selection.bits(), tiles,
                { scores: scores, second: second, general: general, scratch: selection.workspace,
                  indices: self.indices })?;
        }
        Ok(())
    }

    fn positional(&self, plan: &mut PlanBuilder<'a>) -> Result<(), Error> {
        let selection = &self.selection;
        let scratch = selection.workspace;
        let all = self.with_outputs(selection.parameters_of_all(&self.sets[1]));
        for side in 0..2 {
            let set = &self.sets[1 + side];
            for &part in selection.parts() {
                let ([general, first, second], _) = self.part(part)?;
                let scores = [first, second][side];
                let parameters = Parameters {
                    scores_start: scores.start,
                    general_start: general.start,
                    side: side as u32,
                    ..self.with_outputs(selection.parameters(set, part))
                };
                let tiles = Selection::tiles(part);
                dispatch!(selection, plan, positional_list, parameters, selection.bits(), tiles,
                    { scores: scores, general: general, scratch: scratch })?;
            }
            let parameters = Parameters { side: side as u32, ..all };
            let workgroups = selection.capacity.div_ceil(THREADS as usize);
            dispatch!(selection, plan, positional_rank, parameters, selection.bits(), workgroups,
                { scratch: scratch })?;
        }
        dispatch!(selection, plan, positional_select, all, selection.bits(), 1,
            { scratch: scratch, indices: self.indices, count: self.count })
    }
}
