//! `verify_tree` through wgpu: a launch that walks, and one for every three results.

use super::{VerifyTree, VerifyTreeArgs};
use crate::backend::wgpu::registry::verify_tree::{Bindings, Constants, ONLY, Parameters};
use crate::backend::wgpu::{Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::early_exit::binding::{check_outputs, optional};
use crate::ops::early_exit::verification::wgpu::{Coded, Inputs, PATH, Source, record, threads};
use crate::ops::early_exit::verification::{common, walk_words};

impl Wgpu {
    /// Binds [`VerifyTree`] to buffers; the workspace takes [`Operation::workspace_bytes`](crate::Operation) bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_verify_tree(
        &self,
        op: &VerifyTree,
        args: VerifyTreeArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let batch = op.batch(&layouts)?;
        let mut plan = PlanBuilder::new(self, VerifyTree::NAME);
        if batch.sequences == 0 {
            return plan.finish();
        }
        let operand =
            |name, tensor| Operand::new(VerifyTree::NAME, name, tensor, self.capabilities());
        let args =
            args.try_map(|info, t| operand(info.name, t), |info, t| operand(info.name, t))?;
        check_outputs(args)?;
        let words = walk_words(op.max_draft);
        let walks = Layout::contiguous(DType::I32, &[batch.sequences, words])?;
        let walks = workspace.tensor(VerifyTree::NAME, 0, walks.shape(), self.capabilities())?;
        let bindings = Bindings {
            draft: optional(&Some(args.draft))?,
            offsets: args.offsets.whole()?,
            first_child: args.first_child.whole()?,
            next_sibling: optional(&Some(args.next_sibling))?,
            target_tokens: args.target.whole()?,
            walks: walks.whole()?,
        };
        let parameters = Parameters {
            sequences: batch.sequences as u32,
            drafts: batch.drafts as u32,
            max_draft: batch.max_draft as u32,
            draft_start: bindings.draft.start,
            offsets_start: bindings.offsets.start,
            first_child_start: bindings.first_child.start,
            next_sibling_start: bindings.next_sibling.start,
            target_start: bindings.target_tokens.start,
            walks_start: bindings.walks.start,
        };
        let constants = Constants { threads: threads(self) };
        let workgroups = (batch.sequences as u64).div_ceil(u64::from(constants.threads));
        plan.dispatch(&ONLY, constants.values(), &parameters, bindings.into_array(), workgroups)?;

        let path = Coded { code: PATH, operand: args.path };
        let common = common!(args);
        let mut results = common.outputs.coded();
        results.insert(0, path);
        let inputs = Inputs {
            draft: common.draft,
            offsets: common.offsets,
            stop_ids: common.stop_ids,
            budget: common.budget,
            source: walks.whole()?,
            source_stride: words as u32,
        };
        record(self, &mut plan, &batch, Source::Walks, &inputs, &results)?;
        plan.finish()
    }
}
