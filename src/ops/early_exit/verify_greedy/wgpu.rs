//! `verify_greedy` through wgpu: a launch for every three results.

use super::{VerifyGreedy, VerifyGreedyArgs};
use crate::backend::wgpu::{Operand, Plan, PlanBuilder, Wgpu, WgpuTensor};
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::early_exit::binding::check_outputs;
use crate::ops::early_exit::verification::common;
use crate::ops::early_exit::verification::wgpu::{Inputs, Source, record};

impl Wgpu {
    /// Binds [`VerifyGreedy`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_verify_greedy(
        &self,
        op: &VerifyGreedy,
        args: VerifyGreedyArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let batch = op.batch(&layouts)?;
        let mut plan = PlanBuilder::new(self, VerifyGreedy::NAME);
        if batch.sequences == 0 {
            return plan.finish();
        }
        let operand =
            |name, tensor| Operand::new(VerifyGreedy::NAME, name, tensor, self.capabilities());
        let args =
            args.try_map(|info, t| operand(info.name, t), |info, t| operand(info.name, t))?;
        check_outputs(args)?;
        let target = args.target;
        let common = common!(args);
        let inputs = Inputs {
            draft: common.draft,
            offsets: common.offsets,
            stop_ids: common.stop_ids,
            budget: common.budget,
            source: target.whole()?,
            source_stride: 0,
        };
        record(self, &mut plan, &batch, Source::Target, &inputs, &common.outputs.coded())?;
        plan.finish()
    }
}
