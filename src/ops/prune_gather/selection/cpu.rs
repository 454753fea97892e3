//! The k largest scores on the CPU: a radix selection over chunks that the threads share.
#![allow(unsafe_code, reason = "threads write disjoint parts of counts and indices")]

use super::host_scores::{HostScores, ScoreKey};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::parallel::{Shared, for_each_chunk};

/// Bits of a key that one pass over the scores decides: their counts fit a core's second-level cache.
const DIGIT_BITS: u32 = 16;

/// Which elements of a tensor are its k largest.
#[derive(Clone, Debug)]
pub(crate) struct Top {
    /// The smallest key among them.
    threshold: u32,
    /// Of the elements with that key, those with a smaller index belong to them.
    cut: usize,
    /// How many of them lie before each chunk, and in all.
    before: Vec<usize>,
}

impl Top {
    /// The `k` largest of `scores`; `k` is at most their number.
    pub fn new<T: ScoreKey>(cpu: &Cpu, scores: &HostScores<'_, T>, k: usize) -> Top {
        let chunks = scores.chunks();
        if k == 0 {
            // No key is as large as the largest number.
            return Top { threshold: u32::MAX, cut: 0, before: vec![0; chunks + 1] };
        }
        let (threshold, taken) = threshold(cpu, scores, k);
        let counts = chunk_counts(cpu, scores, threshold);
        let mut top = Top { threshold, cut: 0, before: Vec::with_capacity(chunks + 1) };
        let (mut above, mut equal) = (0, 0);
        for (chunk, count) in counts.iter().enumerate() {
            top.before.push(above + equal.min(taken));
            if equal < taken && taken <= equal + count[1] as usize {
                let mut ties = scores.chunk(chunk).filter(|&i| scores.key(i) == threshold);
                // The count says that it is there.
                top.cut = ties.nth(taken - equal - 1).map_or(0, |last| last + 1);
            }
            above += count[0] as usize;
            equal += count[1] as usize;
        }
        top.before.push(k);
        top
    }

    /// Whether an element with this key belongs to the k largest.
    #[inline(always)]
    pub fn holds(&self, key: u32, index: usize) -> bool {
        key > self.threshold || (key == self.threshold && index < self.cut)
    }

    /// Whether a chunk has any of them.
    pub fn reaches(&self, chunk: usize) -> bool {
        self.before[chunk] < self.before[chunk + 1]
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.before.last().copied().unwrap_or(0)
    }

    /// Writes all of them, ascending.
    pub fn write<T: ScoreKey>(&self, cpu: &Cpu, scores: &HostScores<'_, T>, indices: &mut [u32]) {
        let indices = Shared::new(indices);
        for_chunks(cpu, scores, &|_, chunk| {
            if !self.reaches(chunk) {
                return;
            }
            // SAFETY: chunks own the parts between their own counts and the next one's.
            let own = unsafe { indices.slice(self.before[chunk]..self.before[chunk + 1]) };
            let mut own = own.iter_mut();
            scores.for_each_piece(scores.chunk(chunk), |first, piece| {
                for (offset, score) in piece.iter().enumerate() {
                    if !self.holds(score.key(), first + offset) {
                        continue;
                    }
                    if let Some(index) = own.next() {
                        *index = (first + offset) as u32;
                    }
                }
            });
        });
    }
}

/// Calls `job(slot, chunk)` on the pool's threads.
fn for_chunks<T: ScoreKey>(
    cpu: &Cpu,
    scores: &HostScores<'_, T>,
    job: &(impl Fn(usize, usize) + Sync),
) {
    let (slots, chunks) = (cpu.threads(), scores.chunks());
    if slots > 1 && chunks > 1 {
        cpu.enter(|| for_each_chunk(slots, chunks, job));
    } else {
        for_each_chunk(1, chunks, job);
    }
}

/// The k-th largest key, and how many elements with it belong to the k largest.
fn threshold<T: ScoreKey>(cpu: &Cpu, scores: &HostScores<'_, T>, k: usize) -> (u32, usize) {
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

/// How often each digit above `shift` occurs in the keys that begin with `prefix`.
fn histogram<T: ScoreKey>(
    cpu: &Cpu,
    scores: &HostScores<'_, T>,
    prefix: Option<u32>,
    shift: u32,
) -> Vec<u32> {
    const BINS: usize = 1 << DIGIT_BITS;
    let slots = cpu.threads().max(1);
    let mut bins = vec![0; slots * BINS];
    let shared = Shared::new(&mut bins);
    for_chunks(cpu, scores, &|slot, chunk| {
        // SAFETY: no two calls with one slot overlap.
        let bins: &mut [u32] = unsafe { shared.slice(slot * BINS..(slot + 1) * BINS) };
        scores.for_each_piece(scores.chunk(chunk), |_, piece| match prefix {
            None => {
                for score in piece {
                    bins[(score.key() >> shift) as usize % BINS] += 1;
                }
            }
            Some(prefix) => {
                for score in piece {
                    let key = score.key();
                    if key >> DIGIT_BITS >> shift == prefix {
                        bins[(key >> shift) as usize % BINS] += 1;
                    }
                }
            }
        });
    });
    for slot in 1..slots {
        let (sum, other) = bins.split_at_mut(slot * BINS);
        sum.iter_mut().zip(&other[..BINS]).for_each(|(sum, other)| *sum += other);
    }
    bins.truncate(BINS);
    bins
}

/// For each chunk, how many keys are above the threshold and how many are equal to it.
fn chunk_counts<T: ScoreKey>(
    cpu: &Cpu,
    scores: &HostScores<'_, T>,
    threshold: u32,
) -> Vec<[u32; 2]> {
    let mut counts = vec![[0; 2]; scores.chunks()];
    let shared = Shared::new(&mut counts);
    for_chunks(cpu, scores, &|_, chunk| {
        let (mut above, mut equal) = (0, 0);
        scores.for_each_piece(scores.chunk(chunk), |_, piece| {
            for score in piece {
                let key = score.key();
                above += u32::from(key > threshold);
                equal += u32::from(key == threshold);
            }
        });
        // SAFETY: one element a chunk.
        let count = unsafe { shared.slice(chunk..chunk + 1) };
        count[0] = [above, equal];
    });
    counts
}
