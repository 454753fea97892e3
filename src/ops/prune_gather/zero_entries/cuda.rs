//! `zero_entries` on CUDA.
#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{ZeroEntries, ZeroEntriesArgs, matrix};
use crate::backend::cuda::binder::{Binder, VECTOR_BYTES};
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection_parameters::ZeroEntriesParams;

impl Cuda {
    /// Enqueues [`ZeroEntries`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn zero_entries(
        &self,
        stream: &Arc<CudaStream>,
        op: &ZeroEntries,
        mut args: ZeroEntriesArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let launches = geometry(op, &layouts, self.capabilities())?;
        let mut binder = Binder::new(self, ZeroEntries::NAME, stream)?;
        let weight = binder.input("weight", &args.weight)?;
        let indices = binder.input("indices", &args.indices)?;
        let count = binder.optional_input("count", &args.count)?;
        let out = binder.output("out", &mut args.out)?;
        binder.finish()?;
        let [rows, columns] = matrix(&layouts.weight);
        let vectorised = weight.is_vectorisable() && out.is_vectorisable();
        let parameters = ZeroEntriesParams {
            weight: ReadPointer(weight.address()),
            indices: ReadPointer(indices.address()),
            count: ReadPointer(count.address()),
            out: WritePointer(out.address()),
            weight_row_stride: weight.row_stride(),
            out_row_stride: out.row_stride(),
            rows: rows as i64,
            columns: columns as i64,
            entries: layouts.indices.elements() as i64,
            vectorised: i64::from(vectorised),
        };
        for launch in launches.iter().flatten() {
            self.function(ZeroEntries::NAME, stream, launch)?;
        }
        for launch in launches.iter().flatten() {
            let function = self.function(ZeroEntries::NAME, stream, launch)?;
            // SAFETY: `validate` proved shapes, strides and dtypes, the binder alignment and that `out` overlaps
            // nothing; `geometry` follows the kernels' contract, which skip indices out of range.
            unsafe { self.launch(stream, &function, launch, &parameters, false) }?;
        }
        Ok(())
    }
}

/// The launches for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &ZeroEntries,
    layouts: &ZeroEntriesArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    let launches = geometry(op, layouts, cuda.capabilities())?;
    launches.into_iter().flatten().for_each(|launch| plan.push(launch));
    Ok(plan)
}

/// The copy, a thread for 16 bytes of a row, and the zeros, a thread for an index.
fn geometry(
    op: &ZeroEntries,
    layouts: &ZeroEntriesArgs<Layout, Layout>,
    device: &CudaCapabilities,
) -> Result<[Option<Launch>; 2], Error> {
    const THREADS: u32 = 256;
    const MAX_BLOCKS: usize = 65_535;
    if op.elements == 0 {
        return Ok([None, None]);
    }
    let launch = |name, grid| {
        let source = "prune_gather/zero_entries";
        let kernel = Kernel { source, name, activation: op.dtype, weight: op.dtype };
        Launch::new(ZeroEntries::NAME, kernel, grid, THREADS, 0, device)
    };
    let [rows, columns] = matrix(&layouts.weight);
    let block_columns = THREADS as usize * VECTOR_BYTES as usize / op.dtype.size();
    let copy = [columns.div_ceil(block_columns), rows.min(MAX_BLOCKS), 1];
    let blocks = layouts.indices.elements().div_ceil(THREADS as usize).min(MAX_BLOCKS);
    let zero = (blocks > 0).then(|| launch(ZeroEntries::NAME, [blocks, 1, 1])).transpose()?;
    Ok([Some(launch("zero_copy", copy)?), zero])
}
