//! A ragged batch of drafts on CUDA, by the contract in `kernels/early_exit/verification.cuh`.

use super::{Batch, Common};
use crate::backend::cuda::binder::{Binder, Pointer};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{CudaTensor, CudaTensorMut};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::ops::early_exit::cuda_parameters::VerificationParams;

/// Pointers of a batch, to be kept until the launch is enqueued.
pub(in crate::ops::early_exit) struct BoundBatch<'t> {
    inputs: [Pointer<'t>; 4],
    outputs: [Pointer<'t>; 6],
    stop_count: usize,
}

impl<'t> BoundBatch<'t> {
    /// Binds valid tensors.
    pub fn new<'s: 't>(
        binder: &mut Binder<'s>,
        common: &'t mut Common<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<BoundBatch<'t>, Error> {
        let outputs = &mut common.outputs;
        Ok(BoundBatch {
            stop_count: common.stop_ids.as_ref().map_or(0, |ids| ids.layout().elements()),
            inputs: [
                binder.input("draft", &common.draft)?,
                binder.input("offsets", &common.offsets)?,
                binder.optional_input("stop_ids", &common.stop_ids)?,
                binder.optional_input("budget", &common.budget)?,
            ],
            outputs: [
                binder.optional_output("tokens", &mut outputs.tokens)?,
                binder.optional_output("accepted", &mut outputs.accepted)?,
                binder.optional_output("emitted", &mut outputs.emitted)?,
                binder.optional_output("next_token", &mut outputs.next_token)?,
                binder.optional_output("last_row", &mut outputs.last_row)?,
                binder.optional_output("finish", &mut outputs.finish)?,
            ],
        })
    }

    /// As the kernels want it.
    pub fn parameters(&self, batch: &Batch) -> VerificationParams {
        let [draft, offsets, stop_ids, budget] =
            self.inputs.each_ref().map(|pointer| ReadPointer(pointer.address()));
        let [tokens, accepted, emitted, next_token, last_row, finish] =
            self.outputs.each_ref().map(|pointer| WritePointer(pointer.address()));
        VerificationParams {
            draft,
            offsets,
            stop_ids,
            budget,
            tokens,
            accepted,
            emitted,
            next_token,
            last_row,
            finish,
            tokens_row_stride: self.outputs[0].row_stride(),
            sequences: batch.sequences as i32,
            drafts: batch.drafts as i32,
            max_draft: batch.max_draft as i32,
            stop_count: self.stop_count as i32,
        }
    }
}
