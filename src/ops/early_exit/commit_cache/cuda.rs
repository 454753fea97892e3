//! `commit_cache` on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{CommitCache, CommitCacheArgs};
use crate::backend::cuda::binder::{Binder, VECTOR_BYTES};
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::early_exit::gate_parameters::CommitCacheParams;

const THREADS: u32 = 128;

impl Cuda {
    /// Enqueues [`CommitCache`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn commit_cache(
        &self,
        stream: &Arc<CudaStream>,
        op: &CommitCache,
        mut args: CommitCacheArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let Some(launch) = geometry(&layouts, self.capabilities())? else { return Ok(()) };
        let mut binder = Binder::new(self, CommitCache::NAME, stream)?;
        let length = binder.input("length", &args.length)?;
        let emitted = binder.input("emitted", &args.emitted)?;
        let path = binder.optional_input("path", &args.path)?;
        let page_table = binder.optional_input("page_table", &args.page_table)?;
        let cache = binder.optional_output("cache", &mut args.cache)?;
        let committed_length = binder.output("committed_length", &mut args.committed_length)?;
        let status = binder.output("status", &mut args.status)?;
        let freed_pages = binder.optional_output("freed_pages", &mut args.freed_pages)?;
        let freed_count = binder.optional_output("freed_count", &mut args.freed_count)?;
        binder.finish()?;
        let function = self.function(CommitCache::NAME, stream, &launch)?;
        let stride = |axis| layouts.cache.map_or(0, |cache| cache.strides()[axis] as i64);
        // Without groups there is no column to move, either.
        let columns =
            layouts.cache.filter(|cache| cache.elements() > 0).map_or(0, |cache| cache.columns());
        let aligned = cache.address().is_multiple_of(VECTOR_BYTES);
        let parameters = CommitCacheParams {
            length: ReadPointer(length.address()),
            emitted: ReadPointer(emitted.address()),
            path: ReadPointer(path.address()),
            page_table: ReadPointer(page_table.address()),
            cache: WritePointer(cache.address()),
            committed_length: WritePointer(committed_length.address()),
            status: WritePointer(status.address()),
            freed_pages: WritePointer(freed_pages.address()),
            freed_count: WritePointer(freed_count.address()),
            path_row_stride: path.row_stride(),
            page_table_row_stride: page_table.row_stride(),
            freed_pages_row_stride: freed_pages.row_stride(),
            cache_group_stride: stride(0),
            cache_block_stride: stride(1),
            cache_row_stride: stride(2),
            capacity: op.capacity() as i64,
            pages: op.pages(layouts.cache.as_ref()) as i64,
            batch: layouts.length.elements() as i32,
            path_length: layouts.path.map_or(0, |path| path.columns()) as i32,
            table_length: op.table_length() as i32,
            page_size: op.page_size().unwrap_or(1) as i32,
            columns: columns as i32,
            column_blocks: column_blocks(layouts.cache.as_ref()) as i32,
            vectorised: i32::from(
                aligned && layouts.cache.is_some_and(|cache| has_aligned_rows(&cache)),
            ),
        };
        // SAFETY: `validate` proved shapes, strides and dtypes, and that a cache comes with its paths; the binder that
        // nothing written overlaps; `geometry` follows the kernel's contract, and the kernel moves no row before it has
        // compared positions with the capacity and pages with those that there are.
        unsafe { self.launch(stream, &function, &launch, &parameters, false) }
    }
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &CommitCache,
    layouts: &CommitCacheArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    if let Some(launch) = geometry(layouts, cuda.capabilities())? {
        plan.push(launch);
    }
    Ok(plan)
}

/// Whether all rows start on multiples of 16 bytes if the first does.
fn has_aligned_rows(cache: &Layout) -> bool {
    let size = cache.dtype().size() as u64;
    cache.strides()[..3].iter().all(|&stride| (stride as u64 * size).is_multiple_of(VECTOR_BYTES))
}

/// Blocks side by side that share a row; at least one, for the books.
fn column_blocks(cache: Option<&Layout>) -> usize {
    let block_columns =
        |cache: &Layout| THREADS as usize * VECTOR_BYTES as usize / cache.dtype().size();
    cache.map_or(1, |cache| cache.columns().div_ceil(block_columns(cache)).max(1))
}

/// Blocks for the columns of all groups, by sequences. `None` if there is no sequence.
fn geometry(
    layouts: &CommitCacheArgs<Layout, Layout>,
    device: &CudaCapabilities,
) -> Result<Option<Launch>, Error> {
    const MAX_GRID_Y: usize = 65_535;
    let batch = layouts.length.elements();
    if batch == 0 {
        return Ok(None);
    }
    // Bits are copied: one kernel for each size.
    let size = layouts.cache.map_or(4, |cache| cache.dtype().size());
    let dtype = if size == 4 { DType::F32 } else { DType::F16 };
    let (source, name) = ("early_exit/commit_cache", CommitCache::NAME);
    let kernel = Kernel { source, name, activation: dtype, weight: dtype };
    let groups = layouts.cache.map_or(1, |cache| cache.shape()[0].max(1));
    // Without elements there is nothing to move, and one block keeps the books.
    let is_empty = layouts.cache.is_none_or(|cache| cache.elements() == 0);
    let across = if is_empty { 1 } else { groups * column_blocks(layouts.cache.as_ref()) };
    let grid = [across, batch.min(MAX_GRID_Y), 1];
    Launch::new(CommitCache::NAME, kernel, grid, THREADS, 0, device).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_columns_of_all_groups() {
        let grid = |batch, cache: Option<&[usize]>| {
            let numbers = Layout::contiguous(DType::I32, &[batch]).unwrap();
            let mut layouts = CommitCacheArgs::new(numbers, numbers, numbers, numbers);
            layouts.cache = cache.map(|shape| Layout::contiguous(DType::BF16, shape).unwrap());
            let device = CudaCapabilities::test_device(7, 5);
            geometry(&layouts, &device).unwrap().map(|launch| launch.grid)
        };
        assert_eq!(grid(3, None), Some([1, 3, 1]));
        assert_eq!(grid(0, None), None);
        assert_eq!(grid(3, Some(&[6, 3, 4, 1_024])), Some([6, 3, 1]));
        assert_eq!(grid(70_000, Some(&[2, 9, 4, 1_025])), Some([4, 65_535, 1]));
        assert_eq!(grid(3, Some(&[6, 3, 4, 0])), Some([1, 3, 1]));
    }

    #[test]
    fn every_stride_decides_on_the_alignment() {
        let aligned = |strides: [usize; 3]| {
            let [a, b, c] = strides;
            has_aligned_rows(&Layout::strided(DType::F16, &[2, 2, 2, 8], &[a, b, c, 1]).unwrap())
        };
        assert!(aligned([64, 32, 8]));
        assert!(!aligned([68, 32, 8]) && !aligned([64, 28, 8]) && !aligned([64, 32, 12]));
    }
}
