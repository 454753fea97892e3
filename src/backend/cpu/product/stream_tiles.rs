//! Products of a few rows of activations with weights that are read once, as they lie, by the registers that hold tiles.
//!
//! Sixteen rows of weights are a stream of tiles, of which one or two are walked along side by side. A sum is made in the
//! same order whatever the number of activations.
#![allow(unsafe_code, reason = "tiles are read and written through pointers")]

use std::ops::Range;

use bytemuck::Zeroable as _;

use super::stream::SumRows;
use super::tiles::Packing;
use super::{AHEAD_STEPS, Matrix, TILE_BYTES, TILE_ROWS, TileProduct};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::products::Products;
use crate::dtype::Element;

/// Most streams side by side. (Sapphire Rapids, 2 threads, 8 rows of 2048/8192: one or two give 25 GB/s, four, whose 64
/// rows are as many pages, 20.)
const STREAMS: usize = 2;
/// Tiles of sums.
const TILES: usize = 4;
/// Sums in a tile.
const TILE: usize = TILE_ROWS * TILE_ROWS;
/// Columns of the widest tile of weights.
const MAX_COLUMNS: usize = TILE_BYTES / 2;

/// `[stream][weight row][activation row]`.
#[repr(align(64))]
struct Sums([f32; TILES * TILE]);

/// Tiles of weights that cannot be read as they lie: of the last columns, or of a matrix of few rows.
#[repr(align(64))]
struct Copies<T>([[[T; MAX_COLUMNS]; TILE_ROWS]; STREAMS]);

/// Sixteen rows of a matrix, or as many as it has.
#[derive(Clone)]
struct Stream<'a, T> {
    matrix: Matrix<'a, T>,
    first: usize,
    /// Those of the rows whose sums are wanted, and where these go for the first row of activations.
    wanted: Range<usize>,
    place: usize,
}

impl<'a, T: Element> Stream<'a, T> {
    /// The `index`-th tile of these rows of the matrices; `count` rows of activations.
    fn new(
        matrices: &[Matrix<'a, T>],
        rows: &Range<usize>,
        count: usize,
        index: usize,
    ) -> Option<Stream<'a, T>> {
        let tiles = rows.len().div_ceil(TILE_ROWS);
        let (which, tile) = (index / tiles, index % tiles);
        let matrix = *matrices.get(which)?;
        let start = rows.start + tile * TILE_ROWS;
        Some(Stream {
            matrix,
            // Near the end, rows that come before are read once more.
            first: start.min(matrix.rows().saturating_sub(TILE_ROWS)),
            wanted: start..rows.end.min(start + TILE_ROWS),
            place: which * count * rows.len() + tile * TILE_ROWS,
        })
    }

    fn start(&self) -> *const T {
        self.matrix.row(self.first).as_ptr()
    }
}

/// What [`SumRows`] does, where activations lie in tiles.
#[inline(always)]
pub(super) fn sum<V: Vectors, P: Products<V>>(
    job: SumRows<'_, V, P>,
    (packing, activations): (Packing, &[P::Operand]),
) {
    let SumRows { tokens: (_, p), matrices, rows, sums, .. } = job;
    let Some(registers) = &p.take_tiles() else { unreachable!("activations lie in tiles") };
    let count = packing.rows();
    let tiles = rows.len().div_ceil(TILE_ROWS) * matrices.len();
    assert!(matrices.iter().all(|matrix| matrix.columns() == packing.columns()), "of one width");
    // Streams that are walked along together have one stride.
    let stride = matrices.first().map(Matrix::stride_bytes);
    let have_one_stride = matrices.iter().all(|matrix| Some(matrix.stride_bytes()) == stride);
    let streams = if have_one_stride { STREAMS } else { 1 };
    for lane in packing.blocks() {
        let vectors = packing.width(lane) / TILE_ROWS;
        let product = BlockProduct::<V, P> {
            registers,
            vectors,
            columns: packing.columns(),
            activations: activations[packing.offset(lane, 0)..].as_ptr(),
        };
        let share = tiles.div_ceil(streams.min(TILES / vectors));
        for index in 0..share {
            let stream = |tile: usize| Stream::new(matrices, &rows, count, tile);
            let Some(first) = stream(index) else { continue };
            let second = if share < tiles { stream(share + index) } else { None };
            let streams = [Some(first), second];
            let mut tile_sums = Sums([0.0; TILES * TILE]);
            // SAFETY: the packing is of activations for these products, `lane` a block of theirs.
            unsafe { product.run(&streams, &mut tile_sums) };
            for (stream, from) in streams.iter().flatten().zip(tile_sums.0.chunks(TILE * vectors)) {
                let from = &from[(stream.wanted.start - stream.first) * vectors * TILE_ROWS..];
                for row in lane..count.min(lane + packing.width(lane)) {
                    let to = &mut sums[stream.place + row * rows.len()..][..stream.wanted.len()];
                    for (sum, from) in to.iter_mut().zip(from.chunks_exact(vectors * TILE_ROWS)) {
                        *sum = from[row - lane];
                    }
                }
            }
        }
    }
}

/// Products with a block of activations.
struct BlockProduct<'a, V: Vectors, P: Products<V>> {
    registers: &'a P::Tiles,
    /// Vectors of activations side by side.
    vectors: usize,
    columns: usize,
    activations: *const P::Operand,
}

impl<V: Vectors, P: Products<V>> BlockProduct<'_, V, P> {
    /// Columns of a tile of weights.
    const TILE_COLUMNS: usize = TILE_ROWS * P::GROUP;

    /// Sums of the streams, the first of which is there.
    ///
    /// # Safety
    /// The activations hold tiles of all columns, zeros behind the last.
    #[inline(always)]
    unsafe fn run(&self, streams: &[Option<Stream<'_, P::Weight>>; STREAMS], sums: &mut Sums) {
        let Some(first) = &streams[0] else { return };
        let is_whole = first.matrix.rows() >= TILE_ROWS;
        let steps = if is_whole { self.columns / Self::TILE_COLUMNS } else { 0 };
        if steps > 0 {
            let stride = first.matrix.stride_bytes();
            let turn = (TILE_ROWS * stride) as isize - (steps * TILE_BYTES) as isize;
            let near = (AHEAD_STEPS * TILE_BYTES) as isize;
            let starts = [0, 1].map(|index| streams[index].as_ref().unwrap_or(first).start());
            let ahead = if steps > AHEAD_STEPS { near } else { near + turn };
            // SAFETY: each stream has 16 rows of so many whole tiles; activations by the caller's promise.
            unsafe {
                let mut product = self.product(starts, stride, (0, steps), sums);
                (product.ahead, product.ahead_turn) = ([ahead; STREAMS], turn);
                product.ahead_stride = stride;
                self.multiply(streams, product);
            }
        }
        let mut copies = Copies([[[P::Weight::zeroed(); MAX_COLUMNS]; TILE_ROWS]; STREAMS]);
        for step in steps..self.columns.div_ceil(Self::TILE_COLUMNS) {
            let columns = step * Self::TILE_COLUMNS;
            let columns = columns..self.columns.min(columns + Self::TILE_COLUMNS);
            for (stream, copy) in streams.iter().flatten().zip(&mut copies.0) {
                for (row, copy) in (stream.first..stream.matrix.rows()).zip(copy) {
                    copy[..columns.len()].copy_from_slice(&stream.matrix.row(row)[columns.clone()]);
                    copy[columns.len()..].fill(P::Weight::zeroed());
                }
            }
            let starts = [0, 1].map(|index| copies.0[index].as_ptr().cast());
            // SAFETY: a tile for each stream; activations by the caller's promise.
            unsafe {
                let product = self.product(starts, TILE_BYTES, (step, 1), sums);
                self.multiply(streams, product);
            }
        }
    }

    /// Tiles from `start` on, added to the sums; nothing is asked for ahead.
    ///
    /// # Safety
    /// The activations hold these tiles.
    #[inline(always)]
    unsafe fn product(
        &self,
        weights: [*const P::Weight; STREAMS],
        weights_stride: usize,
        (start, steps): (usize, usize),
        sums: &mut Sums,
    ) -> TileProduct {
        let activations_stride = self.vectors * TILE_BYTES;
        let sums = sums.0.as_mut_ptr();
        TileProduct {
            weights: weights.map(|stream| stream.cast()),
            weights_stride,
            ahead: [0; STREAMS],
            ahead_stride: 0,
            ahead_turn: 0,
            activations: self
                .activations
                .cast::<u8>()
                .wrapping_add(start * TILE_ROWS * activations_stride),
            activations_stride,
            steps,
            sums: [0, 1].map(|index| sums.wrapping_add(index * TILE * self.vectors)),
            sums_stride: activations_stride,
            accumulate: 1,
        }
    }

    /// # Safety
    /// As [`Products::multiply_tiles`].
    #[inline(always)]
    unsafe fn multiply(
        &self,
        streams: &[Option<Stream<'_, P::Weight>>; STREAMS],
        mut product: TileProduct,
    ) {
        let count = streams.iter().flatten().count();
        // SAFETY: the caller's promise.
        unsafe { P::multiply_tiles(self.registers, &mut product, count, self.vectors) };
    }
}
