//! `silu_mul` on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{SiluMul, SiluMulArgs};
use crate::backend::cuda::binder::{Binder, VECTOR_BYTES};
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::silu_mlp::cuda_parameters::{SiluMulParams, dtype_code};

impl Cuda {
    /// Enqueues [`SiluMul`] on the caller's stream: `silu(gate) * up`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn silu_mul(
        &self,
        stream: &Arc<CudaStream>,
        op: &SiluMul,
        mut args: SiluMulArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let Some(launch) = geometry(op, &layouts, self.capabilities())? else { return Ok(()) };
        let mut binder = Binder::new(self, SiluMul::NAME, stream)?;
        let gate = binder.input("gate", &args.gate)?;
        let up = binder.input("up", &args.up)?;
        let out = binder.output("out", &mut args.out)?;
        binder.finish()?;
        let function = self.function(SiluMul::NAME, stream, &launch)?;
        let vectorised = layouts.out.dtype() == op.dtype
            && [&gate, &up, &out].iter().all(|tensor| tensor.is_vectorisable());
        let parameters = SiluMulParams {
            gate: ReadPointer(gate.address()),
            up: ReadPointer(up.address()),
            out: WritePointer(out.address()),
            gate_row_stride: gate.row_stride(),
            up_row_stride: up.row_stride(),
            out_row_stride: out.row_stride(),
            rows: layouts.gate.shape()[0] as i64,
            columns: op.columns as i64,
            vectorised: i32::from(vectorised),
            out_dtype: dtype_code(layouts.out.dtype()),
        };
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder alignment and that `out` overlaps
        // nothing; `geometry` follows the kernel's contract.
        unsafe { self.launch(stream, &function, &launch, &parameters, false) }
    }
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &SiluMul,
    layouts: &SiluMulArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    if let Some(launch) = geometry(op, layouts, cuda.capabilities())? {
        plan.push(launch);
    }
    Ok(plan)
}

/// One thread for 16 bytes of a row; blocks stride over the rows. `None` if there is nothing to do.
fn geometry(
    op: &SiluMul,
    layouts: &SiluMulArgs<Layout, Layout>,
    device: &CudaCapabilities,
) -> Result<Option<Launch>, Error> {
    const THREADS: u32 = 256;
    const MAX_GRID_Y: usize = 65_535;
    let rows = layouts.gate.shape()[0];
    if rows == 0 || op.columns == 0 {
        return Ok(None);
    }
    let kernel = Kernel {
        source: "silu_mlp/silu_mul",
        name: SiluMul::NAME,
        activation: op.dtype,
        weight: op.dtype,
    };
    let block_columns = THREADS as usize * VECTOR_BYTES as usize / op.dtype.size();
    let grid = [op.columns.div_ceil(block_columns), rows.min(MAX_GRID_Y), 1];
    Launch::new(SiluMul::NAME, kernel, grid, THREADS, 0, device).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn grid(dtype: DType, rows: usize, columns: usize) -> Option<[u32; 3]> {
        let op = SiluMul::new(columns, dtype).unwrap();
        let layout = Layout::contiguous(dtype, &[rows, columns]).unwrap();
        let device = CudaCapabilities::test_device(7, 5);
        let launch = geometry(&op, &SiluMulArgs::new(layout, layout, layout), &device).unwrap();
        launch.map(|launch| launch.grid)
    }

    #[test]
    fn a_thread_takes_16_bytes_and_rows_loop_beyond_the_grid() {
        assert_eq!(grid(DType::F32, 3, 1024), Some([1, 3, 1]));
        assert_eq!(grid(DType::F32, 3, 1025), Some([2, 3, 1]));
        assert_eq!(grid(DType::BF16, 70_000, 2049), Some([2, 65_535, 1]));
        assert_eq!(grid(DType::F16, 1, i32::MAX as usize), Some([1 << 20, 1, 1]));
        assert_eq!(grid(DType::F16, 0, 8), None);
        assert_eq!(grid(DType::F16, 8, 0), None);
    }
}
