//! `compact_mask` through wgpu.

use super::{CompactMask, CompactMaskArgs};
use crate::backend::wgpu::registry::compact_mask::{Bindings, Constants, ONLY, Parameters};
use crate::backend::wgpu::{Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, check_disjoint};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;

impl Wgpu {
    /// Binds [`CompactMask`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_compact_mask(
        &self,
        op: &CompactMask,
        args: CompactMaskArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let masks = op.masks(&args.mask.layout())?;
        let operand =
            |name, tensor| Operand::new(CompactMask::NAME, name, tensor, self.capabilities());
        let mask = operand("mask", args.mask)?;
        let indices = operand("indices", args.indices)?;
        let rank = args.rank.map(|rank| operand("rank", rank)).transpose()?;
        let count = args.count.map(|count| operand("count", count)).transpose()?;
        let outputs: Vec<_> = [Some(indices), rank, count].into_iter().flatten().collect();
        for (place, output) in outputs.iter().enumerate() {
            check_disjoint(output, &[mask])?;
            check_disjoint(output, &outputs[..place])?;
        }
        let mut plan = PlanBuilder::new(self, CompactMask::NAME);
        // Without features there are no bytes to bind, only counts to set.
        let (mask, indices, rank) = match op.features {
            0 => (None, None, None),
            _ => (Some(mask), Some(indices), rank),
        };
        let mut most = masks.max(1);
        for operand in [mask, indices, rank].into_iter().flatten() {
            most = most.min(operand.rows_per_binding()?);
        }
        let constants = Constants {
            threads: self.capabilities().invocations.min(128),
            rank: rank.is_some(),
            count: count.is_some(),
        };
        let stride = |operand: Option<Operand<'_>>| operand.map_or(0, |operand| operand.stride());
        for first in (0..masks).step_by(most) {
            let rows = most.min(masks - first);
            let bindings = Bindings {
                mask: bind_rows(mask, first, rows)?,
                indices: bind_rows(indices, first, rows)?,
                rank: bind_rows(rank, first, rows)?,
                count: count.map_or(Ok(Bound::ABSENT), |count| count.whole())?,
            };
            let parameters = Parameters {
                rows: rows as u32,
                columns: op.features as u32,
                mask_start: bindings.mask.start,
                mask_stride: stride(mask),
                indices_start: bindings.indices.start,
                indices_stride: stride(indices),
                rank_start: bindings.rank.start,
                rank_stride: stride(rank),
                count_start: bindings.count.start + first as u32,
            };
            let bindings = bindings.into_array();
            plan.dispatch(&ONLY, constants.values(), &parameters, bindings, rows as u64)?;
        }
        plan.finish()
    }
}

fn bind_rows<'a>(
    operand: Option<Operand<'a>>,
    first: usize,
    count: usize,
) -> Result<Bound<'a>, Error> {
    operand.map_or(Ok(Bound::ABSENT), |operand| operand.rows(first, count))
}
