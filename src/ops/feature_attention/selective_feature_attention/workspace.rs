//! What lies where in the memory that a GPU's launches hand on to each other.

use super::{SelectiveFeatureAttention, StackMode};

/// Offsets in bytes, each a multiple of 256, of f32 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sections {
    /// The reduced tokens, `[B * L, d1]`.
    pub reduced: usize,
    /// The input's share of a branch's gates, `[2, B * L, 3h]`.
    pub gates: usize,
    /// The states of every branch, `[N, B * L, d1]`.
    pub branches: usize,
    /// Final states, `[2, 2, B, h]`: of this branch and of the one before; nothing unless states are chained.
    pub states: usize,
    /// Sums and maxima over a branch's tokens, `[N, 2, B, d1]`.
    pub pooled: usize,
    /// The branches' weights, `[N, B, d1]`.
    pub weights: usize,
    bytes: usize,
}

impl Sections {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl SelectiveFeatureAttention {
    pub(super) fn workspace(&self, batch: usize, length: usize) -> Sections {
        let (tokens, d1) = (batch.saturating_mul(length), self.reduced);
        let mut bytes = 0usize;
        let mut section = |rows: usize, columns: usize| {
            let start = bytes;
            let size = rows.saturating_mul(columns).saturating_mul(size_of::<f32>());
            bytes = bytes.saturating_add(size.saturating_add(255) / 256 * 256);
            start
        };
        let chained = usize::from(self.stack_mode == StackMode::StateChained);
        let mut sections = Sections {
            reduced: section(tokens, d1),
            gates: section(tokens, 3 * d1),
            branches: section(tokens, self.branches * d1),
            states: section(batch, 2 * d1 * chained),
            pooled: section(batch, 2 * self.branches * d1),
            weights: section(batch, self.branches * d1),
            bytes: 0,
        };
        sections.bytes = bytes;
        sections
    }
}
