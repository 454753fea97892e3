//! Products of a few rows of activations with weights that are read once, as they lie: decoding.
//!
//! The lanes of a vector run along a row of weights. Four rows (three, where registers are short), far
//! apart from each other, are read side by side, each a stream of its own for the hardware's
//! prefetchers. A sum is made in the same order whatever the number of activations, and whichever
//! rows are read beside it.
#![allow(unsafe_code, reason = "unchecked loads in the innermost loops")]

use std::ops::Range;

use super::activations::{Activations, Arrangement, MAX_STEP};
use super::{Matrix, stream_panels, stream_tiles};
use crate::backend::cpu::instructions::{Leaf, Vectors};
use crate::backend::cpu::products::Products;

/// Bytes of a cache line.
const LINE: usize = 64;

/// How far ahead of its use a line of weights is asked for, in bytes. (Zen 5, AVX-512, one thread, 8 rows: 3072 gives
/// 26 GB/s, 2048 and 4096 25, 1024 20, none 15. Zen 4, AVX2, where a row ahead has been asked for: 512 is up to
/// 1.05 times as fast as 1024.)
const fn distance<V: Vectors>() -> usize {
    if V::HAS_FEW_REGISTERS { 512 } else { 3072 }
}

/// Scalar products of `rows` of each matrix with every row of activations.
pub(crate) struct SumRows<'a, V: Vectors, P: Products<V>> {
    pub tokens: (V, P),
    /// One or two of one shape.
    pub matrices: &'a [Matrix<'a, P::Weight>],
    pub rows: Range<usize>,
    pub activations: Activations<'a, P::Operand>,
    /// `[matrix][activation row][weight row]`, rows as far apart as the arrangement says.
    pub sums: &'a mut [f32],
}

impl<V: Vectors, P: Products<V>> Leaf for SumRows<'_, V, P> {
    /// Activations are met in batches of equal size, as many at once as registers can hold sums for.
    #[inline(always)]
    fn run(self) {
        match self.activations.arrangement {
            Arrangement::Rows { .. } => {}
            Arrangement::Tiles(packing) => {
                let activations = (packing, self.activations.data);
                return stream_tiles::sum(self, activations);
            }
            Arrangement::Batches { batches, .. } => return stream_panels::sum(self, batches),
        }
        let [with_four, with_three] = V::STREAM_ROWS;
        let passes = self.activations.rows().div_ceil(with_three).max(1);
        match self.activations.rows().div_ceil(passes) {
            0 => {}
            1 => self.sum::<4, 1>(),
            2 => self.sum::<4, 2>(),
            3 if with_four >= 3 => self.sum::<4, 3>(),
            4 if with_four >= 4 => self.sum::<4, 4>(),
            5 if with_four >= 5 => self.sum::<4, 5>(),
            6 if with_four >= 6 => self.sum::<4, 6>(),
            3 if with_four < 3 => self.sum::<3, 3>(),
            4 if with_four < 4 => self.sum::<3, 4>(),
            7 if with_three >= 7 => self.sum::<3, 7>(),
            8 if with_three >= 8 => self.sum::<3, 8>(),
            batch => unreachable!("{batch} rows at once"),
        }
    }
}

impl<V: Vectors, P: Products<V>> SumRows<'_, V, P> {
    /// `STREAMS` weight rows are read side by side and meet `ROWS` rows of activations at a time.
    #[inline(always)]
    fn sum<const STREAMS: usize, const ROWS: usize>(self) {
        let SumRows { tokens, matrices, rows, activations, sums } = self;
        let (count, stride) = (activations.rows(), activations.stride());
        let all_rows = matrices.len() * rows.len();
        let share = all_rows.div_ceil(STREAMS);
        for index in 0..share {
            // A stream that has run out reads along with the first and is not stored.
            let mut streams = [matrices[0].row(rows.start); STREAMS];
            let mut places = [None; STREAMS];
            for stream in 0..STREAMS {
                let row = stream * share + index;
                if row < all_rows {
                    let matrix = usize::from(row >= rows.len());
                    let row = row - matrix * rows.len();
                    streams[stream] = matrices[matrix].row(rows.start + row);
                    places[stream] = Some(matrix * count * rows.len() + row);
                }
            }
            for (batch, first) in (0..count).step_by(ROWS).enumerate() {
                // The last batch may repeat rows of the one before, with the same result.
                let first = first.min(count - ROWS);
                let line = Strip::<V, P, Along, STREAMS>::LINE;
                let strip = Strip::<V, P, Along, STREAMS> {
                    tokens,
                    weights: streams,
                    operands: &activations.data[first * stride..],
                    stride,
                    ahead: Along {
                        is_first: batch == 0,
                        due: batch * line,
                        every: count.div_ceil(ROWS) * line,
                        row: matrices[0].stride_bytes(),
                    },
                };
                for (row, totals) in strip.sum_rows::<ROWS>().into_iter().enumerate() {
                    for (place, total) in places.into_iter().zip(totals) {
                        if let Some(place) = place {
                            sums[place + (first + row) * rows.len()] = total;
                        }
                    }
                }
            }
        }
    }
}

/// Scalar products of some rows of a matrix, wherever they lie, with one row of activations.
pub(crate) struct SumSelected<'a, V: Vectors, P: Products<V>> {
    pub tokens: (V, P),
    pub matrix: Matrix<'a, P::Weight>,
    pub rows: &'a [u32],
    pub activations: Activations<'a, P::Operand>,
    /// Which row of the activations.
    pub row: usize,
    /// One for each of `rows`.
    pub sums: &'a mut [f32],
}

impl<V: Vectors, P: Products<V>> Leaf for SumSelected<'_, V, P> {
    #[inline(always)]
    fn run(self) {
        let SumSelected { tokens, matrix, rows, activations, row, sums } = self;
        let stride = activations.stride();
        let mut left = rows;
        for sums in sums[..rows.len()].chunks_mut(4) {
            let (four, next) = left.split_at(sums.len());
            // Streams that there is no row for read along with the first.
            let stream = |rows: &[u32], index: usize| {
                let row = rows.get(index).or(rows.first()).copied().unwrap_or(four[0]);
                matrix.row(row as usize)
            };
            let strip = Strip::<V, P, NextRows<P::Weight, 4>, 4> {
                tokens,
                weights: std::array::from_fn(|index| stream(four, index)),
                operands: &activations.data[row * stride..],
                stride,
                ahead: NextRows(std::array::from_fn(|index| stream(next, index).as_ptr())),
            };
            let [totals] = strip.sum_rows::<1>();
            sums.copy_from_slice(&totals[..sums.len()]);
            left = next;
        }
    }
}

/// Which weights are asked for ahead of their use.
trait Ahead<W, const STREAMS: usize>: Copy {
    /// While the weights at `at` of each stream are read.
    fn prefetch<V: Vectors>(&mut self, v: V, streams: [*const W; STREAMS], at: usize);
}

/// Those further along the streams, whose rows are read one after another by every batch of activations.
///
/// Memory has to be at work during all batches, though only the first waits for it: where registers are few, and batches
/// many, each asks for its share of the next row's lines. (Zen 4, AVX2, 2048/8192, bf16, against a first batch that asks for
/// all: 2 rows 1.15 times as fast, 4 rows 1.25, 8 rows 1.15; f32 1.1, 1.3 and 1.2. Not measured with more registers, where
/// eight rows are one batch.)
#[derive(Clone, Copy)]
struct Along {
    /// Later batches find the weights in the cache.
    is_first: bool,
    /// Where the batch asks for the next row's line next, and how far it is from there to the line behind.
    due: usize,
    every: usize,
    /// Bytes between rows.
    row: usize,
}

impl<W, const STREAMS: usize> Ahead<W, STREAMS> for Along {
    #[inline(always)]
    fn prefetch<V: Vectors>(&mut self, v: V, streams: [*const W; STREAMS], at: usize) {
        let place = streams.map(|stream| stream.wrapping_add(at).cast::<u8>());
        if self.is_first {
            for place in place {
                v.prefetch(place.wrapping_add(distance::<V>()));
            }
        }
        if V::HAS_FEW_REGISTERS && at == self.due {
            self.due += self.every;
            for place in place {
                v.prefetch_second_level(place.wrapping_add(self.row));
            }
        }
    }
}

/// Those of the rows that are read next: what lies behind a row is not wanted.
///
/// Four of them may be as much as the first-level cache holds: where they are asked for into the second level, the rest of the
/// rows that are read follows from there. (Zen 4, AVX2, a tenth of the neurons of 2048/8192: 1.16 times as fast in f32, 1.09
/// in bf16. Not measured with more registers.)
#[derive(Clone, Copy)]
struct NextRows<W, const STREAMS: usize>([*const W; STREAMS]);

impl<W: Copy, const STREAMS: usize> Ahead<W, STREAMS> for NextRows<W, STREAMS> {
    #[inline(always)]
    fn prefetch<V: Vectors>(&mut self, v: V, streams: [*const W; STREAMS], at: usize) {
        for (stream, next) in streams.into_iter().zip(self.0) {
            let next = next.wrapping_add(at).cast();
            if V::HAS_FEW_REGISTERS {
                let here = stream.wrapping_add(at).cast::<u8>();
                v.prefetch(here.wrapping_add(distance::<V>()));
                v.prefetch_second_level(next);
            } else {
                v.prefetch(next);
            }
        }
    }
}

/// Rows of weights, side by side, and of operands.
struct Strip<'a, V: Vectors, P: Products<V>, A, const STREAMS: usize> {
    tokens: (V, P),
    weights: [&'a [P::Weight]; STREAMS],
    operands: &'a [P::Operand],
    stride: usize,
    ahead: A,
}

impl<V: Vectors, P: Products<V>, A: Ahead<P::Weight, STREAMS>, const STREAMS: usize>
    Strip<'_, V, P, A, STREAMS>
{
    /// Weights of a stream between prefetches: a cache line, or the vector that is longer.
    const LINE: usize = {
        let line = LINE / size_of::<P::Weight>();
        if line > P::STEP { line } else { P::STEP }
    };

    /// Scalar products of `ROWS` rows of operands with every stream.
    #[inline(always)]
    fn sum_rows<const ROWS: usize>(&self) -> [[f32; 4]; ROWS] {
        let v = self.tokens.0;
        let length = self.weights[0].len();
        let padded = length.next_multiple_of(Self::LINE);
        assert!(
            self.weights.iter().all(|row| row.len() == length)
                && self.operands.len() >= (ROWS - 1) * self.stride + padded
        );
        // SAFETY: the streams have one length, and the rows of operands that, rounded up to whole lines.
        let registers = unsafe { self.add_products::<ROWS>() };
        let mut totals = [[0.0; 4]; ROWS];
        for (totals, registers) in totals.iter_mut().zip(registers) {
            let mut four = [v.splat(0.0); 4];
            four[..STREAMS].copy_from_slice(&registers);
            *totals = v.sum_lanes(four);
        }
        totals
    }

    /// # Safety
    /// The streams have one length; the operands hold `ROWS` rows of it, rounded up to whole lines.
    #[inline(always)]
    unsafe fn add_products<const ROWS: usize>(&self) -> [[V::Vector; STREAMS]; ROWS] {
        let v = self.tokens.0;
        let length = self.weights[0].len();
        let whole = length / Self::LINE * Self::LINE;
        // What is left of a line is followed by zeros, and so are the operands.
        let mut tails = [[<P::Weight as bytemuck::Zeroable>::zeroed(); MAX_STEP]; STREAMS];
        if whole < length {
            for (tail, weights) in tails.iter_mut().zip(self.weights) {
                tail[..length - whole].copy_from_slice(&weights[whole..]);
            }
        }
        let mut streams = self.weights.map(<[P::Weight]>::as_ptr);
        let mut operands = self.operands.as_ptr();
        let mut ahead = self.ahead;
        let mut sums = [[v.splat(0.0); STREAMS]; ROWS];
        // One loop for lines and tails: it is compiled for many numbers of streams, rows and types.
        let mut lines = whole / Self::LINE;
        let mut tail_is_left = whole < length;
        // SAFETY: whole lines of the streams, then of the tails; operands by the caller's promise.
        unsafe {
            loop {
                for line in 0..lines {
                    let at = line * Self::LINE;
                    ahead.prefetch(v, streams, at);
                    for step in 0..Self::LINE / P::STEP {
                        self.multiply_add(streams, operands, at + step * P::STEP, &mut sums);
                    }
                }
                if !tail_is_left {
                    return sums;
                }
                tail_is_left = false;
                lines = 1;
                operands = operands.add(whole);
                for (stream, tail) in streams.iter_mut().zip(&tails) {
                    *stream = tail.as_ptr();
                }
            }
        }
    }

    /// The vector at `at` of each stream times that of each row of operands.
    ///
    /// # Safety
    /// These vectors can be read.
    #[inline(always)]
    unsafe fn multiply_add<const ROWS: usize>(
        &self,
        streams: [*const P::Weight; STREAMS],
        operands: *const P::Operand,
        at: usize,
        sums: &mut [[V::Vector; STREAMS]; ROWS],
    ) {
        let (v, p) = self.tokens;
        // SAFETY: the caller's promise.
        unsafe {
            let mut weights = [p.load_weights(v, streams[0].add(at)); STREAMS];
            for stream in 1..STREAMS {
                weights[stream] = p.load_weights(v, streams[stream].add(at));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let operand = p.load(v, operands.add(row * self.stride + at));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = v.settle(p.multiply_add(v, weights, operand, *sum));
                }
            }
        }
    }
}
