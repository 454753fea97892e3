//! Tiles of sums: some rows of activations against the panels of some groups.
//!
//! Each sum is made in the order of the columns, whatever the tile's shape: a row's result does not depend on the rows
//! beside it.
#![allow(unsafe_code, reason = "unchecked loads and stores in the innermost loops")]

use std::ops::Range;

use crate::backend::cpu::instructions::Vectors;

/// Sums of the three gates for each group of each row.
pub(super) type Sums<V, const ROWS: usize, const GROUPS: usize> =
    [[[<V as Vectors>::Vector; 3]; GROUPS]; ROWS];

/// What is done with a tile of rows.
pub(super) trait Tile {
    /// Does `ROWS` rows and the `GROUPS` groups from `group` on.
    ///
    /// # Safety
    /// The tile has these rows and groups.
    unsafe fn run<V: Vectors, const ROWS: usize, const GROUPS: usize>(&self, v: V, group: usize);
}

/// Does `rows` rows, one at least and as many as a tile has at most, and some groups. With few rows, several groups are done at once, so
/// that there are always enough sums to keep the multipliers busy.
///
/// # Safety
/// As [`Tile::run`], for all of them.
#[inline(always)]
pub(super) unsafe fn run_groups<V: Vectors>(
    v: V,
    tile: &impl Tile,
    rows: usize,
    groups: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        // A branch on a constant, so that only the tiles of this instruction set are compiled for it.
        if V::ACCUMULATORS == 24 {
            match rows {
                8 => each::<V, 8, 1>(v, tile, groups),
                7 => each::<V, 7, 1>(v, tile, groups),
                6 => each::<V, 6, 1>(v, tile, groups),
                5 => each::<V, 5, 1>(v, tile, groups),
                4 => each::<V, 4, 2>(v, tile, groups),
                3 => each::<V, 3, 2>(v, tile, groups),
                2 => each::<V, 2, 4>(v, tile, groups),
                _ => each::<V, 1, 8>(v, tile, groups),
            }
        } else {
            match rows {
                4 => each::<V, 4, 1>(v, tile, groups),
                3 => each::<V, 3, 1>(v, tile, groups),
                2 => each::<V, 2, 2>(v, tile, groups),
                _ => each::<V, 1, 4>(v, tile, groups),
            }
        }
    }
}

/// # Safety
/// As [`run_groups`].
#[inline(always)]
unsafe fn each<V: Vectors, const ROWS: usize, const GROUPS: usize>(
    v: V,
    tile: &impl Tile,
    groups: Range<usize>,
) {
    let mut group = groups.start;
    // SAFETY: the caller's promise.
    unsafe {
        while group + GROUPS <= groups.end {
            tile.run::<V, ROWS, GROUPS>(v, group);
            group += GROUPS;
        }
        while GROUPS > 1 && group < groups.end {
            tile.run::<V, ROWS, 1>(v, group);
            group += 1;
        }
    }
}

/// What a tile multiplies.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// The first row's first element.
    pub rows: *const f32,
    /// Elements between rows.
    pub row_stride: usize,
    /// The first group's panel, from the first of the columns on.
    pub panels: *const f32,
    /// Elements between panels.
    pub panel_stride: usize,
    /// Columns.
    pub columns: usize,
}

/// Adds the products of rows and panels to the sums.
///
/// # Safety
/// `ROWS` rows of `columns` elements can be read, and of `GROUPS` panels as many columns.
#[inline(always)]
pub(super) unsafe fn accumulate<V: Vectors, const ROWS: usize, const GROUPS: usize>(
    v: V,
    operands: &Operands,
    sums: &mut Sums<V, ROWS, GROUPS>,
) {
    let Operands { rows, row_stride, panels, panel_stride, columns } = *operands;
    for column in 0..columns {
        let mut weights = [[v.splat(0.0); 3]; GROUPS];
        for (group, weights) in weights.iter_mut().enumerate() {
            for (gate, weight) in weights.iter_mut().enumerate() {
                let at = group * panel_stride + (3 * column + gate) * V::LANES;
                // SAFETY: the caller's promise.
                *weight = unsafe { v.load_f32(panels.add(at)) };
            }
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let value = v.splat(unsafe { *rows.add(row * row_stride + column) });
            for (sums, weights) in sums.iter_mut().zip(weights) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = v.settle(v.mul_add(weight, value, *sum));
                }
            }
        }
    }
}
