//! From a row's sums to the state of each tile.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use std::ops::Range;

use super::StatesMut;
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::{Leaf, MAX_LANES, Vectors};
use crate::backend::cpu::silu::exp_of_negative;
use crate::ops::early_exit::config::HeadConfig;
use crate::ops::early_exit::merge_exit_states::cpu::insert;
use crate::ops::early_exit::philox::gumbel_quads;
use crate::ops::early_exit::state::{token, value};
use crate::ops::early_exit::{MAX_TOP_K, VOCABULARY_TILE};

/// Where logits and states go.
pub(super) struct Tile<'a> {
    pub op: &'a HeadConfig,
    pub bias: Option<FloatRows<'a>>,
    pub logits: Option<FloatRowsMut<'a>>,
    pub values: StatesMut<'a, f32>,
    pub tokens: StatesMut<'a, i32>,
}

/// What is known of a row of the outputs.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub index: usize,
    /// Whether it is a row of `hidden`.
    pub is_selected: bool,
    pub position: Option<i32>,
    /// Of its noise.
    pub seed: u64,
    pub gather: Option<i32>,
}

/// The states of the tiles that `ids`, rows of the weight, are made of.
pub(super) struct Summarise<'a, V> {
    pub v: V,
    pub tile: &'a Tile<'a>,
    pub row: Row,
    pub ids: Range<usize>,
    pub sums: &'a [f32],
}

impl<V: Vectors> Leaf for Summarise<'_, V> {
    #[inline(always)]
    fn run(self) {
        let Summarise { v, tile, row, ids, sums } = self;
        for (index, sums) in sums.chunks(VOCABULARY_TILE).enumerate() {
            let first = ids.start + index * VOCABULARY_TILE;
            let mut finished = [f32::NEG_INFINITY; VOCABULARY_TILE];
            let logits = match <&[f32; VOCABULARY_TILE]>::try_from(sums) {
                Ok(sums) if row.is_selected && tile.is_plain(first) => sums,
                _ if row.is_selected => {
                    tile.logits(v, first, sums, &mut finished);
                    &finished
                }
                _ => {
                    finished[..sums.len()].fill(f32::NAN);
                    &finished
                }
            };
            if let Some(output) = tile.logits {
                for at in (0..sums.len()).step_by(V::LANES) {
                    let vector = v.load_slice(&logits[at..]);
                    // SAFETY: this chunk's columns of this row.
                    unsafe { output.store(v, vector, row.index, first + at, sums.len() - at) };
                }
            }
            let number = first / VOCABULARY_TILE;
            // SAFETY: this chunk's tiles of this row.
            let (values, tokens) =
                unsafe { (tile.values.row(number, row.index), tile.tokens.row(number, row.index)) };
            tile.summarise(v, first, logits, row, (values, tokens));
        }
    }
}

impl Tile<'_> {
    /// Whether sums of the tile from `first` on are logits as they are.
    #[inline(always)]
    fn is_plain(&self, first: usize) -> bool {
        self.bias.is_none()
            && self.op.softcap().is_none()
            && first + VOCABULARY_TILE <= self.op.valid_rows()
    }

    /// Bias, cap and mask.
    #[inline(always)]
    fn logits<V: Vectors>(
        &self,
        v: V,
        first: usize,
        sums: &[f32],
        logits: &mut [f32; VOCABULARY_TILE],
    ) {
        let valid = sums.len().min(self.op.valid_rows().saturating_sub(first));
        for at in (0..valid).step_by(V::LANES) {
            let end = valid.min(at + V::LANES);
            let mut vector = v.load_slice(&sums[at..end]);
            if let Some(bias) = self.bias {
                vector = v.add(vector, bias.load(v, 0, first + at));
            }
            if let Some(cap) = self.op.softcap() {
                vector = soften(v, vector, cap);
            }
            v.store_slice(vector, &mut logits[at..end]);
        }
    }

    #[inline(always)]
    fn summarise<V: Vectors>(
        &self,
        v: V,
        first: usize,
        logits: &[f32; VOCABULARY_TILE],
        row: Row,
        (values, tokens): (&mut [f32], &mut [i32]),
    ) {
        let id = |index: usize| (self.op.vocab_offset + first + index) as i32;
        let [max, second] = two_largest(v, logits);
        let [sum, weighted] = sums_below(v, logits, max);
        if sum.is_nan() || !row.is_selected {
            values.fill(f32::NAN);
            tokens.fill(-1);
            return;
        }
        values.fill(f32::NEG_INFINITY);
        tokens.fill(-1);
        values[value::MAX] = max;
        values[value::SECOND] = second;
        values[value::SUM] = sum;
        values[value::WEIGHTED] = weighted;
        if max == f32::NEG_INFINITY {
            return;
        }
        tokens[token::MAX] = first_of(logits, max).map_or(-1, id);
        if let Some(gather) = row.gather {
            let index = i64::from(gather) - (self.op.vocab_offset + first) as i64;
            let logit = usize::try_from(index).ok().and_then(|index| logits.get(index));
            values[value::GATHERED] = logit.copied().unwrap_or(f32::NEG_INFINITY);
        }
        if let Some(position) = row.position {
            let (score, index) = self.sample(first, logits, row.seed, position);
            values[value::SCORE] = score;
            tokens[token::SAMPLED] = index.map_or(-1, id);
        }
        let (logits_listed, ids_listed) =
            (&mut values[value::COUNT..], &mut tokens[token::COUNT..]);
        list(logits, self.op.top_k, |place, index| {
            logits_listed[place] = logits[index];
            ids_listed[place] = id(index);
        });
    }

    /// The best score, and whose it is.
    #[inline(always)]
    fn sample(
        &self,
        first: usize,
        logits: &[f32; VOCABULARY_TILE],
        seed: u64,
        position: i32,
    ) -> (f32, Option<usize>) {
        const QUADS: usize = VOCABULARY_TILE / 4;
        let quad = ((self.op.vocab_offset + first) / 4) as u32;
        let noise = gumbel_quads::<QUADS>(seed, position, quad);
        let inv_temperature = self.op.inv_temperature();
        let mut scores = [f32::NEG_INFINITY; VOCABULARY_TILE];
        for (index, (score, &logit)) in scores.iter_mut().zip(logits).enumerate() {
            if logit > f32::NEG_INFINITY {
                *score = logit * inv_temperature + noise[index % 4][index / 4];
            }
        }
        let best = scores.iter().copied().fold(f32::NEG_INFINITY, larger);
        (best, first_of(&scores, best).filter(|_| best > f32::NEG_INFINITY))
    }
}

/// `cap * tanh(x / cap)`.
#[inline(always)]
fn soften<V: Vectors>(v: V, x: V::Vector, cap: f32) -> V::Vector {
    let size = v.div(v.abs(x), v.splat(cap));
    let e = exp_of_negative(v, v.mul(size, v.splat(-2.0)));
    let one = v.splat(1.0);
    let tanh = v.mul(v.splat(cap), v.div(v.sub(one, e), v.add(one, e)));
    v.select_less(x, v.splat(0.0), v.sub(v.splat(0.0), tanh), tanh)
}

/// The larger of two numbers that are not NaN; `f32::max` takes care of more.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The lowest index of this number.
#[inline(always)]
fn first_of(numbers: &[f32; VOCABULARY_TILE], number: f32) -> Option<usize> {
    let (chunks, _) = numbers.as_chunks::<MAX_LANES>();
    // Whole vectors first, without a branch for each number.
    let holds = |chunk: &[f32; MAX_LANES]| {
        chunk.iter().fold(false, |found, &candidate| found | (candidate == number))
    };
    let chunk = chunks.iter().position(holds)?;
    let place = chunks[chunk].iter().position(|&candidate| candidate == number)?;
    Some(chunk * MAX_LANES + place)
}

/// The largest logit and the second largest. NaN is passed over.
#[inline(always)]
fn two_largest<V: Vectors>(v: V, logits: &[f32; VOCABULARY_TILE]) -> [f32; 2] {
    let lowest = v.splat(f32::NEG_INFINITY);
    let (mut max, mut second) = (lowest, lowest);
    for at in (0..VOCABULARY_TILE).step_by(V::LANES) {
        let x = v.load_slice(&logits[at..at + V::LANES]);
        let beaten = v.select_less(max, x, max, x);
        second = v.select_less(second, beaten, beaten, second);
        max = v.select_less(max, x, x, max);
    }
    let (mut first, mut next) = ([f32::NEG_INFINITY; MAX_LANES], [f32::NEG_INFINITY; MAX_LANES]);
    v.store_slice(max, &mut first[..V::LANES]);
    v.store_slice(second, &mut next[..V::LANES]);
    let mut lanes = MAX_LANES;
    while lanes > 1 {
        lanes /= 2;
        for lane in 0..lanes {
            let (a, b) = (first[lane], first[lane + lanes]);
            let beaten = if a > b { b } else { a };
            next[lane] = larger(larger(next[lane], next[lane + lanes]), beaten);
            first[lane] = larger(a, b);
        }
    }
    [first[0], next[0]]
}

/// `sum exp(x - max)` and `sum (x - max) exp(x - max)`; NaN if a logit is NaN or `+inf`.
#[inline(always)]
fn sums_below<V: Vectors>(v: V, logits: &[f32; VOCABULARY_TILE], max: f32) -> [f32; 2] {
    /// Behind the last difference whose exponential is not 0, so that `-inf` gives `-88 * 0`.
    const LOWEST: f32 = -88.0;
    let base = v.splat(if max == f32::NEG_INFINITY { 0.0 } else { max });
    let (zero, lowest) = (v.splat(0.0), v.splat(LOWEST));
    let (mut sums, mut weighted) = (zero, zero);
    for at in (0..VOCABULARY_TILE).step_by(V::LANES) {
        let below = v.sub(v.load_slice(&logits[at..at + V::LANES]), base);
        let below = v.select_less(below, lowest, lowest, below);
        let e = exp_of_negative(v, below);
        sums = v.add(sums, e);
        weighted = v.mul_add(below, e, weighted);
    }
    let [sum, weighted, ..] = v.sum_lanes([sums, weighted, zero, zero]);
    [sum, weighted]
}

/// Calls `put(place, index)` for the `top_k` largest logits, descending, of equal ones the lowest index first.
fn list(logits: &[f32; VOCABULARY_TILE], top_k: usize, mut put: impl FnMut(usize, usize)) {
    if top_k == 0 {
        return;
    }
    let mut best = Vec::with_capacity(MAX_TOP_K);
    for (index, &logit) in logits.iter().enumerate() {
        if logit > f32::NEG_INFINITY {
            insert(&mut best, top_k, logit, index as i32);
        }
    }
    for (place, &(_, index)) in best.iter().enumerate() {
        put(place, index as usize);
    }
}
