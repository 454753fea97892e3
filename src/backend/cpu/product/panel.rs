//! The panel: a block of rows and columns of weights, widened if need be, that stays in the second-level cache.
//!
//! There are two: while one is multiplied, rows of the next are asked for and then copied, few at a time. (All at once they
//! would not stay in the cache until they are copied: rows are often powers of two apart and fall on few of its sets.)
#![allow(unsafe_code, reason = "unchecked loads and stores, and addresses that are only asked for")]

use std::ops::Range;

use super::Matrix;
use super::tiles::ROW_UNIT;
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::products::Products;
use crate::dtype::Float;

/// Bytes of packed activations that stay in the first-level cache: most of 48 KB, the rest is for weights.
const DEPTH_BYTES: usize = 32 * 1024;
/// Groups of columns in a block that is multiplied by tiles: the more, the more rarely sums are read and written. (Sapphire
/// Rapids, 1 thread, 128 rows of 4096/11008: 128 groups take 88 ms, 256 take 68, 512 take 66.)
const TILE_DEPTH: usize = 256;

/// A panel's dimensions.
pub(super) struct Panel<V, P>(V, P);

impl<V: Vectors, P: Products<V>> Panel<V, P> {
    /// Groups of columns in a block.
    const DEPTH: usize = {
        let fitting = DEPTH_BYTES / (V::TILE_VECTORS * V::LANES * size_of::<f32>());
        if fitting < 256 { fitting / 32 * 32 } else { 256 }
    };
    /// Columns in a block that is multiplied by vectors.
    pub const COLUMNS: usize = Self::DEPTH * P::GROUP;
    /// A line more than the columns, so that rows fall on different sets of the cache.
    const PADDING: usize = 64 / size_of::<P::Operand>();
    /// Operands between rows that are multiplied by vectors.
    pub const STRIDE: usize = Self::COLUMNS + Self::PADDING;

    /// Columns in a block.
    #[inline(always)]
    pub fn columns(p: P) -> usize {
        if p.has_tiles() { TILE_DEPTH * P::GROUP } else { Self::COLUMNS }
    }

    /// Operands between rows.
    #[inline(always)]
    pub fn stride(p: P) -> usize {
        Self::columns(p) + Self::PADDING
    }
}

/// Rows of one or two matrices, as they follow each other in a panel: each matrix's are rounded up to [`ROW_UNIT`].
pub(super) struct PanelRows<'a, T> {
    pub matrices: &'a [Matrix<'a, T>],
    /// Of each matrix.
    pub rows: Range<usize>,
}

impl<T: Float> PanelRows<'_, T> {
    /// Rows of each matrix, rounded up.
    pub fn padded(&self) -> usize {
        self.rows.len().next_multiple_of(ROW_UNIT)
    }

    /// Rows in the panel.
    pub fn count(&self) -> usize {
        self.padded() * self.matrices.len()
    }

    /// Copies some of the panel's rows, zeros behind.
    #[inline(always)]
    pub fn copy<V: Vectors, P: Products<V, Weight = T>>(
        &self,
        tokens: (V, P),
        rows: Range<usize>,
        columns: &Range<usize>,
        panel: &mut [P::Operand],
    ) {
        let stride = Panel::<V, P>::stride(tokens.1);
        let panel = &mut panel[rows.start * stride..rows.end * stride];
        for (row, panel) in rows.zip(panel.chunks_exact_mut(stride)) {
            let (matrix, row) = (row / self.padded(), row % self.padded());
            let weights = match row < self.rows.len() {
                true => &self.matrices[matrix].row(self.rows.start + row)[columns.clone()],
                false => &[],
            };
            widen_row(tokens, weights, &mut panel[..Panel::<V, P>::columns(tokens.1)]);
        }
    }

    /// What is to be asked for before it is copied.
    pub fn ahead(&self, rows: &Range<usize>, columns: &Range<usize>) -> Ahead {
        let matrices = [0, self.matrices.len() - 1].map(|index| &self.matrices[index]);
        Ahead {
            first: matrices
                .map(|matrix| matrix.row(self.rows.start)[columns.start..].as_ptr().cast()),
            strides: matrices.map(Matrix::stride_bytes),
            rows: self.padded(),
            start: rows.start,
        }
    }
}

/// Weights as operands, zeros behind.
#[inline(always)]
pub(super) fn widen_row<V: Vectors, P: Products<V>>(
    (v, p): (V, P),
    weights: &[P::Weight],
    panel: &mut [P::Operand],
) {
    const { assert!(Panel::<V, P>::COLUMNS.is_multiple_of(P::STEP)) };
    const { assert!((TILE_DEPTH * P::GROUP).is_multiple_of(P::STEP)) };
    let whole = weights.len() / P::STEP * P::STEP;
    for at in (0..whole).step_by(P::STEP) {
        let (from, to) = (&weights[at..at + P::STEP], &mut panel[at..at + P::STEP]);
        // SAFETY: both slices hold a whole vector.
        unsafe { p.store(v, p.load_weights(v, from.as_ptr()), to.as_mut_ptr()) };
    }
    let rest = &weights[whole..];
    let panel = &mut panel[whole..];
    panel.fill(bytemuck::Zeroable::zeroed());
    for (operand, weight) in panel.iter_mut().zip(rest) {
        *operand = P::Operand::from_f32(weight.to_f32());
    }
}

/// Weights that will be copied next.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The first row of each matrix.
    first: [*const u8; 2],
    /// Bytes between rows.
    strides: [usize; 2],
    /// Rows of each matrix in the panel.
    rows: usize,
    /// The first row of the panel that is to be copied.
    start: usize,
}

impl Ahead {
    /// Where the weights of the `index`-th of the rows to be copied are, and the bytes from there to the next's; beyond the
    /// matrix, no valid address.
    #[inline(always)]
    pub fn row(&self, index: usize) -> (*const u8, usize) {
        let row = self.start + index;
        let second = usize::from(row >= self.rows);
        let stride = self.strides[second];
        (self.first[second].wrapping_add((row - second * self.rows) * stride), stride)
    }
}
