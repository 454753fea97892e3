//! The host's side of `kernels/shared/wgmma_product.cuh`: tiles that a persistent grid takes in turn, and tensor maps.

use super::Cuda;
use super::capabilities::CudaCapabilities;
use super::launch::{Kernel, Launch};
use super::parameters::ReadPointer;
use super::tensor_map::{MappedMatrix, TensorMap};
use crate::dtype::DType;
use crate::error::{Backend, Error};

/// Two warpgroups that multiply and one that loads.
const THREADS: u32 = 384;
/// Rows of a tile, and of each of its two panels of weights; rows of a box.
const ROWS: usize = 128;
/// Columns of a stage, and of a box: a row of the 128-byte swizzle.
const COLUMNS: usize = 64;
const STAGES: usize = 4;
/// Tokens and two panels a stage, with a full and an empty barrier of 8 bytes.
const SHARED_BYTES: usize = STAGES * (3 * ROWS * COLUMNS * 2 + 2 * 8);

/// Tiles of a persistent grid, which its kernels count in 32 bits, with room for a step beyond the last.
pub(crate) const MAX_TILES: usize = 1 << 30;
/// Rows and columns of a matrix: kernels add a tile to indices of this size in 32 bits.
pub(crate) const MAX_DIMENSION: usize = 1 << 30;

/// Tiles of a product: 128 rows by 256 rows of weights, of all its matrices together.
pub(crate) fn tiles(rows: usize, weight_rows: usize) -> usize {
    rows.div_ceil(ROWS).saturating_mul(weight_rows.div_ceil(2 * ROWS))
}

/// A block for each multiprocessor, or for each tile where there are fewer.
///
/// # Errors
/// [`Error::Unsupported`] above [`MAX_TILES`].
pub(crate) fn launch(
    op: &'static str,
    kernel: Kernel,
    tiles: usize,
    device: &CudaCapabilities,
) -> Result<Launch, Error> {
    if tiles > MAX_TILES {
        return Err(Error::Unsupported {
            op,
            backend: Backend::Cuda,
            reason: format!("{kernel} would have {tiles} tiles; limit {MAX_TILES}"),
            remedy: "use another kernel, see CudaOptions, or smaller tensors".into(),
        });
    }
    let blocks = tiles.min(device.multiprocessors as usize);
    Launch::new(op, kernel, [blocks, 1, 1], THREADS, SHARED_BYTES, device)
}

/// The map of a matrix that a product reads: no dimension 0 or negative, rows on multiples of 16 bytes.
///
/// # Errors
/// Those of [`Cuda::tensor_map`].
pub(crate) fn map(
    cuda: &Cuda,
    dtype: DType,
    matrix: ReadPointer,
    [rows, columns]: [i32; 2],
    row_stride: i64,
) -> Result<TensorMap, Error> {
    cuda.tensor_map(&MappedMatrix {
        address: matrix.0,
        dtype,
        rows: rows as usize,
        columns: columns as usize,
        row_stride: row_stride as usize,
        box_rows: ROWS as u32,
        box_columns: COLUMNS as u32,
    })
}
