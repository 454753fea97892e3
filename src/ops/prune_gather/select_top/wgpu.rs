//! `select_top` through wgpu.

use super::{SelectTop, SelectTopArgs};
use crate::backend::wgpu::{
    Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, WgpuWorkspace, check_disjoint,
};
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection::wgpu::{Parameters, Selection, Set, Wanted, dispatch};

impl Wgpu {
    /// Binds [`SelectTop`] to buffers. Scores with gaps between their rows must fit one binding.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_select_top(
        &self,
        op: &SelectTop,
        args: SelectTopArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let mut plan = PlanBuilder::new(self, SelectTop::NAME);
        if op.k == 0 {
            return plan.finish();
        }
        let operand =
            |name, tensor| Operand::new(SelectTop::NAME, name, tensor, self.capabilities());
        let scores = operand("scores", args.scores)?;
        let indices = operand("indices", args.indices)?;
        check_disjoint(&indices, &[scores])?;
        let set = Set { scores, k: op.k, place: 0 };
        let wanted = Wanted { capacity: op.k, lists: false, count: false };
        let selection = Selection::new(self, SelectTop::NAME, &[set], wanted, workspace)?;
        selection.threshold(&mut plan, &set)?;
        for &part in selection.parts() {
            let (scores, indices) = (selection.bind(&set, part)?, indices.whole()?);
            let parameters = Parameters {
                scores_start: scores.start,
                indices_start: indices.start,
                ..selection.parameters(&set, part)
            };
            let tiles = Selection::tiles(part);
            dispatch!(selection, plan, select_top, parameters, selection.bits(), tiles,
                { scores: scores, scratch: selection.workspace, indices: indices })?;
        }
        plan.finish()
    }
}
