//! What is known of a row before anybody walks: which ids it keeps, their mass, the drafted id's.

use bytemuck::{Pod, Zeroable};

use super::super::{FilterOrder, SampledValues, VerifySampled};
use crate::backend::cpu::instructions::{MAX_LANES, Vectors};
use crate::backend::cpu::silu::exp_of_negative;
use crate::ops::early_exit::philox::gumbel_quads;
use crate::ops::prune_gather::selection::ScoreKey;

/// Fraction bits of a mass: the largest weight of a row of logits has the mass `2^31`.
pub(super) const MASS_BITS: i32 = 31;

/// What a row's filters have left of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Profile {
    /// Of what is kept; 0 if there is no distribution.
    pub total: u64,
    /// Keys above it are kept, and its equals of lower ids than `cut`.
    threshold: u32,
    cut: u32,
    /// What has less mass is not kept.
    least: u32,
    /// Of the drafted id, 0 if it is not kept.
    pub drafted: u32,
    /// The largest value.
    max: f32,
    /// The sampled id in mode match, otherwise the likeliest.
    pub token: i32,
}

impl Profile {
    pub fn is_valid(&self) -> bool {
        self.total > 0
    }
}

/// What a sequence asks of its rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filters {
    pub op: VerifySampled,
    pub is_draft: bool,
    pub temperature: f32,
    /// 0: all.
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
}

/// A row.
#[derive(Clone, Copy)]
pub(super) struct RowJob<'a, T> {
    pub values: &'a [T],
    pub filters: Filters,
    pub drafted: Option<i32>,
    /// Seed and position in mode match.
    pub noise: Option<(u64, i32)>,
}

impl<T: ScoreKey> RowJob<'_, T> {
    /// `masses` and `keys` have room for the row.
    #[inline(always)]
    pub fn profile<V: Vectors>(&self, v: V, masses: &mut [u32], keys: &mut [u32]) -> Profile {
        let mut profile = Profile { token: -1, ..Profile::default() };
        keys.iter_mut().zip(self.values).for_each(|(key, value)| *key = value.key());
        let (least, most) =
            keys.iter().fold((u32::MAX, 0), |(least, most), &key| (least.min(key), most.max(key)));
        if !self.has_numbers(least, most) {
            return profile;
        }
        let best = keys.iter().position(|&key| key == most).unwrap_or(0);
        profile.max = self.values[best].to_f32();
        profile.token = best as i32;
        self.fill_masses(v, &profile, masses);
        if !self.is_distribution(&profile, masses) {
            return profile;
        }
        profile.cut = u32::MAX;
        self.filter(&mut profile, masses, keys, best);
        profile.total = masses.iter().map(|&mass| u64::from(mass)).sum();
        let drafted = self.drafted.and_then(|id| masses.get(usize::try_from(id).ok()?));
        profile.drafted = drafted.copied().unwrap_or(0);
        if let Some((seed, position)) = self.noise {
            profile.token = self.sample(&profile, masses, keys, seed, position);
        }
        profile
    }

    fn is_logits(&self) -> bool {
        self.filters.op.values == SampledValues::Logits
    }

    /// Whether there is a largest value, and nothing that no target may have; by keys, which NaN has the least of.
    fn has_numbers(&self, least: u32, most: u32) -> bool {
        let lowest = match self.is_logits() {
            true => T::from_f32(f32::NEG_INFINITY).key(),
            false => T::from_f32(0.0).key(),
        };
        let is_clean =
            self.filters.is_draft || (least > 0 && (self.is_logits() || least >= lowest));
        is_clean && most > lowest && most < T::from_f32(f32::INFINITY).key()
    }

    /// The power of two that brings the largest probability between 1/2 and 1, so that none loses digits.
    fn scale(max: f32) -> f32 {
        // Denormal maxima are those of rows whose sum is off anyway.
        let exponent = (max.to_bits() >> 23).clamp(27, 127);
        f32::from_bits((253 - exponent) << 23)
    }

    /// Masses before the filters.
    #[inline(always)]
    pub fn fill_masses<V: Vectors>(&self, v: V, profile: &Profile, masses: &mut [u32]) {
        let max = v.splat(profile.max);
        let temperature = v.splat(self.filters.temperature);
        let scale = v.splat(Self::scale(profile.max));
        let zero = v.splat(0.0);
        let unit = v.splat(2f32.powi(MASS_BITS));
        for (values, masses) in self.values.chunks(V::LANES).zip(masses.chunks_mut(V::LANES)) {
            let value = v.load_slice(values);
            let weight = if self.is_logits() {
                let below = v.sub(value, max);
                // Divided by the least of temperatures, 0 must stay 0.
                let exponent = v.select_less(below, zero, v.div(below, temperature), below);
                exp_of_negative(v, exponent)
            } else {
                v.mul(value, scale)
            };
            let mut weights = [0f32; MAX_LANES];
            v.store_slice(v.mul(weight, unit), &mut weights[..V::LANES]);
            // NaN and what is negative become 0.
            masses.iter_mut().zip(weights).for_each(|(mass, weight)| *mass = (weight + 0.5) as u32);
        }
    }

    /// Whether probabilities add up to 1.
    fn is_distribution(&self, profile: &Profile, masses: &[u32]) -> bool {
        if self.is_logits() {
            return true;
        }
        let total: u64 = masses.iter().map(|&mass| u64::from(mass)).sum();
        let sum = total as f64 / f64::from(Self::scale(profile.max)) * 2f64.powi(-MASS_BITS);
        (sum - 1.0).abs() <= f64::from(self.filters.op.sum_tolerance())
    }

    /// Finds what is kept and takes the mass of everything else.
    fn filter(&self, profile: &mut Profile, masses: &mut [u32], keys: &mut [u32], best: usize) {
        let filters = &self.filters;
        if filters.is_draft && !self.is_logits() {
            return;
        }
        profile.least = (f64::from(filters.min_p) * f64::from(masses[best])).ceil() as u32;
        if filters.top_p < 1.0 {
            let sequential = filters.op.filter == FilterOrder::Sequential;
            let of_k = if sequential { self.largest(keys) } else { (0, u32::MAX) };
            (profile.threshold, profile.cut) = nucleus::<T>(filters.top_p, masses, keys, of_k);
        }
        // Restores the keys, which the search for the k-th leaves in another order.
        let (threshold, cut) = self.largest(keys);
        let is_stricter =
            threshold > profile.threshold || (threshold == profile.threshold && cut < profile.cut);
        if is_stricter {
            (profile.threshold, profile.cut) = (threshold, cut);
        }
        self.apply(profile, masses, keys);
    }

    /// Takes the mass of what is not kept; `keys` are the row's.
    #[inline(always)]
    fn apply(&self, profile: &Profile, masses: &mut [u32], keys: &[u32]) {
        for (id, (mass, &key)) in masses.iter_mut().zip(keys).enumerate() {
            if !profile.keeps(key, id, *mass) {
                *mass = 0;
            }
        }
    }

    /// The masses of a row whose profile is known.
    #[inline(always)]
    pub fn kept_masses<V: Vectors>(&self, v: V, profile: &Profile, masses: &mut [u32]) {
        self.fill_masses(v, profile, masses);
        for (id, (mass, value)) in masses.iter_mut().zip(self.values).enumerate() {
            if !profile.keeps(value.key(), id, *mass) {
                *mass = 0;
            }
        }
    }

    /// Threshold and cut of the k largest; `keys` are the row's before and after.
    fn largest(&self, keys: &mut [u32]) -> (u32, u32) {
        let k = self.filters.top_k;
        if k == 0 || k >= keys.len() {
            return (0, u32::MAX);
        }
        let (_, &mut threshold, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        keys.iter_mut().zip(self.values).for_each(|(key, value)| *key = value.key());
        let mut equals = k - keys.iter().filter(|&&key| key > threshold).count();
        let last = keys.iter().position(|&key| {
            equals -= usize::from(key == threshold);
            equals == 0
        });
        (threshold, last.map_or(u32::MAX, |last| last as u32 + 1))
    }

    /// The id of the largest `logit / temperature + noise`.
    #[inline(always)]
    fn sample(
        &self,
        profile: &Profile,
        masses: &[u32],
        keys: &[u32],
        seed: u64,
        position: i32,
    ) -> i32 {
        const QUADS: usize = 32;
        const TILE: usize = 4 * QUADS;
        let inv_temperature = 1.0 / self.filters.temperature;
        let (mut best, mut token) = (f32::NEG_INFINITY, -1);
        for (tile, values) in self.values.chunks(TILE).enumerate() {
            let noise = gumbel_quads::<QUADS>(seed, position, (tile * QUADS) as u32);
            for (index, value) in values.iter().enumerate() {
                let id = tile * TILE + index;
                let score = value.to_f32() * inv_temperature + noise[index % 4][index / 4];
                if score > best && profile.keeps(keys[id], id, masses[id]) {
                    (best, token) = (score, id as i32);
                }
            }
        }
        token
    }
}

impl Profile {
    #[inline(always)]
    fn keeps(&self, key: u32, id: usize, mass: u32) -> bool {
        let is_inside =
            (key > self.threshold) | ((key == self.threshold) & ((id as u32) < self.cut));
        is_inside & (mass >= self.least)
    }
}

/// Threshold and cut of the shortest beginning, by descending keys and then by ids, whose mass reaches `top_p` of what
/// `domain`, another threshold and cut, has.
#[inline(always)]
fn nucleus<T: ScoreKey>(
    top_p: f32,
    masses: &[u32],
    keys: &[u32],
    domain: (u32, u32),
) -> (u32, u32) {
    const DIGIT_BITS: u32 = 11;
    let in_domain =
        |key: u32, id: usize| key > domain.0 || (key == domain.0 && (id as u32) < domain.1);
    let (mut prefix, mut left) = (0u32, T::KEY_BITS);
    let mut wanted = None;
    while left > 0 {
        let width = left.min(DIGIT_BITS);
        let shift = left - width;
        let mut bins = [0u64; 1 << DIGIT_BITS];
        for (id, (&key, &mass)) in keys.iter().zip(masses).enumerate() {
            if u64::from(key) >> left == u64::from(prefix) && in_domain(key, id) {
                bins[(key >> shift & ((1 << width) - 1)) as usize] += u64::from(mass);
            }
        }
        let mut rest = *wanted.get_or_insert_with(|| share(top_p, bins.iter().sum()));
        let mut digit = (1 << width) - 1;
        while digit > 0 && bins[digit] < rest {
            rest -= bins[digit];
            digit -= 1;
        }
        wanted = Some(rest);
        prefix = prefix << width | digit as u32;
        left = shift;
    }
    let mut rest = wanted.unwrap_or(0);
    let last = keys.iter().zip(masses).enumerate().position(|(id, (&key, &mass))| {
        if key == prefix && in_domain(key, id) {
            rest = rest.saturating_sub(u64::from(mass));
            return rest == 0;
        }
        false
    });
    (prefix, last.map_or(u32::MAX, |last| last as u32 + 1))
}

/// `top_p` of a mass, rounded up; at least 1. `top_p` counts in units of `2^-32`.
fn share(top_p: f32, total: u64) -> u64 {
    let parts = (f64::from(top_p) * 2f64.powi(32)).round() as u128;
    ((parts * u128::from(total)).div_ceil(1 << 32) as u64).max(1)
}
