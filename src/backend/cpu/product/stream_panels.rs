//! Products of rows of activations with packed weights, which are read once, from one end to the other.
//!
//! The lanes of a vector run across the output features of a panel; the activations of a batch of rows lie side by side and
//! are broadcast. A panel is walked along in blocks that stay in the first-level cache while every batch meets them. A sum
//! is made in the order of the input features, whatever the number of activations.
//!
//! Zen 4, AVX2, 2 threads, 2048/8192: memory holds back up to 8 rows in f32 and 4 in bf16 (31 GB/s of 33; with weights as they
//! lie 23 and 26), arithmetic more of them (155 to 163 of 184 GFLOP/s). Four rows are the smallest batch that could reach
//! that: eight sums just hide the latency of a multiply-add. Tried without gain: panels of 48 rows, so that four rows have
//! twelve sums; for hundreds of rows, blocks of all panels for the same columns one after another.
#![allow(unsafe_code, reason = "unchecked loads and stores in the innermost loops")]

use std::ops::Range;

use super::stream::SumRows;
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::packed_weight::{PANEL_ROWS, group};
use crate::backend::cpu::products::Products;
use crate::dtype::{DType, Element as _, Float};

/// Bytes of a block, and how far ahead of its use a line of weights is asked for: the next block comes while all batches
/// meet this one.
const BLOCK_BYTES: usize = 8 << 10;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Most rows of activations in a batch.
const MAX_BATCH: usize = 12;

/// Rows of activations, in batches that meet a panel one after another: as large as there are registers for sums, and as
/// even as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batches {
    rows: usize,
    count: usize,
}

impl Batches {
    pub fn new<V: Vectors>(rows: usize) -> Batches {
        let most = (V::ACCUMULATORS * V::LANES / PANEL_ROWS).min(MAX_BATCH);
        Batches { rows, count: rows.div_ceil(most) }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The `index`-th batch.
    fn get(&self, index: usize) -> Range<usize> {
        let start = |index| index * self.rows / self.count;
        start(index)..start(index + 1)
    }

    /// The batch that `row` is in.
    pub fn of(&self, row: usize) -> Range<usize> {
        self.get(((row + 1) * self.count - 1) / self.rows)
    }
}

/// What [`SumRows`] does, where weights are packed and activations lie in batches.
#[inline(always)]
pub(super) fn sum<V: Vectors, P: Products<V>>(job: SumRows<'_, V, P>, batches: Batches) {
    let SumRows { tokens: (v, _), matrices, rows, activations, sums } = job;
    assert!(P::Operand::DTYPE == DType::F32, "packed weights meet widened activations");
    let operands: &[f32] = bytemuck::cast_slice(activations.data);
    let (count, stride) = (activations.rows(), activations.arrangement.sums_stride(rows.len()));
    let columns = matrices[0].columns();
    if columns == 0 {
        return sums[..matrices.len() * count * stride].fill(0.0);
    }
    let depth = BLOCK_BYTES / PANEL_ROWS / size_of::<P::Weight>();
    for (index, matrix) in matrices.iter().enumerate() {
        for row in rows.clone().step_by(PANEL_ROWS) {
            for start in (0..columns).step_by(depth) {
                let block = start..columns.min(start + depth);
                let weights = matrix.panel(row, block.clone()).as_ptr();
                for at in 0..batches.count {
                    let Range { start: first, end } = batches.get(at);
                    let batch = end - first;
                    let operands = &operands[first * columns + start * batch..];
                    let sums = &mut sums[(index * count + first) * stride + row - rows.start..];
                    let tile = Tile::<V, P::Weight> {
                        v,
                        weights,
                        operands: operands[..block.len() * batch].as_ptr(),
                        depth: block.len(),
                        sums: sums[..(batch - 1) * stride + PANEL_ROWS].as_mut_ptr(),
                        stride,
                        accumulate: start > 0,
                        turn: at,
                        every: batches.count,
                    };
                    // SAFETY: the block, as many operands and the sums of the batch are there, as sliced.
                    unsafe { tile.run(batch) };
                }
            }
        }
    }
}

/// A block of a panel against a batch of activations.
struct Tile<V, W> {
    v: V,
    weights: *const W,
    operands: *const f32,
    /// Input features.
    depth: usize,
    sums: *mut f32,
    /// Between the sums of one row of activations and the next.
    stride: usize,
    accumulate: bool,
    /// Lines of the next block that this batch asks for: the first, and from each to the next. (Zen 4, AVX2, 2048/8192, f32, 8
    /// rows: 6.5 ms; 7.6 if the first batch asks for all, and memory is idle during the second.)
    turn: usize,
    every: usize,
}

impl<V: Vectors, W: Float> Tile<V, W> {
    /// Input features whose weights fill a line: a group, or two.
    const LINE_COLUMNS: usize = {
        let columns = LINE / size_of::<W>() / PANEL_ROWS;
        assert!(columns == 1 || columns == 2, "at most one is left of a block");
        columns
    };
    /// Input features that lie side by side.
    const GROUP: usize = group(W::DTYPE);

    /// # Safety
    /// There are `depth` groups of [`PANEL_ROWS`] weights, `depth` groups of `rows` operands and as many rows of sums.
    #[inline(always)]
    unsafe fn run(&self, rows: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match PANEL_ROWS / V::LANES {
                1 => self.of_width::<1>(rows),
                2 => self.of_width::<2>(rows),
                _ => self.of_width::<4>(rows),
            }
        }
    }

    /// # Safety
    /// As [`Tile::run`]; `VECTORS` vectors are as wide as a panel.
    #[inline(always)]
    unsafe fn of_width<const VECTORS: usize>(&self, rows: usize) {
        const { assert!(MAX_BATCH == 12) };
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                1 => self.add::<VECTORS, 1>(),
                2 => self.add::<VECTORS, 2>(),
                3 => self.add::<VECTORS, 3>(),
                4 => self.add::<VECTORS, 4>(),
                5 => self.add::<VECTORS, 5>(),
                6 => self.add::<VECTORS, 6>(),
                _ if VECTORS > 1 => unreachable!("{rows} rows at once"),
                7 => self.add::<VECTORS, 7>(),
                8 => self.add::<VECTORS, 8>(),
                9 => self.add::<VECTORS, 9>(),
                10 => self.add::<VECTORS, 10>(),
                11 => self.add::<VECTORS, 11>(),
                12 => self.add::<VECTORS, 12>(),
                _ => unreachable!("{rows} rows at once"),
            }
        }
    }

    /// # Safety
    /// As [`Tile::of_width`], for `ROWS` rows.
    #[inline(always)]
    unsafe fn add<const VECTORS: usize, const ROWS: usize>(&self) {
        let v = self.v;
        let mut sums = [[v.splat(0.0); VECTORS]; ROWS];
        // SAFETY: the caller's promise.
        unsafe {
            if self.accumulate {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        *sum = v.load_f32(self.sums.add(row * self.stride + vector * V::LANES));
                    }
                }
            }
            let whole = self.depth / Self::LINE_COLUMNS * Self::LINE_COLUMNS;
            let mut due = self.turn * Self::LINE_COLUMNS;
            for first in (0..whole).step_by(Self::LINE_COLUMNS) {
                if first == due {
                    due += self.every * Self::LINE_COLUMNS;
                    let line = self.weights.wrapping_add(first * PANEL_ROWS).cast::<u8>();
                    v.prefetch_second_level(line.wrapping_add(BLOCK_BYTES));
                }
                for index in 0..Self::LINE_COLUMNS {
                    self.step(first, index, &mut sums);
                }
            }
            if whole < self.depth {
                self.step(whole, 0, &mut sums);
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    v.store_f32(sum, self.sums.add(row * self.stride + vector * V::LANES));
                }
            }
        }
    }

    /// One input feature: the `index`-th behind the first of a line.
    ///
    /// # Safety
    /// As [`Tile::add`]; there is such a feature.
    #[inline(always)]
    unsafe fn step<const VECTORS: usize, const ROWS: usize>(
        &self,
        first: usize,
        index: usize,
        sums: &mut [[V::Vector; VECTORS]; ROWS],
    ) {
        let (v, member) = (self.v, index % Self::GROUP);
        // SAFETY: the caller's promise.
        unsafe {
            let group = self.weights.add((first + index - member) * PANEL_ROWS);
            let operands = self.operands.add((first + index) * ROWS);
            let mut weights = [load(v, group, member); VECTORS];
            for (vector, weights) in weights.iter_mut().enumerate().skip(1) {
                *weights = load(v, group.add(vector * V::LANES * Self::GROUP), member);
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let operand = v.splat(*operands.add(row));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = v.settle(v.mul_add(weights, operand, *sum));
                }
            }
        }
    }
}

/// A member of each of the groups of `LANES` output features.
///
/// # Safety
/// These groups can be read.
#[inline(always)]
unsafe fn load<V: Vectors, W: Float>(v: V, from: *const W, member: usize) -> V::Vector {
    // SAFETY: the caller's promise; pairs are of bf16.
    unsafe {
        match group(W::DTYPE) {
            1 => v.load(from),
            _ => v.load_bf16_of_pairs(from.cast(), member),
        }
    }
}
