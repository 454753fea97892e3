//! Which kernel runs, and in how many pieces: a function of shape, types, threads and instructions alone.

use std::ops::RangeInclusive;

use crate::backend::cpu::packed_weight::PANEL_ROWS;
use crate::backend::cpu::product::tiles::{ROW_UNIT, block_rows};
use crate::backend::cpu::products::ManyRows;
use crate::ops::silu_mlp::mlp::config::{First, MlpConfig};

/// How the two products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Weights are streamed past a few rows of activations.
    Stream,
    /// Likewise, through the registers that hold tiles.
    StreamTiles,
    /// Weights are copied in blocks and multiplied with many rows.
    Tiles,
    /// Packed weights meet any number of rows.
    Panels,
}

/// What runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strategy {
    pub kernel: Kernel,
    /// Threads that share the work; the caller's own if 1.
    pub threads: usize,
    /// Weight rows, of each matrix, that a thread takes at a time from the first and the second product.
    pub chunk_rows: [usize; 2],
}

/// Rows up to which [`Kernel::Stream`] is faster. (Zen 4, AVX2, 2048/8192: in f32, 12 rows take 11.4 ms either way; in
/// bf16, 28 take 23 ms streamed, and in bands 32 take 26.)
fn stream_limit(many_rows: ManyRows) -> usize {
    match many_rows {
        ManyRows::TileRegisters | ManyRows::Panels => 16,
        ManyRows::Bands => 28,
        ManyRows::BandsInPlace => 12,
    }
}

/// Rows for which [`Kernel::StreamTiles`] is faster: of a single one, most of each tile would be empty.
const STREAM_TILES_ROWS: RangeInclusive<usize> = 2..=64;
/// Rows up to which a batch-invariant operation promises results that do not depend on the batch.
const MAX_INVARIANT_ROWS: usize = 64;
/// Rows that are taken through both products before the next: bounds the workspace, and keeps their
/// activations in the last-level cache.
pub(super) const MAX_ROWS: usize = 512;
/// Sums of packed weights that stay in the second-level cache.
const MAX_SUMS: usize = 1 << 16;
/// Pieces for each thread, so that one that is held up does not hold up all.
const CHUNKS_PER_THREAD: usize = 8;
/// Streams are cut no shorter than this, since the start of each is a miss.
const MIN_STREAM_BYTES: usize = 64 << 10;

impl Strategy {
    /// For the threads that [`products`] deserve.
    pub fn choose(op: &MlpConfig, rows: usize, threads: usize, many_rows: ManyRows) -> Strategy {
        let has_tiles = many_rows == ManyRows::TileRegisters;
        let kernel = match rows {
            ..=MAX_INVARIANT_ROWS if has_tiles && op.batch_invariant => Kernel::StreamTiles,
            _ if has_tiles && STREAM_TILES_ROWS.contains(&rows) => Kernel::StreamTiles,
            _ if rows <= stream_limit(many_rows) => Kernel::Stream,
            ..=MAX_INVARIANT_ROWS if op.batch_invariant => Kernel::Stream,
            _ => Kernel::Tiles,
        };
        let matrices = first_matrices(op);
        let chunk = |rows: usize, columns: usize, matrices: usize| match kernel {
            Kernel::Tiles => {
                let largest = block_rows(matrices.max(1));
                rows.div_ceil(threads * 2).next_multiple_of(ROW_UNIT).clamp(ROW_UNIT, largest)
            }
            _ => stream_rows(rows, matrices * columns * op.weight_dtype.size(), threads),
        };
        Strategy {
            kernel,
            threads,
            chunk_rows: [
                chunk(op.neurons(), op.inputs, matrices),
                chunk(op.outputs, op.depth(), 1),
            ],
        }
    }

    /// For packed weights.
    pub fn packed(op: &MlpConfig, rows: usize, threads: usize) -> Strategy {
        let chunk = |weight_rows: usize, columns: usize, matrices: usize| {
            let row_bytes = matrices * columns * op.weight_dtype.size();
            let most = MAX_SUMS / (matrices.max(1) * rows.clamp(1, MAX_ROWS));
            let most = most.next_multiple_of(PANEL_ROWS);
            stream_rows(weight_rows, row_bytes, threads).min(most)
        };
        let first = chunk(op.neurons(), op.inputs, first_matrices(op));
        let chunk_rows = [first, chunk(op.outputs, op.depth(), 1)];
        Strategy { kernel: Kernel::Panels, threads, chunk_rows }
    }
}

/// Multiply-adds of a block.
pub(super) fn products(op: &MlpConfig, rows: usize) -> usize {
    let weights = first_matrices(op) * op.inputs * op.neurons() + op.outputs * op.depth();
    weights.saturating_mul(rows)
}

/// Matrices of the first product.
fn first_matrices(op: &MlpConfig) -> usize {
    match op.first {
        First::Absent => 0,
        First::Plain => 1,
        First::Gated => 2,
    }
}

/// How many of `rows` rows of weights, each of `row_bytes` bytes, a thread streams at a time.
pub(crate) fn stream_rows(rows: usize, row_bytes: usize, threads: usize) -> usize {
    let shortest = MIN_STREAM_BYTES.div_ceil(row_bytes.max(1));
    let even = rows.div_ceil(threads * CHUNKS_PER_THREAD);
    even.max(shortest).next_multiple_of(16).min(rows.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn op(hidden: usize, ffn: usize) -> MlpConfig {
        MlpConfig::new("gated_mlp", First::Gated, hidden, ffn, DType::BF16).unwrap()
    }

    #[test]
    fn few_rows_are_streamed_and_many_tiled() {
        for (many_rows, streamed) in
            [(ManyRows::Panels, 16), (ManyRows::Bands, 28), (ManyRows::BandsInPlace, 12)]
        {
            let kernel = |rows| Strategy::choose(&op(2048, 8192), rows, 2, many_rows).kernel;
            assert_eq!([1, streamed].map(kernel), [Kernel::Stream; 2]);
            assert_eq!([streamed + 1, 64, 4096].map(kernel), [Kernel::Tiles; 3]);
        }
    }

    #[test]
    fn batch_invariance_pins_one_kernel_up_to_64_rows() {
        let invariant = MlpConfig { batch_invariant: true, ..op(2048, 8192) };
        let kernel = |rows| Strategy::choose(&invariant, rows, 2, ManyRows::Panels).kernel;
        assert_eq!([1, 16, 17, 64].map(kernel), [Kernel::Stream; 4]);
        assert_eq!(kernel(65), Kernel::Tiles);
    }

    #[test]
    fn products_are_those_of_all_rows_with_all_weights() {
        assert_eq!(products(&op(64, 128), 5), 5 * 3 * 64 * 128);
    }

    #[test]
    fn chunks_are_positive_and_fit_the_kernels() {
        for rows in [1, 16, 17, 512] {
            for (hidden, ffn) in [(1, 0), (1, 1), (7, 33), (576, 1536), (4096, 11008)] {
                let strategy = Strategy::choose(&op(hidden, ffn), rows, 3, ManyRows::Panels);
                assert!(strategy.chunk_rows.iter().all(|&rows| rows > 0), "{strategy:?}");
                if strategy.kernel == Kernel::Tiles {
                    assert!(strategy.chunk_rows.iter().all(|rows| rows % ROW_UNIT == 0));
                }
            }
        }
    }
}
