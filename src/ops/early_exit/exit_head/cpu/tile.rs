//! From a row's sums to the state of each tile.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use std::ops::Range;

use super::StatesMut;
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::{Leaf, MAX_LANES, Vectors};
use crate::backend::cpu::silu::exp_of_negative;
use crate::ops::early_exit::config::HeadConfig;
use crate::ops::early_exit::merge_exit_states::cpu::insert;
use crate::ops::early_exit::philox::{MAX_GUMBEL, Purpose, gumbel, token_bits};
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
            let mut logits = [f32::NEG_INFINITY; VOCABULARY_TILE];
            tile.logits(v, first, sums, &mut logits);
            if !row.is_selected {
                logits[..sums.len()].fill(f32::NAN);
            }
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
            tile.summarise(v, first, &logits, row, (values, tokens));
        }
    }
}

impl Tile<'_> {
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
        let (index, max, second) = two_largest(v, logits);
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
        tokens[token::MAX] = id(index);
        if let Some(gather) = row.gather {
            let index = i64::from(gather) - (self.op.vocab_offset + first) as i64;
            let logit = usize::try_from(index).ok().and_then(|index| logits.get(index));
            values[value::GATHERED] = logit.copied().unwrap_or(f32::NEG_INFINITY);
        }
        if let Some(position) = row.position {
            let (score, index) = self.sample(first, logits, position);
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
    fn sample(
        &self,
        first: usize,
        logits: &[f32; VOCABULARY_TILE],
        position: i32,
    ) -> (f32, Option<usize>) {
        let inv_temperature = self.op.inv_temperature();
        let (mut best, mut winner) = (f32::NEG_INFINITY, None);
        for (quad, logits) in logits.chunks_exact(4).enumerate() {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // No noise could make up for it. (Written so that a masked quad does not pass, either.)
            if !(largest > f32::NEG_INFINITY && largest * inv_temperature + MAX_GUMBEL > best) {
                continue;
            }
            let counter = ((self.op.vocab_offset + first) / 4 + quad) as u32;
            let bits = token_bits(self.op.seed, position, counter, Purpose::Token);
            for (lane, &logit) in logits.iter().enumerate() {
                let score = logit * inv_temperature + gumbel(bits[lane]);
                if logit > f32::NEG_INFINITY && score > best {
                    (best, winner) = (score, Some(4 * quad + lane));
                }
            }
        }
        (best, winner)
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

/// The lowest index of the largest logit, that logit, and the second largest. NaN is passed over.
#[inline(always)]
fn two_largest<V: Vectors>(v: V, logits: &[f32; VOCABULARY_TILE]) -> (usize, f32, f32) {
    let lowest = v.splat(f32::NEG_INFINITY);
    let (mut max, mut second, mut place) = (lowest, lowest, v.splat(0.0));
    for at in (0..VOCABULARY_TILE).step_by(V::LANES) {
        let x = v.load_slice(&logits[at..at + V::LANES]);
        let larger = v.select_less(second, x, x, second);
        second = v.select_less(max, x, max, larger);
        place = v.select_less(max, x, v.splat(at as f32), place);
        max = v.select_less(max, x, x, max);
    }
    let mut lanes = [[0f32; MAX_LANES]; 3];
    for (lanes, vector) in lanes.iter_mut().zip([max, second, place]) {
        v.store_slice(vector, &mut lanes[..V::LANES]);
    }
    let (mut index, mut best, mut next) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    for lane in 0..V::LANES {
        let (max, candidate) = (lanes[0][lane], lane + lanes[2][lane] as usize);
        next = next.max(lanes[1][lane]).max(best.min(max));
        if max > best || (max == best && candidate < index) {
            (best, index) = (max, candidate);
        }
    }
    (index, best, next)
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
