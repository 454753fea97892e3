//! `compact_weight` on CUDA.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{CompactWeight, CompactWeightArgs};
use crate::backend::cuda::launch::CudaPlan;
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::gather_plain::{self, GatherPlain, GatherPlainTensors};

impl Cuda {
    /// Enqueues [`CompactWeight`] on the caller's stream: `out = weight[rows][:, columns]`, padded with zeros.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn compact_weight(
        &self,
        stream: &Arc<CudaStream>,
        op: &CompactWeight,
        args: CompactWeightArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let CompactWeightArgs { weight: x, rows, columns, out } = args;
        let tensors = GatherPlainTensors { x, rows, columns, out };
        gather_plain::enqueue(self, stream, &plain(op), ["weight", "columns"], tensors)
    }
}

fn plain(op: &CompactWeight) -> GatherPlain {
    GatherPlain { op: CompactWeight::NAME, dtype: op.dtype, selected: op.selected_columns() }
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &CompactWeight,
    layouts: &CompactWeightArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    gather_plain::plan(cuda, &plain(op), &layouts.out)
}
