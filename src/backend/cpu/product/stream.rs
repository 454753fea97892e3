//! Products of a few rows of activations with weights that are read once, as they lie: decoding.
//!
//! The lanes of a vector run along a row of weights. Four rows (three, where registers are short), far
//! apart from each other, are read side by side, each a stream of its own for the hardware's
//! prefetchers. A sum is made in the same order whatever the number of activations, and whichever
//! rows are read beside it.
#![allow(unsafe_code, reason = "unchecked loads in the innermost loops")]

use std::ops::Range;

use super::Matrix;
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::products::Products;

/// Bytes of a cache line.
const LINE: usize = 64;
/// How far ahead of its use a line of weights is asked for, in bytes. (Zen 5, one thread, 8 rows: 3072 gives
/// 26 GB/s, 2048 and 4096 25, 1024 20, none 15.)
const PREFETCH_DISTANCE: usize = 3072;
/// Elements of the longest vector.
const MAX_STEP: usize = 32;

/// Rows of operands, each followed by zeros up to `stride`.
#[derive(Clone, Copy)]
pub(crate) struct Activations<'a, T> {
    data: &'a [T],
    rows: usize,
    stride: usize,
}

impl<'a, T> Activations<'a, T> {
    /// Elements between rows of `columns` elements.
    pub const fn stride(columns: usize) -> usize {
        columns.next_multiple_of(MAX_STEP) + MAX_STEP
    }

    /// Rows of `columns` elements and zeros up to [`Activations::stride`].
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Activations<'a, T> {
        let stride = Activations::<T>::stride(columns);
        assert!(data.len() >= rows * stride, "too few activations");
        Activations { data, rows, stride }
    }
}

/// Scalar products of `rows` of each matrix with every row of activations.
///
/// `matrices` are one or two of one shape. `sums` is `[matrix][activation row][weight row]`.
#[inline(always)]
pub(crate) fn sum_rows<V: Vectors, P: Products<V>>(
    tokens: (V, P),
    matrices: &[Matrix<'_, P::Weight>],
    rows: Range<usize>,
    activations: Activations<'_, P::Operand>,
    sums: &mut [f32],
) {
    let passes = activations.rows.div_ceil(V::STREAM_ROWS[1]).max(1);
    let batch = activations.rows.div_ceil(passes).max(1);
    if batch <= V::STREAM_ROWS[0] {
        sum_streams::<V, P, 4>(tokens, matrices, rows, (activations, batch), sums);
    } else {
        sum_streams::<V, P, 3>(tokens, matrices, rows, (activations, batch), sums);
    }
}

/// As [`sum_rows`], with `STREAMS` weight rows side by side and `batch` rows of activations at a time.
#[inline(always)]
fn sum_streams<V: Vectors, P: Products<V>, const STREAMS: usize>(
    tokens: (V, P),
    matrices: &[Matrix<'_, P::Weight>],
    rows: Range<usize>,
    (activations, batch): (Activations<'_, P::Operand>, usize),
    sums: &mut [f32],
) {
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
                places[stream] = Some(matrix * activations.rows * rows.len() + row);
            }
        }
        for first in (0..activations.rows).step_by(batch) {
            let strip = Strip::<V, P, STREAMS> {
                tokens,
                weights: streams,
                operands: &activations.data[first * activations.stride..],
                stride: activations.stride,
                // Later passes find the weights in the cache.
                prefetch: first == 0,
            };
            let count = batch.min(activations.rows - first);
            strip.sum(count, |row, totals| {
                for (place, total) in places.into_iter().zip(totals) {
                    if let Some(place) = place {
                        sums[place + (first + row) * rows.len()] = total;
                    }
                }
            });
        }
    }
}

/// Rows of weights, side by side, and of operands.
struct Strip<'a, V: Vectors, P: Products<V>, const STREAMS: usize> {
    tokens: (V, P),
    weights: [&'a [P::Weight]; STREAMS],
    operands: &'a [P::Operand],
    stride: usize,
    prefetch: bool,
}

impl<V: Vectors, P: Products<V>, const STREAMS: usize> Strip<'_, V, P, STREAMS> {
    /// Stores the scalar products of each of `count` rows of operands, at most
    /// [`Vectors::STREAM_ROWS`], with every stream.
    #[inline(always)]
    fn sum(&self, count: usize, store: impl FnMut(usize, [f32; 4])) {
        match count {
            1 => self.sum_rows::<1>(store),
            2 => self.sum_rows::<2>(store),
            3 => self.sum_rows::<3>(store),
            4 => self.sum_rows::<4>(store),
            5 if V::STREAM_ROWS[1] > 4 => self.sum_rows::<5>(store),
            6 if V::STREAM_ROWS[1] > 4 => self.sum_rows::<6>(store),
            7 if V::STREAM_ROWS[1] > 4 && STREAMS == 3 => self.sum_rows::<7>(store),
            8 if V::STREAM_ROWS[1] > 4 && STREAMS == 3 => self.sum_rows::<8>(store),
            rows => unreachable!("{rows} rows at once"),
        }
    }

    #[inline(always)]
    fn sum_rows<const ROWS: usize>(&self, mut store: impl FnMut(usize, [f32; 4])) {
        let v = self.tokens.0;
        let length = self.weights[0].len();
        assert!(
            self.weights.iter().all(|row| row.len() == length)
                && self.operands.len()
                    >= (ROWS - 1) * self.stride + length.next_multiple_of(P::STEP)
        );
        // SAFETY: the streams have one length, and the rows of operands that, rounded up to whole vectors.
        let registers = unsafe { self.add_products::<ROWS>() };
        for (row, registers) in registers.into_iter().enumerate() {
            let mut four = [v.splat(0.0); 4];
            four[..STREAMS].copy_from_slice(&registers);
            store(row, v.sum_lanes(four));
        }
    }

    /// # Safety
    /// The streams have one length; the operands hold `ROWS` rows of it, rounded up to whole vectors.
    #[inline(always)]
    unsafe fn add_products<const ROWS: usize>(&self) -> [[V::Vector; STREAMS]; ROWS] {
        let v = self.tokens.0;
        let length = self.weights[0].len();
        let line = (LINE / size_of::<P::Weight>()).max(P::STEP);
        let streams = self.weights.map(<[P::Weight]>::as_ptr);
        let mut sums = [[v.splat(0.0); STREAMS]; ROWS];
        let mut at = 0;
        // SAFETY: `at` stays within the streams' length, and within that of the operands for whole vectors.
        unsafe {
            while at + line <= length {
                if self.prefetch {
                    for stream in streams {
                        let bytes = stream.wrapping_add(at).cast::<u8>();
                        v.prefetch(bytes.wrapping_add(PREFETCH_DISTANCE));
                    }
                }
                for step in 0..line / P::STEP {
                    let at = at + step * P::STEP;
                    self.multiply_add(streams, at, at, &mut sums);
                }
                at += line;
            }
            while at + P::STEP <= length {
                self.multiply_add(streams, at, at, &mut sums);
                at += P::STEP;
            }
            if at < length {
                let zero: P::Weight = bytemuck::Zeroable::zeroed();
                let mut tails = [[zero; MAX_STEP]; STREAMS];
                for (tail, weights) in tails.iter_mut().zip(self.weights) {
                    tail[..length - at].copy_from_slice(&weights[at..]);
                }
                self.multiply_add(tails.each_ref().map(|tail| tail.as_ptr()), 0, at, &mut sums);
            }
        }
        sums
    }

    /// The vector at `at` of each stream times that at `operand_at` of each row of activations.
    ///
    /// # Safety
    /// These vectors can be read.
    #[inline(always)]
    unsafe fn multiply_add<const ROWS: usize>(
        &self,
        streams: [*const P::Weight; STREAMS],
        at: usize,
        operand_at: usize,
        sums: &mut [[V::Vector; STREAMS]; ROWS],
    ) {
        let (v, p) = self.tokens;
        // SAFETY: the caller's promise.
        unsafe {
            let mut weights = [p.load_weights(v, streams[0].add(at)); STREAMS];
            for stream in 1..STREAMS {
                weights[stream] = p.load_weights(v, streams[stream].add(at));
            }
            let operands = self.operands.as_ptr().add(operand_at);
            for (row, sums) in sums.iter_mut().enumerate() {
                let operand = p.load(v, operands.add(row * self.stride));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = p.multiply_add(v, weights, operand, *sum);
                }
            }
        }
    }
}
