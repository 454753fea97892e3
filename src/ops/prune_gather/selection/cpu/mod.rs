//! The k largest scores on the CPU: a few passes over chunks that the threads share.
#![allow(unsafe_code, reason = "threads write disjoint parts of the indices")]

mod passes;
mod threshold;

use super::host_scores::{HostScores, ScoreKey};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::pieces::ChunkWork;
use passes::chunk_counts;
use threshold::threshold;

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
        let work = Write { top: self, scores: *scores, indices: Shared::new(indices) };
        cpu.run_chunks(scores.chunks(), work);
    }
}

#[derive(Clone, Copy)]
struct Write<'a, T> {
    top: &'a Top,
    scores: HostScores<'a, T>,
    indices: Shared<'a, u32>,
}

impl<T: ScoreKey> ChunkWork for Write<'_, T> {
    #[inline(always)]
    fn run<V: Vectors>(&self, _v: V, _slot: usize, chunk: usize) {
        /// Scores that are looked at together: most groups may have none.
        const GROUP: usize = 64;
        let Write { top, scores, indices } = *self;
        if !top.reaches(chunk) {
            return;
        }
        // SAFETY: chunks own the parts between their own counts and the next one's.
        let own = unsafe { indices.slice(top.before[chunk]..top.before[chunk + 1]) };
        let mut own = own.iter_mut();
        scores.for_each_piece(scores.chunk(chunk), |first, piece| {
            for (group, scores) in piece.chunks(GROUP).enumerate() {
                if !scores.iter().fold(false, |any, score| any | (score.key() >= top.threshold)) {
                    continue;
                }
                for (offset, score) in scores.iter().enumerate() {
                    let index = first + group * GROUP + offset;
                    if !top.holds(score.key(), index) {
                        continue;
                    }
                    if let Some(place) = own.next() {
                        *place = index as u32;
                    }
                }
            }
        });
    }
}
