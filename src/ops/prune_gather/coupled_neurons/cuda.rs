//! `coupled_neurons` on CUDA.
#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{CoupledNeurons, CoupledNeuronsArgs};
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::CudaPlan;
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection::cuda::{BoundScores, Selection, Steps, enqueue};

impl Cuda {
    /// Enqueues [`CoupledNeurons`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn coupled_neurons(
        &self,
        stream: &Arc<CudaStream>,
        op: &CoupledNeurons,
        mut args: CoupledNeuronsArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        mut workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let Some((selection, steps)) = steps(self, op, layouts.count.is_some())? else {
            return Ok(());
        };
        let mut binder = Binder::new(self, CoupledNeurons::NAME, stream)?;
        let general = binder.input("general", &args.general)?;
        let first = binder.input("first", &args.first)?;
        let second = binder.input("second", &args.second)?;
        let indices = binder.output("indices", &mut args.indices)?;
        let count = binder.optional_output("count", &mut args.count)?;
        let scratch = binder.workspace(&mut workspace, op.workspace_bytes(&layouts))?;
        binder.finish()?;
        let scores = [
            BoundScores { pointer: &general, layout: layouts.general, k: op.general_k },
            BoundScores { pointer: &first, layout: layouts.first, k: op.task_k },
            BoundScores { pointer: &second, layout: layouts.second, k: op.task_k },
        ];
        let parameters = selection.parameters(
            scores.map(Some),
            scratch.address(),
            op.is_positional(),
            indices.address(),
            count.address(),
        );
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder that nothing written overlaps anything, and
        // the workspace is as long as `workspace_bytes` says.
        unsafe { enqueue(self, &selection, stream, &steps, &parameters) }
    }
}

/// The launches for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &CoupledNeurons,
    layouts: &CoupledNeuronsArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let steps = steps(cuda, op, layouts.count.is_some())?;
    Ok(steps.map_or_else(CudaPlan::default, |(_, steps)| steps.plan()))
}

/// `None` if nothing is to be written.
fn steps<'c>(
    cuda: &'c Cuda,
    op: &CoupledNeurons,
    count: bool,
) -> Result<Option<(Selection<'c>, Steps)>, Error> {
    let selection = Selection {
        op: CoupledNeurons::NAME,
        dtype: op.dtype,
        elements: op.relevant_elements(),
        sets: 3,
        capacity: op.capacity(),
        device: cuda.capabilities(),
    };
    let steps = match (selection.elements, count) {
        (0, false) => return Ok(None),
        (0, true) => selection.nothing()?,
        _ => {
            let mut steps = selection.thresholds()?;
            if op.is_positional() {
                selection.positional(&mut steps)?;
            } else {
                selection.intersect(&mut steps)?;
            }
            steps
        }
    };
    Ok(Some((selection, steps)))
}
