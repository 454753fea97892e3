//! `invert_indices` on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{InvertIndices, InvertIndicesArgs};
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection_parameters::InvertIndicesParams;

impl Cuda {
    /// Enqueues [`InvertIndices`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn invert_indices(
        &self,
        stream: &Arc<CudaStream>,
        op: &InvertIndices,
        mut args: InvertIndicesArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let launch = geometry(op, self.capabilities())?;
        let mut binder = Binder::new(self, InvertIndices::NAME, stream)?;
        let indices = binder.input("indices", &args.indices)?;
        let rank = binder.output("rank", &mut args.rank)?;
        let first_invalid = binder.optional_output("first_invalid", &mut args.first_invalid)?;
        binder.finish()?;
        let function = self.function(InvertIndices::NAME, stream, &launch)?;
        let parameters = InvertIndicesParams {
            indices: ReadPointer(indices.address()),
            rank: WritePointer(rank.address()),
            first_invalid: WritePointer(first_invalid.address()),
            selected: op.selected as i64,
            features: op.features as i64,
        };
        // SAFETY: `validate` proved shapes and dtypes, the binder that outputs overlap nothing; `geometry` follows the
        // kernel's contract.
        unsafe { self.launch(stream, &function, &launch, &parameters, false) }
    }
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &InvertIndices,
    layouts: &InvertIndicesArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    plan.push(geometry(op, cuda.capabilities())?);
    Ok(plan)
}

/// A block for so many features; one at least, since somebody has to check the indices.
fn geometry(op: &InvertIndices, device: &CudaCapabilities) -> Result<Launch, Error> {
    const THREADS: u32 = 256;
    const FEATURES: usize = 1024;
    let kernel = Kernel {
        source: "prune_gather/invert_indices",
        name: InvertIndices::NAME,
        activation: DType::U32,
        weight: DType::U32,
    };
    let grid = [op.features.div_ceil(FEATURES).max(1), 1, 1];
    Launch::new(InvertIndices::NAME, kernel, grid, THREADS, 0, device)
}
