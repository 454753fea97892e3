//! `compact_mask` on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{CompactMask, CompactMaskArgs};
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection_parameters::CompactMaskParams;

impl Cuda {
    /// Enqueues [`CompactMask`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn compact_mask(
        &self,
        stream: &Arc<CudaStream>,
        op: &CompactMask,
        mut args: CompactMaskArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let masks = op.masks(&layouts.mask)?;
        let Some(launch) = geometry(masks, self.capabilities())? else { return Ok(()) };
        let mut binder = Binder::new(self, CompactMask::NAME, stream)?;
        let mask = binder.input("mask", &args.mask)?;
        let indices = binder.output("indices", &mut args.indices)?;
        let rank = binder.optional_output("rank", &mut args.rank)?;
        let count = binder.optional_output("count", &mut args.count)?;
        binder.finish()?;
        let function = self.function(CompactMask::NAME, stream, &launch)?;
        let parameters = CompactMaskParams {
            mask: ReadPointer(mask.address()),
            indices: WritePointer(indices.address()),
            rank: WritePointer(rank.address()),
            count: WritePointer(count.address()),
            mask_row_stride: mask.row_stride(),
            indices_row_stride: indices.row_stride(),
            rank_row_stride: rank.row_stride(),
            rows: masks as i64,
            columns: op.features as i64,
        };
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder that outputs overlap nothing; `geometry`
        // follows the kernel's contract.
        unsafe { self.launch(stream, &function, &launch, &parameters, false) }
    }
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &CompactMask,
    layouts: &CompactMaskArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    if let Some(launch) = geometry(op.masks(&layouts.mask)?, cuda.capabilities())? {
        plan.push(launch);
    }
    Ok(plan)
}

/// A block a mask; blocks stride over what is beyond. `None` if there is no mask.
fn geometry(masks: usize, device: &CudaCapabilities) -> Result<Option<Launch>, Error> {
    const THREADS: u32 = 256;
    const MAX_BLOCKS: usize = 65_535;
    if masks == 0 {
        return Ok(None);
    }
    let kernel = Kernel {
        source: "prune_gather/compact_mask",
        name: CompactMask::NAME,
        activation: DType::U8,
        weight: DType::U8,
    };
    let grid = [masks.min(MAX_BLOCKS), 1, 1];
    Launch::new(CompactMask::NAME, kernel, grid, THREADS, 0, device).map(Some)
}
