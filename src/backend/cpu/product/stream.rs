//! Products of a few rows of activations with weights that are read once, as they lie: decoding.
//!
//! The lanes of a vector run along a row of weights. Four rows, far apart from each other, are read side by
//! side, each a stream of its own for the hardware's prefetchers. A sum is made in the same order whatever
//! the number of activations, and whichever rows are read beside it.
#![allow(unsafe_code, reason = "unchecked loads in the innermost loops")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::Matrix;
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::products::Products;

/// Rows of weights that are read side by side.
const STREAMS: usize = 4;
/// Rows of activations whose sums are kept at a time.
const BATCH: usize = 16;
/// Bytes of a cache line.
const LINE: usize = 64;
/// How far ahead of its use a line of weights is asked for, in bytes.
const PREFETCH_DISTANCE: usize = 1024;
/// Bytes of each stream that stay in the first-level cache while they meet one batch of activations after
/// another: with four streams half of the smallest such cache.
const BLOCK: usize = 4096;
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
        columns.next_multiple_of(MAX_STEP)
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
    (v, p): (V, P),
    matrices: &[Matrix<'_, P::Weight>],
    rows: Range<usize>,
    activations: Activations<'_, P::Operand>,
    sums: &mut [f32],
) {
    let streams_each = STREAMS / matrices.len();
    let share = rows.len().div_ceil(streams_each);
    for index in 0..share {
        // A stream that has run out reads along with the first and is not stored.
        let mut streams = [matrices[0].row(rows.start); STREAMS];
        let mut places = [None; STREAMS];
        for stream in 0..STREAMS {
            let (matrix, part) = (stream / streams_each, stream % streams_each);
            let row = part * share + index;
            if row < rows.len().min((part + 1) * share) {
                streams[stream] = matrices[matrix].row(rows.start + row);
                places[stream] = Some(matrix * activations.rows * rows.len() + row);
            }
        }
        for first in (0..activations.rows).step_by(BATCH) {
            let batch = first..activations.rows.min(first + BATCH);
            let batch_sums = sum_batch((v, p), streams, activations, batch.clone());
            for (row, sums_of_row) in batch.zip(batch_sums) {
                for (place, sum) in places.into_iter().zip(sums_of_row) {
                    if let Some(place) = place {
                        sums[place + row * rows.len()] = sum;
                    }
                }
            }
        }
    }
}

/// Scalar products of each stream with up to [`BATCH`] rows of activations.
#[inline(always)]
fn sum_batch<V: Vectors, P: Products<V>>(
    (v, p): (V, P),
    streams: [&[P::Weight]; STREAMS],
    activations: Activations<'_, P::Operand>,
    batch: Range<usize>,
) -> [[f32; STREAMS]; BATCH] {
    let columns = streams[0].len();
    // Not zeroed as a whole: for one row that would cost as much as its products.
    let mut sums = [const { MaybeUninit::<[V::Vector; STREAMS]>::uninit() }; BATCH];
    for sums in &mut sums[..batch.len()] {
        sums.write([v.splat(0.0); STREAMS]);
    }
    // SAFETY: written above; an element and its `MaybeUninit` have one layout.
    let sums = unsafe {
        std::slice::from_raw_parts_mut(
            sums.as_mut_ptr().cast::<[V::Vector; STREAMS]>(),
            batch.len(),
        )
    };
    let block =
        if batch.len() <= V::ROW_BATCH { columns.max(1) } else { BLOCK / size_of::<P::Weight>() };
    for start in (0..columns).step_by(block) {
        let weights = streams.map(|stream| &stream[start..columns.min(start + block)]);
        let mut first = batch.start;
        while first < batch.end {
            let count = V::ROW_BATCH.min(batch.end - first);
            let sums = &mut sums[first - batch.start..][..count];
            let operands = &activations.data[first * activations.stride + start..];
            let stride = activations.stride;
            // Later rows find the weights in the cache.
            let from_memory = first == 0;
            // SAFETY: the streams have one length; `operands` holds `count` rows, padded to whole vectors.
            unsafe {
                match (count, from_memory) {
                    (1, true) => strip::<V, P, 1, true>((v, p), weights, operands, stride, sums),
                    (2, true) => strip::<V, P, 2, true>((v, p), weights, operands, stride, sums),
                    (3, true) => strip::<V, P, 3, true>((v, p), weights, operands, stride, sums),
                    (_, true) => strip::<V, P, 4, true>((v, p), weights, operands, stride, sums),
                    (1, false) => strip::<V, P, 1, false>((v, p), weights, operands, stride, sums),
                    (2, false) => strip::<V, P, 2, false>((v, p), weights, operands, stride, sums),
                    (3, false) => strip::<V, P, 3, false>((v, p), weights, operands, stride, sums),
                    (_, false) => strip::<V, P, 4, false>((v, p), weights, operands, stride, sums),
                }
            }
            first += count;
        }
    }
    let mut totals = [[0.0; STREAMS]; BATCH];
    for (total, sums) in totals.iter_mut().zip(sums) {
        *total = v.sum_lanes(*sums);
    }
    totals
}

/// Adds to the sums of `ROWS` rows of activations, `stride` apart.
///
/// # Safety
/// The streams have one length; `operands` holds `ROWS` rows of it, rounded up to whole vectors.
#[inline(always)]
unsafe fn strip<V: Vectors, P: Products<V>, const ROWS: usize, const FROM_MEMORY: bool>(
    (v, p): (V, P),
    weights: [&[P::Weight]; STREAMS],
    operands: &[P::Operand],
    stride: usize,
    sums: &mut [[V::Vector; STREAMS]],
) {
    let length = weights[0].len();
    let line = (LINE / size_of::<P::Weight>()).max(P::STEP);
    let pointers = weights.map(<[P::Weight]>::as_ptr);
    let operands = operands.as_ptr();
    let mut registers = [[v.splat(0.0); STREAMS]; ROWS];
    registers.copy_from_slice(sums);
    let mut at = 0;
    // SAFETY: `at` stays within the streams' length, and within that of the operands for whole vectors.
    unsafe {
        while at + line <= length {
            if FROM_MEMORY {
                for stream in pointers {
                    v.prefetch(
                        stream.wrapping_add(at).cast::<u8>().wrapping_add(PREFETCH_DISTANCE),
                    );
                }
            }
            for step in 0..line / P::STEP {
                let at = at + step * P::STEP;
                let streams = pointers.map(|stream| stream.add(at));
                multiply_add((v, p), streams, operands.add(at), stride, &mut registers);
            }
            at += line;
        }
        while at + P::STEP <= length {
            let streams = pointers.map(|stream| stream.add(at));
            multiply_add((v, p), streams, operands.add(at), stride, &mut registers);
            at += P::STEP;
        }
        if at < length {
            let zero: P::Weight = bytemuck::Zeroable::zeroed();
            let mut tails = [[zero; MAX_STEP]; STREAMS];
            for (tail, weights) in tails.iter_mut().zip(weights) {
                tail[..length - at].copy_from_slice(&weights[at..]);
            }
            let streams = [&tails[0], &tails[1], &tails[2], &tails[3]].map(|tail| tail.as_ptr());
            multiply_add((v, p), streams, operands.add(at), stride, &mut registers);
        }
    }
    sums.copy_from_slice(&registers);
}

/// One vector of each stream times one of each row of activations.
///
/// # Safety
/// A vector can be read from each stream, and from each of the `ROWS` rows of operands.
#[inline(always)]
unsafe fn multiply_add<V: Vectors, P: Products<V>, const ROWS: usize>(
    (v, p): (V, P),
    streams: [*const P::Weight; STREAMS],
    operands: *const P::Operand,
    stride: usize,
    sums: &mut [[V::Vector; STREAMS]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let weights = [
            p.load_weights(v, streams[0]),
            p.load_weights(v, streams[1]),
            p.load_weights(v, streams[2]),
            p.load_weights(v, streams[3]),
        ];
        for row in 0..ROWS {
            let operand = p.load(v, operands.add(row * stride));
            for stream in 0..STREAMS {
                sums[row][stream] = p.multiply_add(v, weights[stream], operand, sums[row][stream]);
            }
        }
    }
}
