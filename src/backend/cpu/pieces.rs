//! Elementwise work on a matrix, cut up for threads.

use std::ops::Range;

use super::Cpu;
use super::instructions::{Leaf, VectorJob, Vectors};
use super::parallel::{chunk, for_each_chunk};

/// Elements that keep a thread busy for several times as long as it takes to wake it (about 5 µs).
const CHUNK_ELEMENTS: usize = 1 << 15;

/// A matrix cut into pieces of about [`CHUNK_ELEMENTS`]: of several whole rows, or of one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces {
    rows: usize,
    columns: usize,
    piece_rows: usize,
    piece_columns: usize,
}

impl Pieces {
    /// Rows that are longer than a piece are cut.
    pub fn new(rows: usize, columns: usize) -> Pieces {
        let piece_rows = (CHUNK_ELEMENTS / columns.max(1)).max(1);
        Pieces { rows, columns, piece_rows, piece_columns: CHUNK_ELEMENTS }
    }

    /// Rows stay whole, however long.
    pub fn of_rows(rows: usize, columns: usize) -> Pieces {
        Pieces { piece_columns: columns.max(1), ..Pieces::new(rows, columns) }
    }

    fn across(&self) -> usize {
        self.columns.div_ceil(self.piece_columns)
    }

    /// Number of pieces; 0 for an empty matrix.
    fn count(&self) -> usize {
        self.rows.div_ceil(self.piece_rows) * self.across()
    }

    /// Rows and columns of a piece.
    fn piece(&self, index: usize) -> (Range<usize>, Range<usize>) {
        (
            chunk(self.rows, self.piece_rows, index / self.across()),
            chunk(self.columns, self.piece_columns, index % self.across()),
        )
    }
}

/// What is done to each piece.
pub(crate) trait PieceWork: Copy + Send + Sync {
    /// Does these rows and columns, which no other call does. To be inlined always, so that it is compiled for
    /// the instruction set.
    fn run<V: Vectors>(&self, v: V, rows: Range<usize>, columns: Range<usize>);
}

/// What is done to each of some numbered chunks.
pub(crate) trait ChunkWork: Copy + Send + Sync {
    /// Does a chunk, which no other call does; no two calls with one slot, below the number of threads, overlap. To
    /// be inlined always, so that it is compiled for the instruction set.
    fn run<V: Vectors>(&self, v: V, slot: usize, chunk: usize);
}

impl Cpu {
    /// Does the work on every piece; on the caller's thread if there is but one.
    pub(crate) fn run_pieces(&self, pieces: Pieces, work: impl PieceWork) {
        self.run_chunks(pieces.count(), Pieced { pieces, work });
    }

    /// Does the work on every chunk; on the caller's thread if there is but one.
    pub(crate) fn run_chunks(&self, chunks: usize, work: impl ChunkWork) {
        let threads = chunks.min(self.threads());
        let dispatch = || self.instructions().dispatch(Job { chunks, work, threads });
        if threads > 1 { self.enter(dispatch) } else { dispatch() }
    }
}

#[derive(Clone, Copy)]
struct Pieced<W> {
    pieces: Pieces,
    work: W,
}

impl<W: PieceWork> ChunkWork for Pieced<W> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, chunk: usize) {
        let (rows, columns) = self.pieces.piece(chunk);
        self.work.run(v, rows, columns);
    }
}

struct Job<W> {
    chunks: usize,
    work: W,
    threads: usize,
}

impl<W: ChunkWork> VectorJob for Job<W> {
    type Output = ();

    fn run<V: Vectors>(self, v: V) {
        let Job { chunks, work, threads } = self;
        for_each_chunk(threads, chunks, &|slot, chunk| {
            v.enter(Chunk { v, work, slot, chunk });
        });
    }
}

struct Chunk<V, W> {
    v: V,
    work: W,
    slot: usize,
    chunk: usize,
}

impl<V: Vectors, W: ChunkWork> Leaf for Chunk<V, W> {
    #[inline(always)]
    fn run(self) {
        self.work.run(self.v, self.slot, self.chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_matrix_once() {
        for (rows, columns) in [(0, 3), (3, 0), (1, 1), (5, 40_000), (70_000, 1), (300, 333)] {
            for pieces in [Pieces::new(rows, columns), Pieces::of_rows(rows, columns)] {
                let covered: usize = (0..pieces.count())
                    .map(|index| pieces.piece(index))
                    .map(|(rows, columns)| rows.len() * columns.len())
                    .sum();
                assert_eq!(covered, rows * columns, "{pieces:?}");
            }
        }
        let rows = Pieces::of_rows(5, 40_000);
        assert!((0..rows.count()).all(|index| rows.piece(index).1 == (0..40_000)));
    }
}
