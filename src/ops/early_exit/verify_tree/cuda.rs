//! `verify_tree` on CUDA, by the contract in `kernels/early_exit/verify_tree.cu`.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{VerifyTree, VerifyTreeArgs};
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::early_exit::cuda_parameters::VerifyTreeParams;
use crate::ops::early_exit::verification::Batch;
use crate::ops::early_exit::verification::common;
use crate::ops::early_exit::verification::cuda::BoundBatch;

impl Cuda {
    /// Enqueues [`VerifyTree`] on the caller's stream, one launch.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn verify_tree(
        &self,
        stream: &Arc<CudaStream>,
        op: &VerifyTree,
        args: VerifyTreeArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let batch = op.batch(&layouts)?;
        if batch.sequences == 0 {
            return Ok(());
        }
        let launch = geometry(&batch, self.capabilities())?;
        let (target, children, siblings) = (args.target, args.first_child, args.next_sibling);
        let mut path = args.path;
        let mut common = common!(args);
        let mut binder = Binder::new(self, VerifyTree::NAME, stream)?;
        let target = binder.input("target", &target)?;
        let children = binder.input("first_child", &children)?;
        let siblings = binder.input("next_sibling", &siblings)?;
        let path = binder.output("path", &mut path)?;
        let bound = BoundBatch::new(&mut binder, &mut common)?;
        binder.finish()?;
        let function = self.function(VerifyTree::NAME, stream, &launch)?;
        let parameters = VerifyTreeParams {
            batch: bound.parameters(&batch),
            first_child: ReadPointer(children.address()),
            next_sibling: ReadPointer(siblings.address()),
            target: ReadPointer(target.address()),
            path: WritePointer(path.address()),
            path_row_stride: path.row_stride(),
        };
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder that outputs overlap nothing; the kernel checks
        // offsets and links itself.
        unsafe { self.launch(stream, &function, &launch, &parameters, false) }
    }
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &VerifyTree,
    layouts: &VerifyTreeArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    let batch = op.batch(layouts)?;
    if batch.sequences > 0 {
        plan.push(geometry(&batch, cuda.capabilities())?);
    }
    Ok(plan)
}

/// A warp a sequence.
fn geometry(batch: &Batch, device: &CudaCapabilities) -> Result<Launch, Error> {
    const WARPS: usize = 4;
    let kernel = Kernel {
        source: "early_exit/verify_tree",
        name: VerifyTree::NAME,
        activation: DType::I32,
        weight: DType::I32,
    };
    let grid = [batch.sequences.div_ceil(WARPS), 1, 1];
    Launch::new(VerifyTree::NAME, kernel, grid, 32 * WARPS as u32, 0, device)
}
