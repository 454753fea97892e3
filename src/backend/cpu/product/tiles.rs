//! Products of many rows of activations with weights: prefill.
//!
//! The lanes of a vector run across rows of activations, which are packed once so that the operands of all
//! rows for one column lie side by side. Weights need no transposition: a block of them is copied, widened
//! if need be, to a panel in the second-level cache, from which single operands are broadcast. The
//! innermost kernel keeps a tile of sums in registers and walks down the columns; blocks of columns are
//! as deep as the first-level cache can hold packed activations for. Where registers are few, [`super::bands`]
//! do all that.
#![allow(unsafe_code, reason = "unchecked loads and stores in the innermost loops")]

use std::ops::Range;

use super::bands::Bands;
use super::panel::{Ahead, Panel, PanelRows};
use super::{Matrix, TILE_BYTES, TILE_ROWS, TileProduct};
use crate::backend::cpu::instructions::{Leaf, Vectors};
use crate::backend::cpu::products::Products;

/// Every tile's number of weight rows divides it: 6, 8, 12, 16 or 24.
pub(crate) const ROW_UNIT: usize = 48;
/// Weight rows, of all matrices together, in a block: 192 rows of sums for 512 activations are 400 KB, and
/// their panel 110 KB, which leaves room in a second-level cache of 1 MB.
const MAX_BLOCK_ROWS: usize = 4 * ROW_UNIT;
/// Weight rows of each of `matrices` that one [`Multiply`] takes at most.
pub(crate) const fn block_rows(matrices: usize) -> usize {
    MAX_BLOCK_ROWS / matrices
}

/// Shape of packed activations: `rows` of `columns` operands.
///
/// Blocks of rows, as many as a tile has lanes, follow each other; the last may be narrower, or wider if there are tiles
/// of that width. In a block, the lanes' operands for one group of columns follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    rows: usize,
    columns: usize,
    lanes: usize,
    group: usize,
    /// Multiples of it are multiplied at once.
    column_unit: usize,
    tile_lanes: usize,
    /// Of the last block at most.
    widest_lanes: usize,
}

impl Packing {
    pub fn new<V: Vectors, P: Products<V>>(p: P, rows: usize, columns: usize) -> Packing {
        let column_unit = if p.has_tiles() { TILE_ROWS * P::GROUP } else { P::GROUP };
        let [tile_lanes, widest_lanes] =
            [V::TILE_VECTORS, V::WIDEST_TILE].map(|tile| tile * V::LANES);
        let (lanes, group) = (V::LANES, P::GROUP);
        Packing { rows, columns, lanes, group, column_unit, tile_lanes, widest_lanes }
    }

    /// As on a machine with registers that hold tiles.
    #[cfg(test)]
    pub fn of_tiles(rows: usize, columns: usize) -> Packing {
        let (lanes, group) = (TILE_ROWS, 2);
        let (column_unit, tile_lanes) = (TILE_ROWS * group, 4 * TILE_ROWS);
        Packing { rows, columns, lanes, group, column_unit, tile_lanes, widest_lanes: tile_lanes }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows rounded up to whole vectors.
    pub fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(self.lanes)
    }

    /// Columns rounded up; those behind the last hold zeros.
    pub fn padded_columns(&self) -> usize {
        self.columns.next_multiple_of(self.column_unit)
    }

    /// First rows of the blocks.
    pub fn blocks(self) -> impl Iterator<Item = usize> {
        (0..self.padded_rows()).step_by(self.tile_lanes).filter(move |&row| self.start(row) == row)
    }

    /// First row of the block that `row` is in.
    fn start(&self, row: usize) -> usize {
        let start = row / self.tile_lanes * self.tile_lanes;
        let before = start.saturating_sub(self.tile_lanes);
        if self.padded_rows() - before <= self.widest_lanes { before } else { start }
    }

    /// Operands in all, padding included.
    pub fn operands(&self) -> usize {
        self.padded_rows() * self.padded_columns()
    }

    /// Elements between the sums of one weight row and the next: one line more than needed, since
    /// powers of two would fall on few sets of the cache.
    pub fn sums_stride(&self) -> usize {
        self.padded_rows() + 16
    }

    /// Lanes of the block that `row` is in.
    pub fn width(&self, row: usize) -> usize {
        let left = self.padded_rows() - self.start(row);
        if left <= self.widest_lanes { left } else { self.tile_lanes }
    }

    /// Where the vector of groups for the rows from `row`, a multiple of the lanes, and the columns from
    /// `column`, a multiple of the group, starts.
    pub fn offset(&self, row: usize, column: usize) -> usize {
        let start = self.start(row);
        start * self.padded_columns() + column * self.width(row) + (row - start) * self.group
    }

    /// Where the operand of a row for a column is.
    pub fn place(&self, row: usize, column: usize) -> usize {
        let (lane, member) = (row % self.lanes, column % self.group);
        self.offset(row - lane, column - member) + lane * self.group + member
    }

    /// Operands from a row's group of columns to its next.
    pub fn group_stride(&self, row: usize) -> usize {
        self.width(row) * self.group
    }

    /// Sums that a block of [`block_rows`] needs room for.
    pub fn sums(&self) -> usize {
        MAX_BLOCK_ROWS * self.sums_stride()
    }

    /// Operands of the two panels of such a block, or of a band.
    pub fn panels<V: Vectors, P: Products<V>>(p: P) -> usize {
        match V::HAS_FEW_REGISTERS {
            true => Bands::<V, P>::WIDENED,
            false => 2 * MAX_BLOCK_ROWS * Panel::<V, P>::stride(p),
        }
    }
}

/// Scratch memory of one thread, of [`Packing::sums`] and [`Packing::panels`] elements.
pub(crate) struct Scratch<'a, T> {
    pub sums: &'a mut [f32],
    pub panels: &'a mut [T],
}

/// Products of `rows` of each matrix, [`block_rows`] at most, with all activations.
///
/// In `scratch.sums`, weight rows are [`Packing::sums_stride`] apart and those of the second matrix start
/// behind `rows`, rounded up to [`ROW_UNIT`]. Lanes without a row of activations hold sums of padding.
pub(crate) struct Multiply<'a, 's, V: Vectors, P: Products<V>> {
    pub tokens: (V, P),
    /// One or two of one shape.
    pub matrices: &'a [Matrix<'a, P::Weight>],
    pub rows: Range<usize>,
    pub activations: (Packing, &'a [P::Operand]),
    pub scratch: &'a mut Scratch<'s, P::Operand>,
}

impl<V: Vectors, P: Products<V>> Leaf for Multiply<'_, '_, V, P> {
    #[inline(always)]
    fn run(self) {
        let Multiply { tokens: (v, p), matrices, rows, activations, scratch } = self;
        let (packing, activations) = activations;
        let panel_rows = PanelRows { matrices, rows };
        let all_rows = panel_rows.count();
        assert!(
            all_rows <= MAX_BLOCK_ROWS
                && packing == Packing::new::<V, P>(p, packing.rows, packing.columns)
                && activations.len() >= packing.operands()
                && scratch.sums.len() >= packing.sums()
                && scratch.panels.len() >= Packing::panels::<V, P>(p)
        );
        if packing.columns == 0 {
            scratch.sums[..all_rows * packing.sums_stride()].fill(0.0);
            return;
        }
        if V::HAS_FEW_REGISTERS {
            let (activations, sums) = ((packing, activations), &mut *scratch.sums);
            let (tokens, widened) = ((v, p), &mut *scratch.panels);
            return Bands::<V, P> { tokens, rows: panel_rows, activations, sums, widened }.run();
        }
        let registers = p.take_tiles();
        let depth = Panel::<V, P>::columns(p);
        let block_columns = |start: usize| start..packing.columns.min(start + depth);
        let half = Packing::panels::<V, P>(p) / 2;
        let (mut panel, mut next_panel) = scratch.panels.split_at_mut(half);
        panel_rows.copy((v, p), 0..all_rows, &block_columns(0), panel);
        for start in (0..packing.columns).step_by(depth) {
            let columns = block_columns(start);
            let next_columns = block_columns(columns.end);
            for Turn { lane, rows, copied } in Turn::all(packing, all_rows, registers.is_some()) {
                let copied = copied.filter(|_| !next_columns.is_empty());
                let width = packing.width(lane);
                let block = Block::<V, P> {
                    tokens: (v, p),
                    depth: columns.len().div_ceil(P::GROUP),
                    rows,
                    panel: panel.as_ptr(),
                    activations: activations[packing.offset(lane, start)..].as_ptr(),
                    sums: scratch.sums[lane..].as_mut_ptr(),
                    sums_stride: packing.sums_stride(),
                    accumulate: start > 0,
                    ahead: copied.as_ref().map(|rows| panel_rows.ahead(rows, &next_columns)),
                };
                // SAFETY: by the assertions, panel and sums hold `all_rows` rows, and the activations the rest
                // of their block; `width` is that block's.
                unsafe {
                    match &registers {
                        Some(registers) => block.tile_registers(registers, width / V::LANES),
                        None => block.run(width / V::LANES),
                    }
                }
                if let Some(copied) = copied {
                    panel_rows.copy((v, p), copied, &next_columns, next_panel);
                }
            }
            std::mem::swap(&mut panel, &mut next_panel);
        }
    }
}

/// A block of activations against a group of the panel's rows.
struct Turn {
    /// First row of the activations.
    lane: usize,
    rows: Range<usize>,
    /// Rows of the next panel that are asked for meanwhile and then copied.
    copied: Option<Range<usize>>,
}

impl Turn {
    /// All of a panel of `all_rows` rows.
    #[inline(always)]
    fn all(packing: Packing, all_rows: usize, has_tiles: bool) -> impl Iterator<Item = Turn> {
        // Tiles are best multiplied two by two, and their groups so long that most are.
        let unit = if has_tiles { (all_rows / 2).next_multiple_of(ROW_UNIT) } else { ROW_UNIT };
        let groups = all_rows.div_ceil(unit);
        let blocks = packing.blocks().count();
        let group = move |index: usize| index * unit..all_rows.min((index + 1) * unit);
        let lanes = packing.blocks().flat_map(move |lane| (0..groups).map(move |row| (lane, row)));
        lanes.enumerate().map(move |(turn, (lane, row))| {
            let is_copied = turn.is_multiple_of(blocks);
            Turn { lane, rows: group(row), copied: is_copied.then(|| group(turn / blocks)) }
        })
    }
}

/// A block of rows of activations against a panel.
struct Block<V, P: Products<V>>
where
    V: Vectors,
{
    tokens: (V, P),
    depth: usize,
    /// Of the panel.
    rows: Range<usize>,
    panel: *const P::Operand,
    activations: *const P::Operand,
    sums: *mut f32,
    sums_stride: usize,
    accumulate: bool,
    ahead: Option<Ahead>,
}

impl<V: Vectors, P: Products<V>> Block<V, P> {
    /// Steps of a tile between prefetches, each of which asks for the weights of as many steps.
    const STEPS_PER_LINE: usize = 64 / size_of::<P::Weight>() / P::GROUP;

    /// The block is `vectors` wide. As many weight rows go with it as there are registers for sums.
    ///
    /// # Safety
    /// As [`Block::tile`], for all `rows`, as many as a multiple of [`ROW_UNIT`].
    #[inline(always)]
    unsafe fn run(&self, vectors: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match vectors {
                4 => self.tiles::<4, 6>(),
                3 => self.tiles::<3, 8>(),
                2 => self.tiles::<2, 12>(),
                _ => self.tiles::<1, 24>(),
            }
        }
    }

    /// As many tiles of weights and of activations at a time as give four of sums.
    ///
    /// # Safety
    /// As [`Block::tile`], for all `rows`, as many as a multiple of [`ROW_UNIT`]; there are zeros behind the activations.
    #[inline(always)]
    unsafe fn tile_registers(&self, registers: &P::Tiles, vectors: usize) {
        let row_length = Panel::<V, P>::stride(self.tokens.1);
        let stride = row_length * size_of::<P::Operand>();
        let sums_stride = self.sums_stride * size_of::<f32>();
        for row in self.rows.clone().step_by(2 * TILE_ROWS) {
            let streams = 2.min((self.rows.end - row) / TILE_ROWS);
            let tiles = [row, row + (streams - 1) * TILE_ROWS];
            let weights = tiles.map(|row| self.panel.wrapping_add(row * row_length).cast());
            for first in (0..vectors).step_by(2) {
                // While the first activations are at work, the next panel's weights are fetched.
                let ahead = self.ahead.filter(|_| first == 0);
                let mut product = TileProduct {
                    weights,
                    weights_stride: stride,
                    // The panel's next tiles come from the second-level cache.
                    ahead: [2 * TILE_BYTES as isize; 2],
                    ahead_stride: stride,
                    ahead_turn: 0,
                    activations: self.activations.wrapping_add(first * P::STEP).cast(),
                    activations_stride: vectors * TILE_BYTES,
                    steps: self.depth.div_ceil(TILE_ROWS),
                    sums: tiles.map(|row| {
                        self.sums.wrapping_add(row * self.sums_stride + first * V::LANES)
                    }),
                    sums_stride,
                    accumulate: usize::from(self.accumulate),
                };
                if let Some(ahead) = ahead {
                    for (index, (tile, weights)) in tiles.into_iter().zip(weights).enumerate() {
                        let (from, stride) = ahead.row(tile - self.rows.start);
                        product.ahead[index] = (from as isize).wrapping_sub(weights as isize);
                        product.ahead_stride = stride;
                    }
                }
                // SAFETY: the caller's promise.
                unsafe {
                    P::multiply_tiles(registers, &mut product, streams, 2.min(vectors - first));
                }
            }
        }
    }

    /// # Safety
    /// As [`Block::tile`], for all `rows`, as many as a multiple of [`ROW_UNIT`].
    #[inline(always)]
    unsafe fn tiles<const VECTORS: usize, const ROWS: usize>(&self) {
        const { assert!(ROW_UNIT.is_multiple_of(ROWS)) };
        for row in self.rows.clone().step_by(ROWS) {
            // SAFETY: the caller's promise.
            unsafe { self.tile::<VECTORS, ROWS>(row) };
        }
    }

    /// Sums of `ROWS` weight rows from `row` on with `VECTORS` vectors of activations.
    ///
    /// # Safety
    /// The panel holds these rows, `depth` groups each; the activations `depth` groups of `VECTORS`
    /// vectors; the sums these rows, `VECTORS` vectors each.
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
            let weights = self.panel.add(row * Panel::<V, P>::STRIDE);
            for first in (0..self.depth).step_by(Self::STEPS_PER_LINE) {
                if let Some(ahead) = self.ahead {
                    let line = first * P::GROUP * size_of::<P::Weight>();
                    for index in 0..ROWS {
                        let (from, _) = ahead.row(row - self.rows.start + index);
                        v.prefetch_second_level(from.wrapping_add(line));
                    }
                }
                for step in first..self.depth.min(first + Self::STEPS_PER_LINE) {
                    self.step(weights, step, &mut sums);
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    v.store_f32(sum, target.add(row * self.sums_stride + vector * V::LANES));
                }
            }
        }
    }

    /// One group of columns.
    ///
    /// # Safety
    /// As [`Block::tile`]; `weights` is the tile's first row of the panel, and `step` below `depth`.
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
                let place = row * Panel::<V, P>::STRIDE + step * P::GROUP;
                let weight = p.splat(v, weights.add(place));
                for (sum, operand) in sums.iter_mut().zip(operands) {
                    *sum = p.multiply_add(v, weight, operand, *sum);
                }
            }
        }
    }
}
