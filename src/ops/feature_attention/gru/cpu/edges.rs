//! What surrounds the recurrence: tokens come in packed, and what lies behind a text's end becomes 0.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use super::texts::Text;
use crate::backend::cpu::float_rows::{FloatMatrices, FloatMatricesMut, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::pieces::ChunkWork;

/// Widens and packs the valid tokens of each text; a text is a chunk.
#[derive(Clone, Copy)]
pub(crate) struct Edges<'a> {
    /// `[B, L, columns]`.
    pub x: FloatMatrices<'a>,
    pub columns: usize,
    /// `[tokens, columns]`.
    pub tokens: Shared<'a, f32>,
    /// All of them.
    pub texts: &'a [Text],
    /// `L`.
    pub longest: usize,
    /// `[B, L, ...]`.
    pub out: FloatMatricesMut<'a>,
}

impl ChunkWork for Edges<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, chunk: usize) {
        let text = self.texts[chunk];
        let range = text.first * self.columns..(text.first + text.length) * self.columns;
        // SAFETY: each text has its own tokens.
        let tokens = unsafe { self.tokens.slice(range) };
        let x = self.x.matrix(text.index);
        for (token, row) in tokens.chunks_exact_mut(self.columns).enumerate() {
            for (index, part) in row.chunks_mut(V::LANES).enumerate() {
                v.store_slice(x.load(v, token, index * V::LANES), part);
            }
        }
        let out = self.out.matrix(text.index);
        for token in text.length..self.longest {
            // SAFETY: each text has its own rows; those in front of its end are written behind this pass.
            unsafe { fill(v, &out, token, |_| v.splat(0.0)) };
        }
    }
}

/// Fills a row with what `value` gives for the column at which a vector starts.
///
/// # Safety
/// Nobody else uses the row at the same time.
#[inline(always)]
pub(crate) unsafe fn fill<V: Vectors>(
    v: V,
    out: &FloatRowsMut<'_>,
    row: usize,
    value: impl Fn(usize) -> V::Vector,
) {
    for column in (0..out.columns()).step_by(V::LANES) {
        // SAFETY: the caller's promise.
        unsafe { out.store(v, value(column), row, column, out.columns() - column) };
    }
}
