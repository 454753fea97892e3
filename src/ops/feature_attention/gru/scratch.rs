//! What a GRU keeps in the caller's workspace.

/// Offsets of the parts, in bytes; each starts where every backend can bind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GruScratch {
    /// `[B, L, 2, 3h]` f32: what the gates take from a layer's input. Before it lie the lengths, `[B]` i32.
    pub gates: usize,
    /// `[B, L, 2h]` f32: the states of a layer that another one reads.
    pub between: usize,
    /// All of it.
    pub bytes: usize,
}

impl GruScratch {
    /// `has_between` unless there is one layer only.
    pub fn new(batch: usize, steps: usize, hidden: usize, has_between: bool) -> GruScratch {
        let tokens = batch.saturating_mul(steps);
        let gates = part_bytes(batch, 1);
        let between = gates.saturating_add(part_bytes(tokens, 6 * hidden));
        let last = if has_between { part_bytes(tokens, 2 * hidden) } else { 0 };
        GruScratch { gates, between, bytes: between.saturating_add(last) }
    }
}

/// Values of 4 bytes, up to the alignment of what follows.
pub(crate) fn part_bytes(rows: usize, columns: usize) -> usize {
    const ALIGNMENT: usize = 256;
    let bytes = rows.saturating_mul(columns).saturating_mul(4);
    bytes.saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_do_not_overlap() {
        let scratch = GruScratch::new(3, 5, 7, true);
        assert_eq!((scratch.gates, scratch.between), (256, 256 + 2560));
        assert_eq!(scratch.bytes, 256 + 2560 + 1024);
        assert_eq!(GruScratch::new(3, 5, 7, false).bytes, scratch.between);
        assert_eq!(GruScratch::new(0, 5, 7, true).bytes, 0);
    }

    #[test]
    fn sizes_beyond_the_address_space_saturate() {
        assert!(GruScratch::new(usize::MAX, 2, 3, true).bytes > usize::MAX - 256);
    }
}
