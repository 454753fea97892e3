//! The texts of a batch in the order in which the CPU takes them.

use crate::ops::feature_attention::lengths::length_of;
use crate::tensor::TensorRef;

/// A text of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Its row of the batch.
    pub index: usize,
    /// Valid tokens.
    pub length: usize,
    /// Where these begin among the valid tokens of all texts.
    pub first: usize,
}

/// The texts, longest first, so that those that still run at a step are the first ones of any tile.
#[derive(Clone, Debug)]
pub(crate) struct Texts {
    texts: Vec<Text>,
    tokens: usize,
}

impl Texts {
    /// `lengths` are valid for `batch` texts of up to `longest` tokens.
    pub fn new(lengths: &Option<TensorRef<'_>>, batch: usize, longest: usize) -> Texts {
        let length = |index| length_of(lengths, index, longest);
        let mut texts: Vec<Text> =
            (0..batch).map(|index| Text { index, length: length(index), first: 0 }).collect();
        // Stable, so that equal texts stay in the order of memory.
        texts.sort_by_key(|text| std::cmp::Reverse(text.length));
        let mut tokens = 0;
        for text in &mut texts {
            text.first = tokens;
            tokens += text.length;
        }
        Texts { texts, tokens }
    }

    /// Valid tokens of all texts.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// All texts, longest first.
    pub fn all(&self) -> &[Text] {
        &self.texts
    }

    /// Those that have tokens.
    pub fn with_tokens(&self) -> &[Text] {
        &self.texts[..running(&self.texts, 0)]
    }
}

/// How many of some texts, longest first, have a token for this step.
pub(super) fn running(texts: &[Text], step: usize) -> usize {
    texts.partition_point(|text| text.length > step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_come_first_and_empty_ones_last() {
        let lengths = [2, 0, 5, 2];
        let lengths = TensorRef::new(&lengths, &[4]).unwrap();
        let texts = Texts::new(&Some(lengths), 4, 9);
        let seen: Vec<_> =
            texts.all().iter().map(|text| (text.index, text.length, text.first)).collect();
        assert_eq!(seen, [(2, 5, 0), (0, 2, 5), (3, 2, 7), (1, 0, 9)]);
        assert_eq!(texts.with_tokens().len(), 3);
        let left = [0, 2, 5].map(|step| running(texts.all(), step));
        assert_eq!(left, [3, 1, 0]);
        assert_eq!(texts.tokens(), 9);
        assert_eq!(Texts::new(&None, 2, 3).tokens(), 6);
    }
}
