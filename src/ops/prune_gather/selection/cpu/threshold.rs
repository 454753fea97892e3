//! The k-th largest key.

use std::ops::RangeInclusive;

use super::passes::{Collected, DIGIT_BITS, collect, histogram};
use crate::backend::cpu::Cpu;
use crate::ops::prune_gather::selection::host_scores::{HostScores, ScoreKey};

/// The k-th largest key, and how many elements with it belong to the k largest.
pub(super) fn threshold<T: ScoreKey>(
    cpu: &Cpu,
    scores: &HostScores<'_, T>,
    k: usize,
) -> (u32, usize) {
    by_sample(cpu, scores, k).unwrap_or_else(|| by_digits(cpu, scores, k))
}

/// In one pass: a sample tells between which keys the k-th lies, and only those are kept. `None` if the sample misled,
/// or if too many keys are equal.
fn by_sample<T: ScoreKey>(cpu: &Cpu, scores: &HostScores<'_, T>, k: usize) -> Option<(u32, usize)> {
    /// Fewer scores are in a cache, where the histograms are as fast.
    const FEWEST_ELEMENTS: usize = 1 << 18;
    /// The range holds a few hundredths of the scores, if they are not all equal.
    const MOST_SHARE: usize = 8;
    let elements = scores.elements();
    if elements < FEWEST_ELEMENTS {
        return None;
    }
    let most = elements / MOST_SHARE / cpu.threads().max(1);
    let Collected { above, mut inside, overflowed } =
        collect(cpu, scores, sampled_range(scores, k), most);
    if overflowed || above >= k || above + inside.len() < k {
        return None;
    }
    let place = k - above - 1;
    let (larger, &mut key, _) = inside.select_nth_unstable_by(place, |a, b| b.cmp(a));
    // Some of those on the left may be its equals.
    let larger = larger.iter().filter(|&&other| other > key).count();
    Some((key, k - above - larger))
}

/// Keys that the k-th largest lies between, most likely.
fn sampled_range<T: ScoreKey>(scores: &HostScores<'_, T>, k: usize) -> RangeInclusive<u32> {
    let elements = scores.elements();
    let size = 4 * elements.isqrt();
    // An odd step meets every column of a matrix whose rows are a power of two.
    let step = (elements / size) | 1;
    let mut sample: Vec<u32> = (0..elements).step_by(step).map(|i| scores.key(i)).collect();
    sample.sort_unstable_by(|a, b| b.cmp(a));
    let size = sample.len() as f64;
    let share = k as f64 / elements as f64;
    // Where the k-th would be in the sample, give or take four standard deviations.
    let place = share * size;
    let margin = 4.0 * (place * (1.0 - share)).sqrt() + 8.0;
    let high = if place < margin { u32::MAX } else { sample[(place - margin) as usize] };
    let low = sample.get((place + margin) as usize).copied().unwrap_or(0);
    low..=high
}

/// In a pass for each digit of the keys.
fn by_digits<T: ScoreKey>(cpu: &Cpu, scores: &HostScores<'_, T>, k: usize) -> (u32, usize) {
    let (mut prefix, mut wanted) = (None, k);
    let mut shift = T::KEY_BITS;
    while shift > 0 {
        shift -= DIGIT_BITS;
        let bins = histogram(cpu, scores, prefix, shift);
        let mut digit = bins.len() - 1;
        while (bins[digit] as usize) < wanted {
            wanted -= bins[digit] as usize;
            digit -= 1;
        }
        prefix = Some(prefix.map_or(0, |prefix| prefix << DIGIT_BITS) | digit as u32);
    }
    (prefix.unwrap_or_default(), wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::TensorRef;

    type Score = fn(usize) -> f32;

    fn mixed(index: usize) -> usize {
        index.wrapping_mul(2_654_435_761) % (1 << 24)
    }

    /// Scores of many kinds, each with the k-th largest by sorting.
    #[test]
    fn both_ways_find_the_key_that_sorting_finds() {
        let elements = 300_000usize;
        let kinds: [(&str, Score); 5] = [
            ("mixed", |i| mixed(i) as f32 - 1e6),
            ("ascending", |i| i as f32),
            ("a few values", |i| (mixed(i) % 5) as f32),
            ("equal", |_| 1.0),
            // The sample sees few of the large ones.
            ("rare", |i| if i % 9_973 == 5_000 { 2.0 } else { -(mixed(i) as f32) }),
        ];
        let cpu = Cpu::new();
        let mut by_sample_found = 0;
        for (name, score) in &kinds {
            let data: Vec<f32> = (0..elements).map(score).collect();
            let scores: HostScores<'_, f32> =
                HostScores::new(TensorRef::new(&data, &[elements]).unwrap());
            let mut sorted: Vec<u32> = data.iter().map(|score| score.key()).collect();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            for k in [1, 22, 1_000, elements / 2, elements - 1, elements] {
                let key = sorted[k - 1];
                let larger = sorted.partition_point(|&other| other > key);
                let expected = (key, k - larger);
                assert_eq!(by_digits(&cpu, &scores, k), expected, "{name} k={k}");
                if let Some(found) = by_sample(&cpu, &scores, k) {
                    assert_eq!(found, expected, "{name} k={k}");
                    by_sample_found += 1;
                }
            }
        }
        // All of the mixed and ascending scores at least.
        assert!(by_sample_found >= 12, "{by_sample_found}");
    }
}
