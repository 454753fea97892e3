//! Where a self-speculating model's keys, values and exit states lie, and how many of them count.

use crate::error::{Error, Problem};

const OP: &str = "self_speculation";

/// The lengths of a key-value cache that two parts of a model fill at different speeds: while a sequence drafts, its first
/// layers are ahead of the others.
///
/// What lies behind a length is not there: rolling a draft back is nothing but setting a length, and later rows overwrite
/// what is left of it. Memory and its layout are the engine's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DualLengthCache {
    capacity: usize,
    /// For each sequence: tokens in the layers before the exit, and in those behind it.
    lengths: Vec<[usize; 2]>,
}

impl DualLengthCache {
    /// Empty caches for `sequences` sequences of up to `capacity` tokens each.
    pub fn new(sequences: usize, capacity: usize) -> DualLengthCache {
        DualLengthCache { capacity, lengths: vec![[0, 0]; sequences] }
    }

    /// Sequences that there is room for.
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens that each of them has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens of a sequence whose keys and values the layers before the exit hold; 0 if there is no such sequence.
    pub fn early_length(&self, sequence: usize) -> usize {
        self.lengths.get(sequence).map_or(0, |lengths| lengths[0])
    }

    /// Tokens of a sequence whose keys and values all layers hold; 0 if there is no such sequence.
    pub fn full_length(&self, sequence: usize) -> usize {
        self.lengths.get(sequence).map_or(0, |lengths| lengths[1])
    }

    /// Says that the layers before the exit have run on the `tokens` next tokens.
    ///
    /// # Errors
    /// [`Problem::Size`] over the capacity, [`Problem::Value`] if there is no such sequence; nothing has changed then.
    pub fn extend_early(&mut self, sequence: usize, tokens: usize) -> Result<(), Error> {
        let capacity = self.capacity;
        let [early, _] = self.get(sequence)?;
        let wanted = early.saturating_add(tokens);
        if wanted > capacity {
            let remedy = "end the sequence, or make the cache for longer ones";
            let expected = format!("at most {capacity} tokens");
            return Err(Error::argument(OP, "cache", Problem::Size, expected, wanted, remedy));
        }
        *early = wanted;
        Ok(())
    }

    /// Says that the layers behind the exit have caught up, and that of all these tokens the first `length` count: the
    /// accepted ones. Drafts behind them are forgotten, in all layers.
    ///
    /// # Errors
    /// [`Problem::Value`] if that is fewer than counted before or more than the first layers have, or if there is no such
    /// sequence; nothing has changed then.
    pub fn commit(&mut self, sequence: usize, length: usize) -> Result<(), Error> {
        let lengths = self.get(sequence)?;
        let [early, full] = *lengths;
        if !(full..=early).contains(&length) {
            let expected = format!("a length of {full} to {early}");
            return Err(Error::argument(OP, "length", Problem::Value, expected, length, ""));
        }
        *lengths = [length, length];
        Ok(())
    }

    /// Forgets drafts that have not been verified.
    ///
    /// # Errors
    /// [`Problem::Value`] if there is no such sequence.
    pub fn roll_back(&mut self, sequence: usize) -> Result<(), Error> {
        let [early, full] = self.get(sequence)?;
        *early = *full;
        Ok(())
    }

    /// Forgets a sequence.
    ///
    /// # Errors
    /// [`Problem::Value`] if there is no such sequence.
    pub fn clear(&mut self, sequence: usize) -> Result<(), Error> {
        *self.get(sequence)? = [0, 0];
        Ok(())
    }

    fn get(&mut self, sequence: usize) -> Result<&mut [usize; 2], Error> {
        let sequences = self.lengths.len();
        self.lengths.get_mut(sequence).ok_or_else(|| {
            let expected = format!("less than {sequences}");
            Error::argument(OP, "sequence", Problem::Value, expected, sequence, "")
        })
    }
}

/// Where the states of the exit layer lie between drafting and verification: a tensor
/// `[sequences * (capacity + 1), D]` with a row for each sequence and position.
///
/// A position's row is overwritten when the position is run again, so that a rejected draft needs no rolling back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExitRing {
    sequences: usize,
    capacity: usize,
}

impl ExitRing {
    /// Rows for `sequences` sequences of up to `capacity` tokens.
    pub fn new(sequences: usize, capacity: usize) -> ExitRing {
        ExitRing { sequences, capacity }
    }

    /// Rows of the tensor.
    pub fn rows(&self) -> usize {
        self.sequences * (self.capacity + 1)
    }

    /// The row of a sequence's position, or `None` if there is none.
    pub fn row(&self, sequence: usize, position: usize) -> Option<usize> {
        let exists = sequence < self.sequences && position <= self.capacity;
        exists.then(|| sequence * (self.capacity + 1) + position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_layers_run_ahead_and_are_rolled_back_by_a_length() {
        let mut cache = DualLengthCache::new(2, 10);
        cache.extend_early(1, 4).unwrap();
        assert_eq!((cache.early_length(1), cache.full_length(1)), (4, 0));
        cache.commit(1, 3).unwrap();
        assert_eq!((cache.early_length(1), cache.full_length(1)), (3, 3));
        cache.extend_early(1, 7).unwrap();
        cache.roll_back(1).unwrap();
        assert_eq!((cache.early_length(1), cache.full_length(1)), (3, 3));
        assert_eq!((cache.early_length(0), cache.full_length(0)), (0, 0));
        cache.clear(1).unwrap();
        assert_eq!((cache.early_length(1), cache.full_length(1)), (0, 0));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_and_change_nothing() {
        let mut cache = DualLengthCache::new(1, 10);
        cache.extend_early(0, 8).unwrap();
        cache.commit(0, 6).unwrap();
        let before = cache.clone();
        assert_eq!(cache.extend_early(0, 5).unwrap_err().problem(), Some(Problem::Size));
        assert_eq!(cache.extend_early(0, usize::MAX).unwrap_err().problem(), Some(Problem::Size));
        assert_eq!(cache.commit(0, 5).unwrap_err().problem(), Some(Problem::Value));
        assert_eq!(cache.commit(0, 7).unwrap_err().problem(), Some(Problem::Value));
        assert_eq!(cache.extend_early(1, 1).unwrap_err().problem(), Some(Problem::Value));
        assert_eq!(cache.roll_back(1).unwrap_err().problem(), Some(Problem::Value));
        assert_eq!(cache, before);
    }

    #[test]
    fn every_position_has_a_row_of_its_own() {
        let ring = ExitRing::new(3, 4);
        let rows: Vec<usize> =
            (0..3).flat_map(|s| (0..=4).map(move |p| ring.row(s, p).unwrap())).collect();
        assert_eq!(rows, (0..ring.rows()).collect::<Vec<_>>());
        assert_eq!((ring.row(3, 0), ring.row(0, 5)), (None, None));
    }
}
