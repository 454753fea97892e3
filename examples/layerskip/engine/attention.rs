//! Rotary positions and causal attention over a cache: no operation of siluette, and the same for both engines.
//!
//! Each row is attended for on its own, so that its result does not depend on which rows come with it: otherwise
//! drafts that are verified together could differ in a bit from tokens that come one by one.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::config::Config;

/// Keys and values of a layer.
pub struct Cache {
    /// `[key-value heads, head, capacity]`, so that the scores of neighbouring positions are summed side by side.
    keys: Vec<f32>,
    /// `[key-value heads, capacity, head]`.
    values: Vec<f32>,
    capacity: usize,
}

impl Cache {
    pub fn new(config: &Config, capacity: usize) -> Cache {
        let elements = config.key_value_heads * capacity * config.head;
        Cache { keys: vec![0.0; elements], values: vec![0.0; elements], capacity }
    }
}

/// Cosines and sines of every position, `[capacity, head / 2]`.
pub struct Rotation {
    cosines: Vec<f32>,
    sines: Vec<f32>,
    half: usize,
}

impl Rotation {
    pub fn new(config: &Config, capacity: usize) -> Rotation {
        let half = config.head / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| scaled(config, config.rope_theta.powf(-(i as f32) / half as f32)))
            .collect();
        let angles = || {
            (0..capacity).flat_map(|position| {
                frequencies.iter().map(move |frequency| position as f32 * frequency)
            })
        };
        let cosines = angles().map(f32::cos).collect();
        Rotation { cosines, sines: angles().map(f32::sin).collect(), half }
    }

    /// Turns the first half of a head's features against the second, as Hugging Face lays them out.
    fn apply(&self, position: usize, head: &mut [f32]) {
        let at = position * self.half;
        let (first, second) = head.split_at_mut(self.half);
        for i in 0..self.half {
            let (cosine, sine) = (self.cosines[at + i], self.sines[at + i]);
            let (a, b) = (first[i], second[i]);
            first[i] = a * cosine - b * sine;
            second[i] = b * cosine + a * sine;
        }
    }
}

/// Llama 3's rule: long waves are stretched, short ones kept, those between blended.
fn scaled(config: &Config, frequency: f32) -> f32 {
    let Some(scaling) = config.rope_scaling else { return frequency };
    let waves = scaling.former_context * frequency / std::f32::consts::TAU;
    let (low, high) = (scaling.low_frequency_factor, scaling.high_frequency_factor);
    let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
    frequency * (kept + (1.0 - kept) / scaling.factor)
}

/// Attends for rows `[rows, (heads + 2 key-value heads) head]` of queries, keys and values at consecutive positions from
/// `first` on; their keys and values go into the cache. The result is `[rows, heads head]`.
pub fn attend(
    config: &Config,
    rotation: &Rotation,
    cache: &mut Cache,
    first: usize,
    mut mixed: Vec<f32>,
) -> Vec<f32> {
    let (head, queries) = (config.head, config.heads * config.head);
    let width = queries + 2 * config.key_value_heads * head;
    for (row, mixed) in mixed.chunks_exact_mut(width).enumerate() {
        let position = first + row;
        let (rotated, values) = mixed.split_at_mut(queries + config.key_value_heads * head);
        rotated.chunks_exact_mut(head).for_each(|head| rotation.apply(position, head));
        let keys = rotated[queries..].chunks_exact(head);
        for (index, (key, value)) in keys.zip(values.chunks_exact(head)).enumerate() {
            let start = index * cache.capacity * head;
            for (feature, key) in key.iter().enumerate() {
                cache.keys[start + feature * cache.capacity + position] = *key;
            }
            cache.values[start + position * head..][..head].copy_from_slice(value);
        }
    }
    let rows = mixed.len() / width;
    let mut out = vec![0.0; rows * queries];
    let (cache, arch) = (&*cache, Arch::new());
    let one = |(index, out): (usize, &mut [f32])| {
        let (row, number) = (index / config.heads, index % config.heads);
        let query = &mixed[row * width + number * head..][..head];
        let shared = number / (config.heads / config.key_value_heads);
        let start = shared * cache.capacity * head;
        let (keys, values) = (&cache.keys[start..], &cache.values[start..]);
        let (capacity, length) = (cache.capacity, first + row + 1);
        arch.dispatch(AttendHead { query, keys, capacity, values, length, out });
    };
    // Heads of a few tokens are done before threads would have woken.
    const WORTH_THREADS: usize = 1 << 18;
    if rows * queries * (first + rows) < WORTH_THREADS {
        out.chunks_exact_mut(head).enumerate().for_each(one);
    } else {
        out.par_chunks_exact_mut(head).enumerate().for_each(one);
    }
    out
}

/// A head's attention to the first positions, with the vectors that the processor has.
struct AttendHead<'a> {
    query: &'a [f32],
    /// `[head, capacity]`.
    keys: &'a [f32],
    capacity: usize,
    /// `[capacity, head]`.
    values: &'a [f32],
    length: usize,
    out: &'a mut [f32],
}

impl WithSimd for AttendHead<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let AttendHead { query, keys, capacity, values, length, out } = self;
        let mut weights = vec![0.0; length];
        for (feature, query) in query.iter().enumerate() {
            let keys = &keys[feature * capacity..][..length];
            for (score, key) in weights.iter_mut().zip(keys) {
                *score += query * key;
            }
        }
        softmax(&mut weights, 1.0 / (query.len() as f32).sqrt());
        let head = out.len();
        for (index, out) in out.chunks_mut(LANES).enumerate() {
            let values = &values[index * LANES..];
            match <&mut [f32; LANES]>::try_from(&mut *out) {
                Ok(out) => weighted_sum(&weights, values, head, out),
                Err(_) => {
                    for (weight, value) in weights.iter().zip(values.chunks(head)) {
                        for (out, value) in out.iter_mut().zip(value) {
                            *out += weight * value;
                        }
                    }
                }
            }
        }
    }
}

/// What is added up side by side.
const LANES: usize = 32;

/// To a part of the features, `stride` values apart from one position to the next.
#[inline(always)]
fn weighted_sum(weights: &[f32], values: &[f32], stride: usize, out: &mut [f32; LANES]) {
    let mut sums = [0.0; LANES];
    for (position, weight) in weights.iter().enumerate() {
        let value = &values[position * stride..][..LANES];
        for lane in 0..LANES {
            sums[lane] += weight * value[lane];
        }
    }
    *out = sums;
}

#[inline(always)]
fn softmax(scores: &mut [f32], scale: f32) {
    let mut largest = f32::NEG_INFINITY;
    for score in scores.iter() {
        largest = if *score > largest { *score } else { largest };
    }
    let mut totals = [0.0; 8];
    for scores in scores.chunks_mut(totals.len()) {
        for (score, total) in scores.iter_mut().zip(&mut totals) {
            *score = exp((*score - largest) * scale);
            *total += *score;
        }
    }
    let mut total = 0.0;
    for part in totals {
        total += part;
    }
    for score in scores.iter_mut() {
        *score /= total;
    }
}

/// e^x for x of at most 0, within 2 units in the last place; a vector at a time, unlike the library's.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 2^n (1 + r + r^2 / 2! + ...) with r within half of ln 2; below -87, where f32 ends, as at -87.
    let x = x.max(-87.0);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut sum = 1.0 / 720.0;
    for term in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + term;
    }
    sum * f32::from_bits(((n as i32 + 127) << 23) as u32)
}
