//! Scores in host memory, by flat index and as keys.

use std::ops::Range;

use rayon::prelude::*;

use crate::dtype::{Float, bf16, f16};
use crate::layout::HasLayout as _;
use crate::tensor::TensorRef;

/// Elements that keep a thread busy for long enough.
pub(crate) const CHUNK: usize = 1 << 16;

/// A score as an unsigned number of the same order: both zeros have one, every NaN has the smallest, 0.
pub(crate) trait ScoreKey: Float {
    /// Bits of a key.
    const KEY_BITS: u32;

    fn key(self) -> u32;

    fn is_nan(self) -> bool;
}

/// `sign` is the type's sign bit, `infinity` the bits of its infinity.
#[inline(always)]
fn key_of_bits(bits: u32, sign: u32, infinity: u32) -> u32 {
    let magnitude = bits & (sign - 1);
    let ordered = if bits & sign == 0 { bits | sign } else { !bits & (sign | (sign - 1)) };
    let key = if magnitude == 0 { sign } else { ordered };
    if magnitude > infinity { 0 } else { key }
}

impl ScoreKey for f32 {
    const KEY_BITS: u32 = 32;

    #[inline(always)]
    fn key(self) -> u32 {
        key_of_bits(self.to_bits(), 0x8000_0000, 0x7f80_0000)
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
}

impl ScoreKey for f16 {
    const KEY_BITS: u32 = 16;

    #[inline(always)]
    fn key(self) -> u32 {
        key_of_bits(u32::from(self.to_bits()), 0x8000, 0x7c00)
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        f16::is_nan(self)
    }
}

impl ScoreKey for bf16 {
    const KEY_BITS: u32 = 16;

    #[inline(always)]
    fn key(self) -> u32 {
        key_of_bits(u32::from(self.to_bits()), 0x8000, 0x7f80)
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        bf16::is_nan(self)
    }
}

/// A vector or a matrix of scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostScores<'a, T> {
    data: &'a [T],
    /// Of a row; without gaps all elements are one row.
    columns: usize,
    row_stride: usize,
    elements: usize,
}

impl<'a, T: ScoreKey> HostScores<'a, T> {
    /// Of a tensor that validation found to be of type `T`.
    pub fn new(scores: TensorRef<'a>) -> HostScores<'a, T> {
        let layout = scores.layout();
        let elements = layout.elements();
        let columns = if layout.is_contiguous() { elements } else { layout.columns() };
        let data = scores.as_slice().unwrap_or_default();
        HostScores { data, columns: columns.max(1), row_stride: layout.row_stride(), elements }
    }

    /// How many there are.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The key of one element.
    pub fn key(&self, index: usize) -> u32 {
        self.data[index / self.columns * self.row_stride + index % self.columns].key()
    }

    /// Elements as they lie in memory, piece by piece, with the index of each piece's first one.
    #[inline(always)]
    pub fn for_each_piece(&self, range: Range<usize>, mut see: impl FnMut(usize, &[T])) {
        let mut index = range.start;
        while index < range.end {
            let column = index % self.columns;
            let length = (self.columns - column).min(range.end - index);
            let start = index / self.columns * self.row_stride + column;
            see(index, &self.data[start..start + length]);
            index += length;
        }
    }

    /// The elements of a chunk.
    pub fn chunk(&self, chunk: usize) -> Range<usize> {
        crate::backend::cpu::parallel::chunk(self.elements, CHUNK, chunk)
    }

    pub fn chunks(&self) -> usize {
        self.elements.div_ceil(CHUNK)
    }

    /// The index of the first NaN.
    pub fn first_nan(&self) -> Option<usize> {
        let has_nan = |chunk: usize| {
            let mut found = false;
            self.for_each_piece(self.chunk(chunk), |_, piece| {
                // Without an early end, so that it is done by vectors.
                found |= piece.iter().fold(false, |found, score| found | score.is_nan());
            });
            found
        };
        let chunk = (0..self.chunks()).into_par_iter().find_first(|&chunk| has_nan(chunk))?;
        self.chunk(chunk).find(|&index| self.key(index) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_order_of_the_scores() {
        let ascending = [f32::NEG_INFINITY, f32::MIN, -1.0, -1e-45, 0.0, 1e-45, 1.0, f32::INFINITY];
        assert!(ascending.windows(2).all(|pair| pair[0].key() < pair[1].key()));
        assert_eq!((-0.0f32).key(), 0.0f32.key());
        assert_eq!((f32::NAN.key(), (-f32::NAN).key()), (0, 0));
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let brains: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        check_order(&halves);
        check_order(&brains);
    }

    fn check_order<T: ScoreKey>(all: &[T]) {
        for pair in all.windows(2) {
            let (a, b) = (pair[0].to_f32(), pair[1].to_f32());
            if a.is_nan() {
                assert_eq!(pair[0].key(), 0);
            } else if !b.is_nan() {
                assert_eq!(Some(pair[0].key().cmp(&pair[1].key())), a.partial_cmp(&b));
            }
            assert!(a.is_nan() || pair[0].key() > 0);
        }
    }

    #[test]
    fn rows_with_gaps_have_flat_indices() {
        let data = [1.0f32, 2.0, f32::NAN, 3.0, 4.0];
        let matrix = TensorRef::strided(&data, &[2, 2], &[3, 1]).unwrap();
        let scores: HostScores<'_, f32> = HostScores::new(matrix);
        let keys: Vec<u32> = (0..4).map(|index| scores.key(index)).collect();
        assert_eq!(keys, [1.0f32, 2.0, 3.0, 4.0].map(ScoreKey::key));
        assert_eq!(scores.first_nan(), None);
        let all: HostScores<'_, f32> = HostScores::new(TensorRef::new(&data, &[5]).unwrap());
        assert_eq!(all.first_nan(), Some(2));
    }
}
