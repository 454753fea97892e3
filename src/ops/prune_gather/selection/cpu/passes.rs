//! Passes over all scores, compiled for every instruction set: each reads memory once.
#![allow(unsafe_code, reason = "threads write disjoint parts of counts and lists")]

use std::ops::RangeInclusive;

use crate::backend::cpu::Cpu;
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::pieces::ChunkWork;
use crate::ops::prune_gather::selection::host_scores::{HostScores, ScoreKey};

/// Bits of a key that one pass over the scores decides: their counts fit a core's second-level cache.
pub(super) const DIGIT_BITS: u32 = 16;
const BINS: usize = 1 << DIGIT_BITS;

/// How often each digit above `shift` occurs in the keys that begin with `prefix`.
pub(super) fn histogram<T: ScoreKey>(
    cpu: &Cpu,
    scores: &HostScores<'_, T>,
    prefix: Option<u32>,
    shift: u32,
) -> Vec<u32> {
    let slots = cpu.threads().max(1);
    let mut bins = vec![0; slots * BINS];
    let work = Histogram { scores: *scores, prefix, shift, bins: Shared::new(&mut bins) };
    cpu.run_chunks(scores.chunks(), work);
    for slot in 1..slots {
        let (sum, other) = bins.split_at_mut(slot * BINS);
        sum.iter_mut().zip(&other[..BINS]).for_each(|(sum, other)| *sum += other);
    }
    bins.truncate(BINS);
    bins
}

#[derive(Clone, Copy)]
struct Histogram<'a, T> {
    scores: HostScores<'a, T>,
    prefix: Option<u32>,
    shift: u32,
    bins: Shared<'a, u32>,
}

impl<T: ScoreKey> ChunkWork for Histogram<'_, T> {
    #[inline(always)]
    fn run<V: Vectors>(&self, _v: V, slot: usize, chunk: usize) {
        let Histogram { scores, prefix, shift, bins } = *self;
        // SAFETY: no two calls with one slot overlap.
        let bins: &mut [u32] = unsafe { bins.slice(slot * BINS..(slot + 1) * BINS) };
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
    }
}

/// For each chunk, how many keys are above the threshold and how many are equal to it.
pub(super) fn chunk_counts<T: ScoreKey>(
    cpu: &Cpu,
    scores: &HostScores<'_, T>,
    threshold: u32,
) -> Vec<[u32; 2]> {
    let mut counts = vec![[0; 2]; scores.chunks()];
    let work = Count { scores: *scores, threshold, counts: Shared::new(&mut counts) };
    cpu.run_chunks(scores.chunks(), work);
    counts
}

#[derive(Clone, Copy)]
struct Count<'a, T> {
    scores: HostScores<'a, T>,
    threshold: u32,
    counts: Shared<'a, [u32; 2]>,
}

impl<T: ScoreKey> ChunkWork for Count<'_, T> {
    #[inline(always)]
    fn run<V: Vectors>(&self, _v: V, _slot: usize, chunk: usize) {
        let Count { scores, threshold, counts } = *self;
        let (mut above, mut equal) = (0, 0);
        scores.for_each_piece(scores.chunk(chunk), |_, piece| {
            for score in piece {
                let key = score.key();
                above += u32::from(key > threshold);
                equal += u32::from(key == threshold);
            }
        });
        // SAFETY: one element a chunk.
        let count = unsafe { counts.slice(chunk..chunk + 1) };
        count[0] = [above, equal];
    }
}

/// What [`collect`] found.
#[derive(Clone, Debug, Default)]
pub(super) struct Collected {
    /// How many keys lie above the range.
    pub above: usize,
    /// The keys inside, in no order.
    pub inside: Vec<u32>,
    /// Whether there were more of them than wanted; `inside` then lacks some.
    pub overflowed: bool,
}

/// The keys inside a range, `most` a thread or a chunk more.
pub(super) fn collect<T: ScoreKey>(
    cpu: &Cpu,
    scores: &HostScores<'_, T>,
    range: RangeInclusive<u32>,
    most: usize,
) -> Collected {
    let mut slots = vec![Collected::default(); cpu.threads().max(1)];
    let (low, high) = range.into_inner();
    let work = Collect { scores: *scores, low, high, most, slots: Shared::new(&mut slots) };
    cpu.run_chunks(scores.chunks(), work);
    let mut all = slots.swap_remove(0);
    for slot in slots {
        all.above += slot.above;
        all.inside.extend(slot.inside);
        all.overflowed |= slot.overflowed;
    }
    all
}

#[derive(Clone, Copy)]
struct Collect<'a, T> {
    scores: HostScores<'a, T>,
    low: u32,
    high: u32,
    most: usize,
    slots: Shared<'a, Collected>,
}

impl<T: ScoreKey> ChunkWork for Collect<'_, T> {
    #[inline(always)]
    fn run<V: Vectors>(&self, _v: V, slot: usize, chunk: usize) {
        /// Scores that are looked at together: most groups have none inside the range.
        const GROUP: usize = 64;
        let Collect { scores, low, high, most, slots } = *self;
        // SAFETY: no two calls with one slot overlap.
        let [own] = (unsafe { slots.slice(slot..slot + 1) }) else { return };
        if own.inside.len() > most {
            own.overflowed = true;
            return;
        }
        let mut above = 0;
        scores.for_each_piece(scores.chunk(chunk), |_, piece| {
            for group in piece.chunks(GROUP) {
                let mut inside = 0;
                for score in group {
                    let key = score.key();
                    above += u32::from(key > high);
                    inside += u32::from(key >= low && key <= high);
                }
                if inside == 0 {
                    continue;
                }
                let (mut found, mut length) = ([0; GROUP], 0);
                for score in group {
                    let key = score.key();
                    // Without a branch: what is not inside is overwritten by the next one.
                    found[length] = key;
                    length += usize::from(key >= low && key <= high);
                }
                own.inside.extend_from_slice(&found[..length]);
            }
        });
        own.above += above as usize;
    }
}
