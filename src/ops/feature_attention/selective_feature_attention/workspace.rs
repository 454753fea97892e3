//! What lies where in the memory that a GPU's launches hand on to each other.

use super::{SelectiveFeatureAttention, StackMode};
use crate::ops::feature_attention::gru::scratch::{GruScratch, part_bytes};

/// Offsets in bytes, each where every backend can bind it, of f32 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sections {
    /// What a branch's GRU works in, from the start on.
    pub gru: GruScratch,
    /// The reduced tokens, `[B, L, d1]`.
    pub reduced: usize,
    /// The states of every branch, `[B, L, N, d1]`.
    pub states: usize,
    /// Final states, `[2, B, h]`, of the branches in turns; nothing unless states are chained.
    pub last: [usize; 2],
    /// What is squeezed, before and behind the product, `[B, d1 + d2]`.
    pub squeezed: usize,
    /// The branches' weights, `[B, N, d1]`.
    pub weights: usize,
    /// All of it.
    pub bytes: usize,
}

impl SelectiveFeatureAttention {
    pub(super) fn workspace(&self, batch: usize, length: usize) -> Sections {
        let (tokens, d1) = (batch.saturating_mul(length), self.reduced);
        let gru = GruScratch::new(batch, length, self.hidden(), false);
        let mut bytes = gru.bytes;
        let mut section = |rows: usize, columns: usize| {
            let start = bytes;
            bytes = bytes.saturating_add(part_bytes(rows, columns));
            start
        };
        let chained = usize::from(self.stack_mode == StackMode::StateChained);
        let mut sections = Sections {
            gru,
            reduced: section(tokens, d1),
            states: section(tokens, self.branches * d1),
            last: [section(batch, d1 * chained), section(batch, d1 * chained)],
            squeezed: section(batch, d1.saturating_add(self.squeezed)),
            weights: section(batch, self.branches * d1),
            bytes: 0,
        };
        sections.bytes = bytes;
        sections
    }
}
