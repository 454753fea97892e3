//! `scatter_add` on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{ScatterAdd, ScatterAddArgs};
use crate::backend::cuda::binder::{Binder, VECTOR_BYTES};
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::cuda_parameters::ScatterAddParams;
use crate::ops::silu_mlp::cuda_parameters::dtype_code;

impl Cuda {
    /// Enqueues [`ScatterAdd`] on the caller's stream: `out = residual + scatter(y)`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn scatter_add(
        &self,
        stream: &Arc<CudaStream>,
        op: &ScatterAdd,
        mut args: ScatterAddArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let Some(launch) = geometry(op, &layouts, self.capabilities())? else { return Ok(()) };
        let mut binder = Binder::new(self, ScatterAdd::NAME, stream)?;
        let residual = binder.input("residual", &args.residual)?;
        let y = binder.input("y", &args.y)?;
        let indices = binder.input("indices", &args.indices)?;
        let rank = binder.optional_input("rank", &args.rank)?;
        let out = binder.output("out", &mut args.out)?;
        binder.finish()?;
        let function = self.function(ScatterAdd::NAME, stream, &launch)?;
        let vectorised =
            layouts.out.dtype() == op.dtype && residual.is_vectorisable() && out.is_vectorisable();
        let parameters = ScatterAddParams {
            residual: ReadPointer(residual.address()),
            y: ReadPointer(y.address()),
            indices: ReadPointer(indices.address()),
            rank: ReadPointer(rank.address()),
            out: WritePointer(out.address()),
            residual_row_stride: residual.row_stride(),
            y_row_stride: y.row_stride(),
            out_row_stride: out.row_stride(),
            rows: layouts.out.shape()[0] as i64,
            features: op.features as i32,
            selected: op.selected as i32,
            vectorised: i32::from(vectorised),
            out_dtype: dtype_code(layouts.out.dtype()),
        };
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder alignment and that `out` overlaps
        // nothing; `geometry` follows the kernel's contract, and the kernel keeps places below `selected`.
        unsafe { self.launch(stream, &function, &launch, &parameters, false) }
    }
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &ScatterAdd,
    layouts: &ScatterAddArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    if let Some(launch) = geometry(op, layouts, cuda.capabilities())? {
        plan.push(launch);
    }
    Ok(plan)
}

/// One thread for 16 bytes of several rows, whose places it looks up once. `None` if there is nothing to do.
fn geometry(
    op: &ScatterAdd,
    layouts: &ScatterAddArgs<Layout, Layout>,
    device: &CudaCapabilities,
) -> Result<Option<Launch>, Error> {
    const THREADS: u32 = 256;
    const ROWS: usize = 4;
    const MAX_GRID_Y: usize = 65_535;
    let rows = layouts.out.shape()[0];
    if rows == 0 || op.features == 0 {
        return Ok(None);
    }
    let kernel = Kernel {
        source: "prune_gather/scatter_add",
        name: ScatterAdd::NAME,
        activation: op.dtype,
        weight: op.dtype,
    };
    let block_columns = THREADS as usize * VECTOR_BYTES as usize / op.dtype.size();
    let grid = [op.features.div_ceil(block_columns), rows.div_ceil(ROWS).min(MAX_GRID_Y), 1];
    Launch::new(ScatterAdd::NAME, kernel, grid, THREADS, 0, device).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn a_thread_takes_16_bytes_of_four_rows() {
        let grid = |dtype, rows, features| {
            let op = ScatterAdd::new(features, 0, dtype).unwrap();
            let layout = |dtype, shape: &[usize]| Layout::contiguous(dtype, shape).unwrap();
            let wide = layout(dtype, &[rows, features]);
            let (y, indices) = (layout(dtype, &[rows, 0]), layout(DType::U32, &[0]));
            let layouts = ScatterAddArgs::new(wide, y, indices, wide);
            let device = CudaCapabilities::test_device(7, 5);
            geometry(&op, &layouts, &device).unwrap().map(|launch| launch.grid)
        };
        assert_eq!(grid(DType::F32, 1, 1_024), Some([1, 1, 1]));
        assert_eq!(grid(DType::BF16, 9, 2_049), Some([2, 3, 1]));
        assert_eq!(grid(DType::F16, 300_000, 8), Some([1, 65_535, 1]));
        assert_eq!(grid(DType::F16, 0, 8), None);
        assert_eq!(grid(DType::F16, 8, 0), None);
    }
}
