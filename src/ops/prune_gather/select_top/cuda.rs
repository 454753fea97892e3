//! `select_top` on CUDA.
#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{SelectTop, SelectTopArgs};
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::CudaPlan;
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection::cuda::{BoundScores, Selection, Steps, enqueue};

impl Cuda {
    /// Enqueues [`SelectTop`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn select_top(
        &self,
        stream: &Arc<CudaStream>,
        op: &SelectTop,
        mut args: SelectTopArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        mut workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        if op.k == 0 {
            return Ok(());
        }
        let selection = selection(self, op);
        let steps = steps(&selection)?;
        let mut binder = Binder::new(self, SelectTop::NAME, stream)?;
        let scores = binder.input("scores", &args.scores)?;
        let indices = binder.output("indices", &mut args.indices)?;
        let scratch = binder.workspace(&mut workspace, op.workspace_bytes(&layouts))?;
        binder.finish()?;
        let scores = BoundScores { pointer: &scores, layout: layouts.scores, k: op.k };
        let parameters = selection.parameters(
            [Some(scores), None, None],
            scratch.address(),
            false,
            indices.address(),
            0,
        );
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder that nothing written overlaps anything, and
        // the workspace is as long as `workspace_bytes` says.
        unsafe { enqueue(self, &selection, stream, &steps, &parameters) }
    }
}

/// The launches for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &SelectTop,
    layouts: &SelectTopArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    if op.k == 0 {
        return Ok(CudaPlan::default());
    }
    steps(&selection(cuda, op)).map(|steps| steps.plan())
}

fn selection<'c>(cuda: &'c Cuda, op: &SelectTop) -> Selection<'c> {
    Selection {
        op: SelectTop::NAME,
        dtype: op.dtype,
        elements: op.elements,
        sets: 1,
        capacity: op.k,
        device: cuda.capabilities(),
    }
}

fn steps(selection: &Selection<'_>) -> Result<Steps, Error> {
    let mut steps = selection.thresholds()?;
    selection.top(&mut steps)?;
    Ok(steps)
}
