//! `scatter_norm_gather` on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{ScatterNormGather, ScatterNormGatherArgs};
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::cuda_parameters::ScatterNormGatherParams;
use crate::ops::silu_mlp::cuda_parameters::dtype_code;

impl Cuda {
    /// Enqueues [`ScatterNormGather`] on the caller's stream, one launch: `residual_out = residual + scatter(y)`,
    /// `gathered = rms_norm(residual_out)[:, in_indices]`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn scatter_norm_gather(
        &self,
        stream: &Arc<CudaStream>,
        op: &ScatterNormGather,
        mut args: ScatterNormGatherArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        const NAME: &str = ScatterNormGather::NAME;
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let Some(launch) = geometry(op, &layouts, self.capabilities())? else { return Ok(()) };
        let mut binder = Binder::new(self, NAME, stream)?;
        let residual = binder.input("residual", &args.residual)?;
        let y = binder.input("y", &args.y)?;
        let out_indices = binder.input("out_indices", &args.out_indices)?;
        let out_rank = binder.optional_input("out_rank", &args.out_rank)?;
        let norm_weight = binder.input("norm_weight", &args.norm_weight)?;
        let in_indices = binder.input("in_indices", &args.in_indices)?;
        let residual_out = binder.output("residual_out", &mut args.residual_out)?;
        let gathered = binder.output("gathered", &mut args.gathered)?;
        binder.finish()?;
        let function = self.function(NAME, stream, &launch)?;
        let whole =
            |layout: &Layout, aligned: bool| i32::from(layout.dtype() == op.dtype && aligned);
        let parameters = ScatterNormGatherParams {
            residual: ReadPointer(residual.address()),
            y: ReadPointer(y.address()),
            out_indices: ReadPointer(out_indices.address()),
            out_rank: ReadPointer(out_rank.address()),
            norm_weight: ReadPointer(norm_weight.address()),
            in_indices: ReadPointer(in_indices.address()),
            residual_out: WritePointer(residual_out.address()),
            gathered: WritePointer(gathered.address()),
            residual_row_stride: residual.row_stride(),
            y_row_stride: y.row_stride(),
            residual_out_row_stride: residual_out.row_stride(),
            gathered_row_stride: gathered.row_stride(),
            features: op.features as i32,
            out_selected: op.written as i32,
            in_selected: op.read as i32,
            norm_scope: op.norm.scope.code() as i32,
            staged: i32::from(launch.shared_bytes > 0),
            residual_vectorised: i32::from(residual.is_vectorisable()),
            residual_out_vectorised: whole(&layouts.residual_out, residual_out.is_vectorisable()),
            gathered_vectorised: whole(&layouts.gathered, gathered.is_vectorisable()),
            residual_out_dtype: dtype_code(layouts.residual_out.dtype()),
            gathered_dtype: dtype_code(layouts.gathered.dtype()),
            norm_epsilon: op.norm.eps(),
        };
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder alignment and that the outputs overlap
        // nothing; `geometry` follows the kernel's contract, and the kernel keeps places below `written` and indices
        // below `features`.
        unsafe { self.launch(stream, &function, &launch, &parameters, false) }
    }
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &ScatterNormGather,
    layouts: &ScatterNormGatherArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    if let Some(launch) = geometry(op, layouts, cuda.capabilities())? {
        plan.push(launch);
    }
    Ok(plan)
}

/// A block a row; the row lies in shared memory if several such blocks fit a multiprocessor. `None` if there is nothing
/// to do.
fn geometry(
    op: &ScatterNormGather,
    layouts: &ScatterNormGatherArgs<Layout, Layout>,
    device: &CudaCapabilities,
) -> Result<Option<Launch>, Error> {
    const THREADS: u32 = 128;
    /// With the static 16 bytes (1024 by alignment), below the 48 KiB that need no attribute.
    const MOST_STAGED: usize = 46 << 10;
    let rows = layouts.residual.shape()[0];
    if rows == 0 {
        return Ok(None);
    }
    let kernel = Kernel {
        source: "prune_gather/scatter_norm_gather",
        name: ScatterNormGather::NAME,
        activation: op.dtype,
        weight: op.weight_dtype,
    };
    let row_bytes = op.features * op.dtype.size();
    let shared = if row_bytes <= MOST_STAGED { row_bytes } else { 0 };
    Launch::new(ScatterNormGather::NAME, kernel, [rows, 1, 1], THREADS, shared, device).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn rows_are_staged_while_they_fit() {
        let shared = |dtype, features| {
            let op = ScatterNormGather::new(features, 0, 0, dtype).unwrap();
            let layout = |dtype, shape: &[usize]| Layout::contiguous(dtype, shape).unwrap();
            let wide = layout(dtype, &[3, features]);
            let narrow = layout(dtype, &[3, 0]);
            let none = layout(DType::U32, &[0]);
            let weight = layout(dtype, &[features]);
            let args = ScatterNormGatherArgs::new(wide, narrow, none, weight, none, wide, narrow);
            let device = CudaCapabilities::test_device(7, 5);
            let launch = geometry(&op, &args, &device).unwrap().unwrap();
            assert_eq!(launch.grid, [3, 1, 1]);
            launch.shared_bytes
        };
        assert_eq!(shared(DType::BF16, 4_096), 8_192);
        assert_eq!(shared(DType::F32, 8_192), 32_768);
        assert_eq!(shared(DType::F32, 11_777), 0);
        assert_eq!(shared(DType::BF16, 23_552), 47_104);
    }
}
