//! Copies of selected rows and columns on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{GatherPlain, GatherPlainTensors};
use crate::backend::cuda::binder::{Binder, VECTOR_BYTES};
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::error::Error;
use crate::layout::{HasLayout as _, Layout};
use crate::ops::prune_gather::cuda_parameters::GatherPlainParams;
use crate::ops::silu_mlp::cuda_parameters::dtype_code;

/// Enqueues a copy; the tensors' shapes are validated. `names` are those of `x` and `columns`.
pub(in crate::ops::prune_gather) fn enqueue(
    cuda: &Cuda,
    stream: &Arc<CudaStream>,
    gather: &GatherPlain,
    names: [&'static str; 2],
    mut args: GatherPlainTensors<CudaTensor<'_>, CudaTensorMut<'_>>,
) -> Result<(), Error> {
    let (x_layout, out_layout) = (args.x.layout(), args.out.layout());
    let Some(launch) = geometry(gather, &out_layout, cuda.capabilities())? else { return Ok(()) };
    let mut binder = Binder::new(cuda, gather.op, stream)?;
    let x = binder.input(names[0], &args.x)?;
    let rows = binder.optional_input("rows", &args.rows)?;
    let columns = binder.optional_input(names[1], &args.columns)?;
    let out = binder.output("out", &mut args.out)?;
    binder.finish()?;
    let function = cuda.function(gather.op, stream, &launch)?;
    let parameters = GatherPlainParams {
        x: ReadPointer(x.address()),
        rows: ReadPointer(rows.address()),
        columns: ReadPointer(columns.address()),
        out: WritePointer(out.address()),
        x_row_stride: x.row_stride(),
        out_row_stride: out.row_stride(),
        x_rows: x_layout.shape()[0] as i64,
        out_rows: out_layout.shape()[0] as i64,
        x_columns: x_layout.columns() as i32,
        selected: gather.selected as i32,
        out_columns: out_layout.columns() as i32,
        x_vectorised: i32::from(x.is_vectorisable()),
        out_vectorised: i32::from(out_layout.dtype() == gather.dtype && out.is_vectorisable()),
        out_dtype: dtype_code(out_layout.dtype()),
    };
    // SAFETY: the operation proved shapes, strides and dtypes, the binder alignment and that `out` overlaps nothing;
    // `geometry` follows the kernel's contract, and the kernel compares each index with the extent it is for.
    unsafe { cuda.launch(stream, &function, &launch, &parameters, false) }
}

/// The launch for an output of this layout, as [`Cuda::plan`].
pub(in crate::ops::prune_gather) fn plan(
    cuda: &Cuda,
    gather: &GatherPlain,
    out: &Layout,
) -> Result<CudaPlan, Error> {
    let mut plan = CudaPlan::default();
    if let Some(launch) = geometry(gather, out, cuda.capabilities())? {
        plan.push(launch);
    }
    Ok(plan)
}

/// One thread for 16 bytes of a row; blocks stride over the rows. `None` if there is nothing to do.
fn geometry(
    gather: &GatherPlain,
    out: &Layout,
    device: &CudaCapabilities,
) -> Result<Option<Launch>, Error> {
    const THREADS: u32 = 256;
    const MAX_GRID_Y: usize = 65_535;
    let (rows, columns) = (out.shape()[0], out.columns());
    if rows == 0 || columns == 0 {
        return Ok(None);
    }
    let kernel = Kernel {
        source: "prune_gather/gather_plain",
        name: "gather_plain",
        activation: gather.dtype,
        weight: gather.dtype,
    };
    let block_columns = THREADS as usize * VECTOR_BYTES as usize / gather.dtype.size();
    let grid = [columns.div_ceil(block_columns), rows.min(MAX_GRID_Y), 1];
    Launch::new(gather.op, kernel, grid, THREADS, 0, device).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn a_thread_takes_16_bytes_and_rows_loop_beyond_the_grid() {
        let grid = |dtype, rows, columns| {
            let gather = GatherPlain { op: "gather_norm", dtype, selected: columns };
            let layout = Layout::contiguous(dtype, &[rows, columns]).unwrap();
            let device = CudaCapabilities::test_device(7, 5);
            geometry(&gather, &layout, &device).unwrap().map(|launch| launch.grid)
        };
        assert_eq!(grid(DType::F32, 3, 1024), Some([1, 3, 1]));
        assert_eq!(grid(DType::F32, 3, 1025), Some([2, 3, 1]));
        assert_eq!(grid(DType::BF16, 70_000, 2049), Some([2, 65_535, 1]));
        assert_eq!(grid(DType::F16, 0, 8), None);
        assert_eq!(grid(DType::F16, 8, 0), None);
    }
}
