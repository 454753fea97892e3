//! Numbers that are the same on every machine.

use super::Fill;
use crate::dtype::DType;
use crate::layout::Layout;
use crate::ops::early_exit::VOCABULARY_TILE;
use crate::ops::early_exit::state::{token, value};

/// A seed from names (FNV-1a), so that adding a case changes no other.
pub(super) fn seed(names: &[&str]) -> u64 {
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0xFF]));
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// The values of a tensor of this layout, or more.
pub(super) fn values(seed: u64, fill: Fill, layout: &Layout) -> Box<dyn Iterator<Item = f64>> {
    let normal = repeated(Normal::new(seed));
    match fill {
        Fill::Normal { scale } => Box::new(normal.map(move |value| value * scale)),
        Fill::AroundOne { scale } => Box::new(normal.map(move |value| 1.0 + value * scale)),
        Fill::Outliers { scale } => Box::new(normal.enumerate().map(move |(index, value)| {
            let outlier = index % 64 == 17;
            value * scale * if outlier { 1e3 } else { 1.0 }
        })),
        Fill::Extremes => Box::new(extremes(layout.dtype()).into_iter().cycle()),
        Fill::Ascending { below } => Box::new(
            ascending(seed, layout.elements(), below).into_iter().map(|index| index as f64),
        ),
        Fill::Rank { count, .. } => {
            let mut rank = vec![-1.0; layout.elements()];
            for (place, index) in ascending(seed, count, rank.len()).into_iter().enumerate() {
                rank[index] = place as f64;
            }
            Box::new(rank.into_iter())
        }
        Fill::Steps { step } => {
            let mut uniform = Normal::new(seed);
            Box::new(std::iter::from_fn(move || {
                Some(((uniform.uniform() * 5.0).floor() - 2.0) * step)
            }))
        }
        Fill::Lists { rows, below, share } => {
            let lists =
                list_lengths(rows, below, share).enumerate().flat_map(move |(row, length)| {
                    ascending(seed.wrapping_add(row as u64), length, below)
                });
            Box::new(lists.map(|member| member as f64))
        }
        Fill::ListOffsets { rows, below, share } => {
            let ends = list_lengths(rows, below, share).scan(0, |end, length| {
                *end += length;
                Some(*end as f64)
            });
            Box::new(std::iter::once(0.0).chain(ends))
        }
        Fill::Integers { from, below } => {
            let mut uniform = Normal::new(seed);
            let span = f64::from(below) - f64::from(from);
            Box::new(std::iter::from_fn(move || {
                Some(f64::from(from) + (uniform.uniform() * span).floor())
            }))
        }
        Fill::TreeLinks { rows, below, share, siblings } => {
            let mut random = Normal::new(seed);
            let trees = list_lengths(rows, below, share)
                .flat_map(move |drafts| tree_links(&mut random, drafts, siblings));
            Box::new(trees.map(f64::from))
        }
        Fill::Permutation { below } => {
            let mut random = Normal::new(seed);
            let mut members: Vec<usize> = (0..below.max(layout.elements())).collect();
            // Fisher and Yates.
            for last in (1..members.len()).rev() {
                members.swap(last, (random.uniform() * (last + 1) as f64) as usize);
            }
            Box::new(members.into_iter().map(|member| member as f64))
        }
        Fill::Paths { below } => {
            let columns = layout.columns();
            Box::new((0..layout.shape()[0]).flat_map(move |row| {
                let length = if row % 4 == 3 { columns / 2 } else { columns };
                let mut path = ascending(seed.wrapping_add(row as u64), length, below);
                path.resize(columns, usize::MAX);
                path.into_iter().map(|node| if node == usize::MAX { -1.0 } else { node as f64 })
            }))
        }
        Fill::NotFinite { scale } => Box::new(normal.enumerate().map(move |(index, value)| {
            // Not in the same rows of every tensor.
            match (index + seed as usize % 7) % 7 {
                1 => f64::NAN,
                3 => f64::INFINITY,
                5 => f64::NEG_INFINITY,
                _ => value * scale,
            }
        })),
        Fill::ExitStates => Box::new(exit_states(seed, layout).into_iter()),
        Fill::Constant { value } => Box::new(std::iter::repeat(value)),
        Fill::Uniform => {
            let mut uniform = Normal::new(seed);
            let steps = 2f64.powi(24);
            Box::new(std::iter::from_fn(move || Some((uniform.uniform() * steps).floor() / steps)))
        }
        Fill::Probabilities { steps } => {
            Box::new(probabilities(seed, layout, 1 << steps).into_iter())
        }
        // Any byte but 0 means yes; masks that are multiplied with are 0 or 1.
        Fill::Mask { share } => {
            let mut uniform = Normal::new(seed);
            let is_factor = layout.dtype().is_float();
            Box::new(std::iter::from_fn(move || {
                let yes = uniform.uniform() < share;
                Some(match (yes, is_factor) {
                    (false, _) => 0.0,
                    (true, true) => 1.0,
                    (true, false) => 1.0 + (uniform.uniform() * 254.0).floor(),
                })
            }))
        }
    }
}

/// Every one of `shares` equal shares of a row goes to some column.
fn probabilities(seed: u64, layout: &Layout, shares: u32) -> Vec<f64> {
    let mut uniform = Normal::new(seed);
    let columns = layout.columns();
    let mut rows = vec![0.0; layout.elements()];
    for row in rows.chunks_mut(columns.max(1)) {
        for _ in 0..shares {
            // Squared, so that low columns have more of them than high ones.
            let at = uniform.uniform().powi(2);
            row[(at * columns as f64) as usize] += 1.0 / f64::from(shares);
        }
    }
    rows
}

/// Lengths of the lists that [`Fill::Lists`] draws: in every five rows one of no member, of one, and of all.
pub(crate) fn list_lengths(
    rows: usize,
    below: usize,
    share: f64,
) -> impl Iterator<Item = usize> + 'static {
    let usual = (share * below as f64).round() as usize;
    let lengths = [usual, 0, usual.min(1), if usual > 0 { below } else { 0 }, usual / 2];
    (0..rows).map(move |row| lengths[row % lengths.len()])
}

/// First children by row, or next siblings by draft, of a random tree: the first draft is the root's child, and of the
/// others half the child of the draft before and half of any row before.
fn tree_links(random: &mut Normal, drafts: usize, siblings: bool) -> Vec<i32> {
    let mut first_child = vec![-1; drafts + 1];
    let mut next_sibling = vec![-1; drafts];
    // From the last on: whoever was the first child becomes its next sibling.
    for draft in (0..drafts).rev() {
        let any = (random.uniform() * (draft + 1) as f64) as usize;
        let parent = if random.uniform() < 0.5 { draft } else { any };
        next_sibling[draft] = std::mem::replace(&mut first_child[parent], draft as i32);
    }
    if siblings { next_sibling } else { first_child }
}

/// States of tiles that hold a few logits each: the values for a floating-point layout, otherwise the ids.
fn exit_states(seed: u64, layout: &Layout) -> Vec<f64> {
    const LOGITS: usize = 80;
    let is_values = layout.dtype().is_float();
    let top_k = layout.columns() - if is_values { value::COUNT } else { token::COUNT };
    let (tiles, rows) = (layout.shape()[0], layout.shape()[1]);
    let mut random = Normal::new(seed);
    let mut states = Vec::new();
    for tile in 0..tiles {
        for _ in 0..rows {
            let is_masked = random.uniform() < 0.125;
            let mut logits: Vec<(f64, f64)> = (0..LOGITS)
                .map(|index| {
                    // Rounded as a state is, so that oracle and kernels start from the same numbers.
                    let logit = f64::from((random.normal() * 3.0) as f32);
                    (logit, (tile * VOCABULARY_TILE + index) as f64)
                })
                .collect();
            let chosen = logits[(random.uniform() * LOGITS as f64) as usize];
            if is_masked {
                logits.clear();
            }
            logits.sort_by(|a, b| b.0.total_cmp(&a.0));
            let at = |place: usize| logits.get(place).copied().unwrap_or((f64::NEG_INFINITY, -1.0));
            let best = (0..top_k).map(at);
            if is_values {
                let below = |logit: &(f64, f64)| logit.0 - at(0).0;
                let sum: f64 = logits.iter().map(|logit| below(logit).exp()).sum();
                let weighted: f64 = logits.iter().map(|l| below(l) * below(l).exp()).sum();
                let score = if is_masked { f64::NEG_INFINITY } else { chosen.0 + 1.0 };
                states.extend([at(0).0, at(1).0, sum, weighted, at(2).0, score]);
                states.extend(best.map(|best| best.0));
            } else {
                states.extend([at(0).1, if is_masked { -1.0 } else { chosen.1 }]);
                states.extend(best.map(|best| best.1));
            }
        }
    }
    states
}

/// `count` strictly ascending members of `0..below`: each is kept with the probability that leaves the rest a
/// fair chance (Vitter 1984, algorithm S).
fn ascending(seed: u64, count: usize, below: usize) -> Vec<usize> {
    assert!(count <= below, "{count} different numbers below {below}");
    let mut random = Normal::new(seed);
    let mut members = Vec::with_capacity(count);
    for index in 0..below {
        let wanted = (count - members.len()) as f64;
        if random.uniform() * ((below - index) as f64) < wanted {
            members.push(index);
        }
    }
    members
}

/// Longer sequences repeat themselves: a prime, so that no two rows of a matrix are the same.
const PERIOD: usize = 1_048_573;

/// The first [`PERIOD`] values over and over: large bench inputs would otherwise take longer to draw than to
/// measure.
fn repeated(values: Normal) -> impl Iterator<Item = f64> {
    let mut drawn = Vec::new();
    let mut values = values.take(PERIOD);
    let mut next = 0;
    std::iter::from_fn(move || {
        if let Some(value) = values.next() {
            drawn.push(value);
            return Some(value);
        }
        let value = drawn[next % PERIOD];
        next += 1;
        Some(value)
    })
}

/// A number of them that is prime to common row lengths, so that rows differ.
fn extremes(dtype: DType) -> [f64; 23] {
    let (largest, smallest) = match dtype {
        DType::F16 => (65504.0, 2f64.powi(-24)),
        DType::BF16 => (3.3895e38, 2f64.powi(-126)),
        _ => (f64::from(f32::MAX), f64::from(f32::MIN_POSITIVE)),
    };
    [
        0.0, -0.0, largest, -largest, smallest, -smallest, 1.0, -1.0, 88.0, -88.0, 104.0, -104.0,
        0.5, -0.5, 1e4, -1e4, 20.0, -20.0, 6e4, -6e4, 1e-4, -1e-4, 3.0,
    ]
}

/// Standard normal values: SplitMix64 (Steele et al. 2014) through Box and Muller's transform.
struct Normal {
    state: u64,
    spare: Option<f64>,
}

impl Normal {
    fn new(seed: u64) -> Normal {
        Normal { state: seed, spare: None }
    }

    fn normal(&mut self) -> f64 {
        // Endless.
        self.next().unwrap_or_default()
    }

    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        ((bits >> 11) as f64 + 0.5) / 2f64.powi(53)
    }
}

impl Iterator for Normal {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        if let Some(spare) = self.spare.take() {
            return Some(spare);
        }
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare = Some(radius * sin);
        Some(radius * cos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_normal_distribution() {
        let values: Vec<f64> = Normal::new(1).take(100_000).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn members_are_strictly_ascending_and_as_many_as_wanted() {
        for (count, below) in [(0, 0), (0, 5), (5, 5), (1, 1_000), (499, 1_000)] {
            let members = ascending(7, count, below);
            assert_eq!(members.len(), count);
            assert!(members.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(members.iter().all(|&member| member < below));
        }
        assert!(ascending(7, 500, 1_000)[400] > 600, "spread over all of it");
    }

    #[test]
    fn seeds_tell_names_apart() {
        assert_ne!(seed(&["ab", "c"]), seed(&["a", "bc"]));
    }
}
