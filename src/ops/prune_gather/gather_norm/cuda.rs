//! `gather_norm` on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{GatherNorm, GatherNormArgs};
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::cuda_parameters::GatherNormParams;
use crate::ops::prune_gather::gather_plain::{self, GatherPlain, GatherPlainTensors};
use crate::ops::prune_gather::norm::Norm;
use crate::ops::silu_mlp::cuda_parameters::dtype_code;

impl Cuda {
    /// Enqueues [`GatherNorm`] on the caller's stream: `out = rms_norm(x)[:, indices]`, or `x[:, indices]`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn gather_norm(
        &self,
        stream: &Arc<CudaStream>,
        op: &GatherNorm,
        args: GatherNormArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        match op.norm {
            Some(norm) => normalised(self, stream, op, norm, args),
            None => {
                let GatherNormArgs { x, indices, out, .. } = args;
                let tensors = GatherPlainTensors { x, rows: None, columns: Some(indices), out };
                gather_plain::enqueue(self, stream, &plain(op), ["x", "indices"], tensors)
            }
        }
    }
}

fn plain(op: &GatherNorm) -> GatherPlain {
    GatherPlain { op: GatherNorm::NAME, dtype: op.dtype, selected: op.selected }
}

fn normalised(
    cuda: &Cuda,
    stream: &Arc<CudaStream>,
    op: &GatherNorm,
    norm: Norm,
    mut args: GatherNormArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
) -> Result<(), Error> {
    let layouts = args.layouts();
    let Some(launch) = geometry(op, &layouts, cuda.capabilities())? else { return Ok(()) };
    let mut binder = Binder::new(cuda, GatherNorm::NAME, stream)?;
    let x = binder.input("x", &args.x)?;
    let indices = binder.input("indices", &args.indices)?;
    let norm_weight = binder.optional_input("norm_weight", &args.norm_weight)?;
    let out = binder.output("out", &mut args.out)?;
    binder.finish()?;
    let function = cuda.function(GatherNorm::NAME, stream, &launch)?;
    let parameters = GatherNormParams {
        x: ReadPointer(x.address()),
        indices: ReadPointer(indices.address()),
        norm_weight: ReadPointer(norm_weight.address()),
        out: WritePointer(out.address()),
        x_row_stride: x.row_stride(),
        out_row_stride: out.row_stride(),
        features: op.features as i32,
        selected: op.selected as i32,
        norm_scope: norm.scope.code() as i32,
        x_vectorised: i32::from(x.is_vectorisable()),
        out_vectorised: i32::from(layouts.out.dtype() == op.dtype && out.is_vectorisable()),
        out_dtype: dtype_code(layouts.out.dtype()),
        norm_epsilon: norm.eps(),
    };
    // SAFETY: `validate` proved shapes, strides and dtypes, the binder alignment and that `out` overlaps nothing;
    // `geometry` follows the kernel's contract, and the kernel compares each index with `features`.
    unsafe { cuda.launch(stream, &function, &launch, &parameters, false) }
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &GatherNorm,
    layouts: &GatherNormArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    if op.norm.is_none() {
        return gather_plain::plan(cuda, &plain(op), &layouts.out);
    }
    let mut plan = CudaPlan::default();
    if let Some(launch) = geometry(op, layouts, cuda.capabilities())? {
        plan.push(launch);
    }
    Ok(plan)
}

/// A block a row. `None` if there is nothing to do.
fn geometry(
    op: &GatherNorm,
    layouts: &GatherNormArgs<Layout, Layout>,
    device: &CudaCapabilities,
) -> Result<Option<Launch>, Error> {
    const THREADS: u32 = 128;
    let rows = layouts.x.shape()[0];
    if rows == 0 || op.selected == 0 {
        return Ok(None);
    }
    let kernel = Kernel {
        source: "prune_gather/gather_norm",
        name: GatherNorm::NAME,
        activation: op.dtype,
        weight: op.weight_dtype,
    };
    Launch::new(GatherNorm::NAME, kernel, [rows, 1, 1], THREADS, 0, device).map(Some)
}
