//! Which of `n` features are kept.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "wgpu")]
mod wgpu;

#[cfg(feature = "cuda")]
pub use cuda::CudaIndexSet;
#[cfg(feature = "wgpu")]
pub use wgpu::WgpuIndexSet;

use crate::error::{Error, Problem};
use crate::tensor::TensorRef;
use crate::validate::MAX_DIMENSION;

const OP: &str = "index_set";

/// A subset of `0..domain`: its members in strictly ascending order, and for every feature its place among them.
///
/// The members are what gathers read (`indices`), the places what scatters in gather form read (`rank`): `out[j] =
/// residual[j] + y[rank[j]]` where `rank[j]` is not -1. Both lie ready to be passed to an operation or copied to a
/// device; operations trust that they belong together, which only this type can promise.
///
/// Source: the index sets of DISP-LLM (arXiv 2410.11988), section 3.2.
///
/// ```
/// use siluette::IndexSet;
///
/// let kept = IndexSet::from_mask(&[1, 0, 0, 1])?;
/// assert_eq!(kept.indices(), [0, 3]);
/// assert_eq!(kept.rank(), [0, -1, -1, 1]);
/// assert!(IndexSet::new(vec![3, 0], 4).is_err());
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSet {
    indices: Vec<u32>,
    rank: Vec<i32>,
}

impl IndexSet {
    /// The set of these members of `0..domain`.
    ///
    /// # Errors
    /// [`Problem::Value`] names the first position that is out of range, out of order or a duplicate;
    /// [`Problem::Size`] for a domain over 2^31 - 1.
    pub fn new(indices: Vec<u32>, domain: usize) -> Result<IndexSet, Error> {
        check_domain(domain)?;
        check_ascending(OP, "indices", &indices, domain)?;
        let mut rank = vec![-1; domain];
        for (place, &index) in indices.iter().enumerate() {
            rank[index as usize] = place as i32;
        }
        Ok(IndexSet { indices, rank })
    }

    /// Every feature.
    ///
    /// # Errors
    /// [`Problem::Size`] for a domain over 2^31 - 1.
    pub fn full(domain: usize) -> Result<IndexSet, Error> {
        IndexSet::from_predicate(domain, |_| true)
    }

    /// No feature.
    ///
    /// # Errors
    /// [`Problem::Size`] for a domain over 2^31 - 1.
    pub fn empty(domain: usize) -> Result<IndexSet, Error> {
        IndexSet::from_predicate(domain, |_| false)
    }

    /// The features whose byte is not 0.
    ///
    /// # Errors
    /// [`Problem::Size`] for a mask longer than 2^31 - 1.
    pub fn from_mask(mask: &[u8]) -> Result<IndexSet, Error> {
        IndexSet::from_predicate(mask.len(), |feature| mask[feature] != 0)
    }

    /// The features whose bit is set: feature `i` is bit `i % 8`, counted from the lowest, of byte `i / 8`. Bits
    /// from `domain` on must be 0.
    ///
    /// # Errors
    /// [`Problem::Length`] for another number of bytes than `domain` needs, [`Problem::Value`] for bits behind it.
    pub fn from_bitmask(bits: &[u8], domain: usize) -> Result<IndexSet, Error> {
        check_domain(domain)?;
        if bits.len() != domain.div_ceil(8) {
            let expected = format!("{} bytes for {domain} features", domain.div_ceil(8));
            let got = format!("of {} bytes", bits.len());
            return Err(Error::argument(OP, "bits", Problem::Length, expected, got, ""));
        }
        let is_set = |feature: usize| bits[feature / 8] >> (feature % 8) & 1 == 1;
        if let Some(feature) = (domain..bits.len() * 8).find(|&feature| is_set(feature)) {
            let expected = format!("no bit from {domain} on");
            let got = format!("bit {feature} set");
            return Err(Error::argument(OP, "bits", Problem::Value, expected, got, ""));
        }
        IndexSet::from_predicate(domain, is_set)
    }

    /// The features whose score satisfies a condition, such as `|score| score > threshold`.
    ///
    /// # Errors
    /// [`Problem::Value`] names the first score that is NaN, which no comparison can judge.
    pub fn from_scores(
        scores: &[f32],
        mut keep: impl FnMut(f32) -> bool,
    ) -> Result<IndexSet, Error> {
        check_numbers(OP, "scores", scores.iter().copied())?;
        IndexSet::from_predicate(scores.len(), |feature| keep(scores[feature]))
    }

    fn from_predicate(
        domain: usize,
        mut keep: impl FnMut(usize) -> bool,
    ) -> Result<IndexSet, Error> {
        check_domain(domain)?;
        let indices = (0..domain).filter(|&feature| keep(feature)).map(|feature| feature as u32);
        IndexSet::new(indices.collect(), domain)
    }

    /// The members, strictly ascending.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// For each feature its position in [`IndexSet::indices`], or -1.
    pub fn rank(&self) -> &[i32] {
        &self.rank
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Whether every feature is a member.
    pub fn is_full(&self) -> bool {
        self.indices.len() == self.rank.len()
    }

    /// Number of features to choose from.
    pub fn domain(&self) -> usize {
        self.rank.len()
    }

    /// Whether `feature` is a member.
    pub fn contains(&self, feature: usize) -> bool {
        self.rank.get(feature).is_some_and(|&rank| rank >= 0)
    }

    /// One byte a feature: 1 for members, 0 for others.
    pub fn to_mask(&self) -> Vec<u8> {
        self.rank.iter().map(|&rank| u8::from(rank >= 0)).collect()
    }

    /// The features that are in both sets.
    ///
    /// # Errors
    /// [`Problem::Shape`] if the sets choose from different numbers of features.
    pub fn intersection(&self, other: &IndexSet) -> Result<IndexSet, Error> {
        if self.domain() != other.domain() {
            let expected = format!("a set of {} features", self.domain());
            let got = format!("of {}", other.domain());
            return Err(Error::argument(OP, "other", Problem::Shape, expected, got, ""));
        }
        IndexSet::from_predicate(self.domain(), |feature| {
            self.contains(feature) && other.contains(feature)
        })
    }

    /// [`IndexSet::indices`] as an operation's tensor, `[len]`.
    pub fn indices_tensor(&self) -> TensorRef<'_> {
        TensorRef::new(&self.indices, &[self.len()]).expect("a slice has its own length")
    }

    /// [`IndexSet::rank`] as an operation's tensor, `[domain]`.
    pub fn rank_tensor(&self) -> TensorRef<'_> {
        TensorRef::new(&self.rank, &[self.domain()]).expect("a slice has its own length")
    }
}

fn check_domain(domain: usize) -> Result<(), Error> {
    if domain <= MAX_DIMENSION {
        return Ok(());
    }
    let expected = format!("at most {MAX_DIMENSION}");
    Err(Error::argument(OP, "domain", Problem::Size, expected, domain, ""))
}

/// That indices are strictly ascending members of `0..domain`.
pub(crate) fn check_ascending(
    op: &'static str,
    argument: &'static str,
    indices: &[u32],
    domain: usize,
) -> Result<(), Error> {
    let Some(position) = first_invalid(indices, domain) else { return Ok(()) };
    let expected = if indices[position] as usize >= domain {
        format!("an index below {domain}")
    } else {
        format!("an index above {}", indices[position - 1])
    };
    let got = format!("{} at position {position}", indices[position]);
    let remedy = "indices are strictly ascending and below the number of features";
    Err(Error::argument(op, argument, Problem::Value, expected, got, remedy))
}

/// The first position that is out of range, out of order or a duplicate.
pub(crate) fn first_invalid(indices: &[u32], domain: usize) -> Option<usize> {
    (0..indices.len()).find(|&position| {
        let is_above = position == 0 || indices[position] > indices[position - 1];
        indices[position] as usize >= domain || !is_above
    })
}

/// The error that the flag of `invert_indices` stands for; `index_at` fetches an index from the device.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn refuse_invalid(
    first_invalid: i32,
    index_at: impl Fn(usize) -> Result<u32, Error>,
) -> Result<(), Error> {
    let Ok(position) = usize::try_from(first_invalid) else { return Ok(()) };
    let got = format!("{} at position {position}", index_at(position)?);
    let expected = "strictly ascending indices below the number of features";
    Err(Error::argument(OP, "indices", Problem::Value, expected, got, ""))
}

/// That `rank` is the inverse of `indices`.
pub(crate) fn check_rank(
    op: &'static str,
    argument: &'static str,
    indices: &[u32],
    rank: &[i32],
) -> Result<(), Error> {
    let mut members = indices.iter().enumerate().peekable();
    for (feature, &got) in rank.iter().enumerate() {
        let place = members.next_if(|(_, index)| **index as usize == feature);
        let expected = place.map_or(-1, |(place, _)| place as i32);
        if got != expected {
            let got = format!("{got} at position {feature}");
            let remedy = "the rank is the inverse of the indices: take both from one IndexSet";
            return Err(Error::argument(op, argument, Problem::Value, expected, got, remedy));
        }
    }
    Ok(())
}

/// That no score is NaN.
pub(crate) fn check_numbers(
    op: &'static str,
    argument: &'static str,
    scores: impl IntoIterator<Item = f32>,
) -> Result<(), Error> {
    match scores.into_iter().position(f32::is_nan) {
        None => Ok(()),
        Some(position) => {
            let got = format!("NaN at position {position}");
            Err(Error::argument(op, argument, Problem::Value, "numbers", got, ""))
        }
    }
}

/// The values of an index tensor, a vector.
pub(crate) fn index_values(tensor: TensorRef<'_>) -> &[u32] {
    tensor.as_slice().unwrap_or_else(|| unreachable!("validated as u32"))
}

/// The values of a rank tensor, a vector.
pub(crate) fn rank_values(tensor: TensorRef<'_>) -> &[i32] {
    tensor.as_slice().unwrap_or_else(|| unreachable!("validated as i32"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(result: Result<IndexSet, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn the_first_offending_position_is_named() {
        for (indices, words) in [
            (vec![0, 4, 9], "4 at position 1, expected an index below 4"),
            (vec![0, 2, 1, 9], "1 at position 2, expected an index above 2"),
            (vec![1, 1], "1 at position 1, expected an index above 1"),
            (vec![u32::MAX], "4294967295 at position 0"),
        ] {
            let message = message(IndexSet::new(indices, 4));
            assert!(message.contains(words), "{message}");
        }
        let error = IndexSet::from_scores(&[1.0, f32::NAN], |_| true).unwrap_err();
        assert!(error.to_string().contains("NaN at position 1"), "{error}");
        assert!(IndexSet::full(MAX_DIMENSION + 1).is_err());
    }

    #[test]
    fn bits_are_counted_from_the_lowest() {
        let set = IndexSet::from_bitmask(&[0b0000_0101, 0b1], 9).unwrap();
        assert_eq!(set.indices(), [0, 2, 8]);
        assert!(message(IndexSet::from_bitmask(&[0, 0b10], 9)).contains("bit 9"));
        assert!(message(IndexSet::from_bitmask(&[0], 9)).contains("2 bytes"));
        assert!(IndexSet::from_bitmask(&[0; 2], MAX_DIMENSION + 1).is_err());
    }

    #[test]
    fn empty_and_full_sets_are_sets() {
        let (empty, full) = (IndexSet::empty(3).unwrap(), IndexSet::full(3).unwrap());
        assert!(empty.is_empty() && !empty.is_full() && full.is_full() && !full.is_empty());
        assert_eq!(full.intersection(&empty).unwrap(), empty);
        assert!(full.intersection(&IndexSet::full(4).unwrap()).is_err());
        let nothing = IndexSet::full(0).unwrap();
        assert!(nothing.is_empty() && nothing.is_full());
    }

    #[test]
    fn a_rank_of_other_indices_is_refused() {
        let set = IndexSet::new(vec![1, 3], 5).unwrap();
        let check = |rank: &[i32]| check_rank("op", "rank", set.indices(), rank);
        assert!(check(set.rank()).is_ok());
        for position in 0..5 {
            let mut rank = set.rank().to_vec();
            rank[position] += 1;
            let error = check(&rank).unwrap_err().to_string();
            assert!(error.contains(&format!("at position {position}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_way_to_build_a_set_agrees(mask in proptest::collection::vec(0u8..3, 0..70)) {
            let set = IndexSet::from_mask(&mask).unwrap();
            prop_assert_eq!(set.domain(), mask.len());
            prop_assert_eq!(&IndexSet::new(set.indices().to_vec(), mask.len()).unwrap(), &set);
            prop_assert_eq!(&IndexSet::from_mask(&set.to_mask()).unwrap(), &set);
            let mut bits = vec![0u8; mask.len().div_ceil(8)];
            for &index in set.indices() {
                bits[index as usize / 8] |= 1 << (index % 8);
            }
            prop_assert_eq!(&IndexSet::from_bitmask(&bits, mask.len()).unwrap(), &set);
            let scores: Vec<f32> = mask.iter().map(|&byte| f32::from(byte)).collect();
            prop_assert_eq!(&IndexSet::from_scores(&scores, |score| score > 0.0).unwrap(), &set);
            prop_assert!(check_rank("op", "rank", set.indices(), set.rank()).is_ok());
        }
    }
}
