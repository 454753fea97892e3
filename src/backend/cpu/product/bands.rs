//! Products of many rows of activations with weights, where registers are few: band by band.
//!
//! A band is a few rows of weights, a block of columns of them. It meets every block of activations before the next band
//! does: as it lies, if weights are operands, or widened into a buffer of the first-level cache. The next band's weights
//! are asked for meanwhile. (Zen 4, AVX2, 2048/8192, against panels: 64 rows take 0.84 of the time in f32 and 0.92 in bf16,
//! 32 rows 0.76 and 0.87, 512 rows 0.97 and 1.00.)
#![allow(unsafe_code, reason = "unchecked loads and stores in the innermost loops")]

use std::ops::Range;

use super::Matrix;
use super::panel::{Panel, PanelRows, widen_row};
use super::tiles::Packing;
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::products::Products;

/// Rows of a band: a multiple of every tile's.
const BAND_ROWS: usize = 24;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Products of all rows with all activations, to sums as those of [`super::tiles::Multiply`].
pub(super) struct Bands<'a, V: Vectors, P: Products<V>> {
    pub tokens: (V, P),
    pub rows: PanelRows<'a, P::Weight>,
    pub activations: (Packing, &'a [P::Operand]),
    pub sums: &'a mut [f32],
    /// [`Bands::WIDENED`] operands.
    pub widened: &'a mut [P::Operand],
}

struct Band<'a, T> {
    matrix: &'a Matrix<'a, T>,
    /// First row, of the matrix and of the sums.
    row: usize,
    sums_row: usize,
    rows: usize,
    column: usize,
    columns: usize,
}

impl<'a, V: Vectors, P: Products<V>> Bands<'a, V, P> {
    /// Columns of a band.
    const COLUMNS: usize = Panel::<V, P>::COLUMNS;

    /// Operands that a band is widened to.
    pub const WIDENED: usize = if P::IN_PLACE { 0 } else { BAND_ROWS * Panel::<V, P>::STRIDE };

    #[inline(always)]
    pub fn run(self) {
        let (packing, activations) = self.activations;
        let stride = packing.sums_stride();
        assert!(
            activations.len() >= packing.operands()
                && self.sums.len() >= self.rows.count() * stride
                && self.widened.len() >= Self::WIDENED
        );
        let columns = packing.columns();
        let across = self.rows.rows.len().div_ceil(BAND_ROWS);
        let count = across * self.rows.matrices.len() * columns.div_ceil(Self::COLUMNS);
        let mut band = (count > 0).then(|| self.band(0, across));
        for index in 0..count {
            let Some(Band { matrix, row, sums_row, rows, column, columns }) = band else { return };
            band = (index + 1 < count).then(|| self.band(index + 1, across));
            let next = band.as_ref().map(|next| {
                (next.matrix.row(next.row)[next.column..].as_ptr(), next.matrix.stride())
            });
            let weights = |row: usize| &matrix.row(row)[column..column + columns];
            let (weights, weights_stride) = if P::IN_PLACE {
                assert!(
                    !weights(row + rows - 1).is_empty(),
                    "the last row is there, and so are all"
                );
                (weights(row).as_ptr().cast(), matrix.stride())
            } else {
                let widened = self.widened.chunks_exact_mut(Panel::<V, P>::STRIDE);
                for (index, widened) in widened.take(rows).enumerate() {
                    widen_row(self.tokens, weights(row + index), widened);
                }
                (self.widened.as_ptr(), Panel::<V, P>::STRIDE)
            };
            for lane in packing.blocks() {
                let tile = Tiles::<V, P> {
                    tokens: self.tokens,
                    weights,
                    weights_stride,
                    rows,
                    depth: columns.div_ceil(P::GROUP),
                    activations: activations[packing.offset(lane, column)..].as_ptr(),
                    sums: self.sums[sums_row * stride + lane..].as_mut_ptr(),
                    sums_stride: stride,
                    accumulate: column > 0,
                    next: next.filter(|_| lane == 0),
                };
                // SAFETY: by the assertion, activations and sums hold all rows; matrix or buffer hold the band's.
                unsafe { tile.run(packing.width(lane) / V::LANES) };
            }
        }
    }

    /// Bands follow each other through the rows of a matrix, then the matrices, then the columns.
    #[inline(always)]
    fn band(&self, index: usize, across: usize) -> Band<'a, P::Weight> {
        let PanelRows { matrices, ref rows } = self.rows;
        let (first, rest) = (index % across * BAND_ROWS, index / across);
        let (matrix, column) = (rest % matrices.len(), rest / matrices.len() * Self::COLUMNS);
        Band {
            matrix: &matrices[matrix],
            row: rows.start + first,
            sums_row: matrix * self.rows.padded() + first,
            rows: BAND_ROWS.min(rows.len() - first),
            column,
            columns: Self::COLUMNS.min(self.activations.0.columns() - column),
        }
    }
}

/// A block of activations against the rows of a band.
struct Tiles<V: Vectors, P: Products<V>> {
    tokens: (V, P),
    weights: *const P::Operand,
    /// Operands between rows.
    weights_stride: usize,
    rows: usize,
    /// Groups of columns.
    depth: usize,
    activations: *const P::Operand,
    sums: *mut f32,
    sums_stride: usize,
    accumulate: bool,
    /// The next band's weights, and elements between its rows, if they are asked for.
    next: Option<(*const P::Weight, usize)>,
}

impl<V: Vectors, P: Products<V>> Tiles<V, P> {
    /// The block is `vectors` wide. As many weight rows go with it as there are registers for sums.
    ///
    /// # Safety
    /// As [`Tiles::tile`], for all `rows`.
    #[inline(always)]
    unsafe fn run(&self, vectors: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match vectors {
                3 => self.each::<3, 4>(),
                2 => self.each::<2, 6>(),
                _ => self.each::<1, 12>(),
            }
        }
    }

    /// # Safety
    /// As [`Tiles::tile`], for all `rows`.
    #[inline(always)]
    unsafe fn each<const VECTORS: usize, const ROWS: usize>(&self) {
        const { assert!(BAND_ROWS.is_multiple_of(ROWS)) };
        let whole = self.rows / ROWS * ROWS;
        // SAFETY: the caller's promise.
        unsafe {
            for row in (0..whole).step_by(ROWS) {
                self.tile::<VECTORS, ROWS>(row);
            }
            for row in whole..self.rows {
                self.tile::<VECTORS, 1>(row);
            }
        }
    }

    /// Sums of `ROWS` weight rows from `row` on with `VECTORS` vectors of activations.
    ///
    /// # Safety
    /// There are these rows, of `depth` groups; the activations hold `depth` groups of `VECTORS` vectors, the sums these
    /// rows of `VECTORS` vectors each.
    #[inline(always)]
    unsafe fn tile<const VECTORS: usize, const ROWS: usize>(&self, row: usize) {
        let v = self.tokens.0;
        let mut sums = [[v.splat(0.0); VECTORS]; ROWS];
        // SAFETY: the caller's promise.
        unsafe {
            let target = self.sums.add(row * self.sums_stride);
            if self.accumulate {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        *sum = v.load_f32(target.add(row * self.sums_stride + vector * V::LANES));
                    }
                }
            }
            let weights = self.weights.add(row * self.weights_stride);
            let line = LINE / size_of::<P::Weight>() / P::GROUP;
            for first in (0..self.depth).step_by(line) {
                self.ask_for_next(row..row + ROWS, first * P::GROUP);
                for step in first..self.depth.min(first + line) {
                    self.step(weights.add(step * P::GROUP), step, &mut sums);
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    v.store_f32(sum, target.add(row * self.sums_stride + vector * V::LANES));
                }
            }
        }
    }

    /// Asks for a line of some rows of the next band, from a column of it on.
    #[inline(always)]
    fn ask_for_next(&self, rows: Range<usize>, column: usize) {
        let (v, Some((next, stride))) = (self.tokens.0, self.next) else { return };
        for row in rows {
            let address = next.wrapping_add(row * stride + column).cast();
            // What is widened is wanted at once by few instructions, which would all wait for the second level.
            match P::IN_PLACE {
                true => v.prefetch_second_level(address),
                false => v.prefetch(address),
            }
        }
    }

    /// One group of columns.
    ///
    /// # Safety
    /// As [`Tiles::tile`]; `weights` is that group of the tile's first row.
    #[inline(always)]
    unsafe fn step<const VECTORS: usize, const ROWS: usize>(
        &self,
        weights: *const P::Operand,
        step: usize,
        sums: &mut [[V::Vector; VECTORS]; ROWS],
    ) {
        let (v, p) = self.tokens;
        // SAFETY: the caller's promise.
        unsafe {
            let activations = self.activations.add(step * VECTORS * P::STEP);
            let mut operands = [p.load(v, activations); VECTORS];
            for (vector, operand) in operands.iter_mut().enumerate().skip(1) {
                *operand = p.load(v, activations.add(vector * P::STEP));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let weight = p.splat(v, weights.add(row * self.weights_stride));
                for (sum, operand) in sums.iter_mut().zip(operands) {
                    *sum = v.settle(p.multiply_add(v, weight, operand, *sum));
                }
            }
        }
    }
}
