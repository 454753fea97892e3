//! The last product, of neurons whose `h` is not zero, and what is added to it.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use std::ops::Range;

use crate::backend::cpu::instructions::{Leaf, Vectors};
use crate::backend::cpu::product::Matrix;
use crate::backend::cpu::product::activations::row_stride;
use crate::dtype::Float;
use crate::ops::silu_mlp::mlp::cpu::layer::Output;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The neurons of each token whose `h` is not zero.
pub(super) struct Survivors<'a> {
    /// `[token][neuron]`, of which the first of each token count.
    pub neurons: &'a mut [u32],
    /// Their `h`.
    pub factors: &'a mut [f32],
    pub counts: [usize; super::BATCH_TOKENS],
    pub ffn: usize,
}

impl Survivors<'_> {
    /// Those of rows of `h`.
    pub fn of<T: Float>(mut self, h: &[T]) -> Self {
        let ffn = self.ffn;
        for (place, h) in h.chunks_exact(row_stride(ffn)).enumerate() {
            let mut count = 0;
            for (neuron, value) in h[..ffn].iter().enumerate() {
                let value = value.to_f32();
                self.neurons[place * ffn + count] = neuron as u32;
                self.factors[place * ffn + count] = value;
                // Also true of NaN.
                count += usize::from(value != 0.0);
            }
            self.counts[place] = count;
        }
        self
    }

    pub fn row(&self, place: usize) -> (&[u32], &[f32]) {
        let range = place * self.ffn..place * self.ffn + self.counts[place];
        (&self.neurons[range.clone()], &self.factors[range])
    }
}

/// Some columns of the sum of a matrix's rows, each times its factor, in the order of the rows.
pub(super) struct AddRows<'a, V, W> {
    pub v: V,
    pub matrix: Matrix<'a, W>,
    pub neurons: &'a [u32],
    pub factors: &'a [f32],
    pub columns: Range<usize>,
    pub sums: &'a mut [f32],
}

impl<V: Vectors, W: Float> Leaf for AddRows<'_, V, W> {
    #[inline(always)]
    fn run(self) {
        self.sums.fill(0.0);
        // Four at a time, so that sums are loaded and stored as seldom.
        let mut left = self.neurons;
        let mut factors = self.factors.chunks_exact(4);
        for factors in &mut factors {
            let (four, next) = left.split_at(4);
            add::<V, W, 4>(self.v, &self.matrix, &self.columns, four, next, factors, self.sums);
            left = next;
        }
        for (index, factor) in factors.remainder().iter().enumerate() {
            let (one, next) = left[index..].split_at(1);
            let factor = std::slice::from_ref(factor);
            add::<V, W, 1>(self.v, &self.matrix, &self.columns, one, next, factor, self.sums);
        }
    }
}

/// Adds `ROWS` rows; asks for as many of `next` meanwhile.
#[inline(always)]
fn add<V: Vectors, W: Float, const ROWS: usize>(
    v: V,
    matrix: &Matrix<'_, W>,
    columns: &Range<usize>,
    rows: &[u32],
    next: &[u32],
    factors: &[f32],
    sums: &mut [f32],
) {
    let row = |index: u32| &matrix.row(index as usize)[columns.clone()];
    let weights: [&[W]; ROWS] = std::array::from_fn(|index| row(rows[index]));
    let ahead: [&[W]; ROWS] =
        std::array::from_fn(|index| row(next.get(index).copied().unwrap_or(rows[0])));
    let factors: [V::Vector; ROWS] = std::array::from_fn(|index| v.splat(factors[index]));
    let line = LINE / size_of::<W>();
    for start in (0..sums.len()).step_by(line) {
        for row in ahead {
            v.prefetch(row[start..].as_ptr().cast());
        }
        let end = sums.len().min(start + line);
        for at in (start..end).step_by(V::LANES) {
            let lanes = at..end.min(at + V::LANES);
            let mut sum = v.load_slice(&sums[lanes.clone()]);
            for index in 0..ROWS {
                sum = v.mul_add(v.load_slice(&weights[index][lanes.clone()]), factors[index], sum);
            }
            v.store_slice(sum, &mut sums[lanes]);
        }
    }
}

/// Columns of one row of the output, from `first` on.
pub(super) struct Finish<'a, V> {
    pub v: V,
    pub output: &'a Output<'a>,
    pub row: usize,
    pub first: usize,
    pub sums: &'a [f32],
}

impl<V: Vectors> Leaf for Finish<'_, V> {
    #[inline(always)]
    fn run(self) {
        let Finish { v, output, row, first, sums } = self;
        for at in (0..sums.len()).step_by(V::LANES) {
            let vector = v.load_slice(&sums[at..]);
            // SAFETY: these columns belong to this chunk.
            unsafe { output.finish(v, vector, row, first + at, sums.len() - at) };
        }
    }
}
