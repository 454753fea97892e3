//! How elementwise work on a matrix is cut up for threads.

use std::ops::Range;

use super::parallel::chunk;

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
    pub fn count(&self) -> usize {
        self.rows.div_ceil(self.piece_rows) * self.across()
    }

    /// Rows and columns of a piece.
    pub fn piece(&self, index: usize) -> (Range<usize>, Range<usize>) {
        (
            chunk(self.rows, self.piece_rows, index / self.across()),
            chunk(self.columns, self.piece_columns, index % self.across()),
        )
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
