//! `invert_indices` through wgpu.

use super::{InvertIndices, InvertIndicesArgs};
use crate::backend::wgpu::registry::invert_indices::{Bindings, Constants, ONLY, Parameters};
use crate::backend::wgpu::{Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, check_disjoint};
use crate::error::Error;
use crate::operation::Operation as _;

/// Features an invocation looks for.
const ITEMS: u32 = 4;

impl Wgpu {
    /// Binds [`InvertIndices`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_invert_indices(
        &self,
        op: &InvertIndices,
        args: InvertIndicesArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let operand =
            |name, tensor| Operand::new(InvertIndices::NAME, name, tensor, self.capabilities());
        let indices = operand("indices", args.indices)?;
        let rank = operand("rank", args.rank)?;
        let flag = args.first_invalid.map(|flag| operand("first_invalid", flag)).transpose()?;
        check_disjoint(&rank, &[indices])?;
        if let Some(flag) = &flag {
            check_disjoint(flag, &[indices, rank])?;
        }
        let threads = self.capabilities().invocations.min(256);
        // Of empty tensors there is nothing to bind.
        let bindings = Bindings {
            indices: if op.selected == 0 { Bound::ABSENT } else { indices.whole()? },
            rank: if op.features == 0 { Bound::ABSENT } else { rank.whole()? },
            first_invalid: flag.map_or(Ok(Bound::ABSENT), |flag| flag.whole())?,
        };
        let parameters = Parameters {
            selected: op.selected as u32,
            features: op.features as u32,
            indices_start: bindings.indices.start,
            rank_start: bindings.rank.start,
            first_invalid_start: bindings.first_invalid.start,
        };
        let constants = Constants { threads, flag: flag.is_some() };
        let workgroups = (op.features as u64).div_ceil(u64::from(threads * ITEMS)).max(1);
        let mut plan = PlanBuilder::new(self, InvertIndices::NAME);
        plan.dispatch(&ONLY, constants.values(), &parameters, bindings.into_array(), workgroups)?;
        plan.finish()
    }
}
