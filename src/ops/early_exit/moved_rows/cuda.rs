//! Rows moved on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{Direction, MovedRows, Tensors};
use crate::backend::cuda::binder::{Binder, VECTOR_BYTES};
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::ops::early_exit::gate_parameters::MoveRowsParams;

/// Enqueues a movement of validated tensors.
pub(in crate::ops::early_exit) fn enqueue(
    cuda: &Cuda,
    stream: &Arc<CudaStream>,
    moved: &MovedRows,
    direction: Direction,
    mut args: Tensors<CudaTensor<'_>, CudaTensorMut<'_>>,
) -> Result<(), Error> {
    let listed = args.permutation.layout().elements();
    let Some(launch) = geometry(moved, direction, listed, cuda.capabilities())? else {
        return Ok(());
    };
    let rows = match direction {
        Direction::Compact => args.from.layout().shape()[0],
        Direction::Scatter => args.to.layout().shape()[0],
    };
    let mut binder = Binder::new(cuda, moved.op, stream)?;
    let from = binder.input(args.names[0], &args.from)?;
    let permutation = binder.input("permutation", &args.permutation)?;
    let count = binder.optional_input("count", &args.count)?;
    let to = binder.output(args.names[1], &mut args.to)?;
    binder.finish()?;
    let function = cuda.function(moved.op, stream, &launch)?;
    let parameters = MoveRowsParams {
        from: ReadPointer(from.address()),
        permutation: ReadPointer(permutation.address()),
        count: ReadPointer(count.address()),
        to: WritePointer(to.address()),
        from_row_stride: from.row_stride(),
        to_row_stride: to.row_stride(),
        listed: listed as i64,
        rows: rows as i64,
        columns: moved.features as i32,
        vectorised: i32::from(from.is_vectorisable() && to.is_vectorisable()),
    };
    // SAFETY: the operation proved shapes, strides and dtypes, the binder alignment and that `to` overlaps nothing;
    // `geometry` follows the kernel's contract, and the kernel compares each index with the rows that there are.
    unsafe { cuda.launch(stream, &function, &launch, &parameters, false) }
}

/// The launch for so many listed rows, as [`Cuda::plan`].
pub(in crate::ops::early_exit) fn plan(
    cuda: &Cuda,
    moved: &MovedRows,
    direction: Direction,
    listed: usize,
) -> Result<CudaPlan, Error> {
    let mut plan = CudaPlan::default();
    if let Some(launch) = geometry(moved, direction, listed, cuda.capabilities())? {
        plan.push(launch);
    }
    Ok(plan)
}

/// One thread for 16 bytes of a row; blocks stride over the rows. `None` if there is nothing to do.
fn geometry(
    moved: &MovedRows,
    direction: Direction,
    listed: usize,
    device: &CudaCapabilities,
) -> Result<Option<Launch>, Error> {
    const THREADS: u32 = 256;
    const MAX_GRID_Y: usize = 65_535;
    if listed == 0 || moved.features == 0 {
        return Ok(None);
    }
    let name = match direction {
        Direction::Compact => "compact_rows",
        Direction::Scatter => "scatter_rows",
    };
    // Bits are copied: one kernel for each size.
    let dtype = if moved.dtype.size() == 4 { DType::F32 } else { DType::F16 };
    let kernel = Kernel { source: "early_exit/move_rows", name, activation: dtype, weight: dtype };
    let block_columns = THREADS as usize * VECTOR_BYTES as usize / dtype.size();
    let grid = [moved.features.div_ceil(block_columns), listed.min(MAX_GRID_Y), 1];
    Launch::new(moved.op, kernel, grid, THREADS, 0, device).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_takes_16_bytes_and_rows_loop_beyond_the_grid() {
        let launch = |dtype, listed, features| {
            let moved = MovedRows { op: "compact_rows", features, dtype };
            let device = CudaCapabilities::test_device(7, 5);
            let launch = geometry(&moved, Direction::Compact, listed, &device).unwrap();
            launch.map(|launch| (launch.kernel.symbol(), launch.grid))
        };
        assert_eq!(launch(DType::F32, 3, 1_024), Some(("compact_rows_f32".into(), [1, 3, 1])));
        let wide = Some(("compact_rows_f16".into(), [2, 65_535, 1]));
        assert_eq!(launch(DType::BF16, 70_000, 2_049), wide);
        assert_eq!(launch(DType::F16, 0, 8), None);
        assert_eq!(launch(DType::F16, 8, 0), None);
    }
}
