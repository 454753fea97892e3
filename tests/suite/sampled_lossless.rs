//! `verify_sampled` changes nothing of what the target samples: thresholds and steps of its decisions are found by
//! bisection on injected uniforms, and what follows for the tokens' distribution is worked out in f64.

use siluette::device::NamedTensors;
use siluette::{Cpu, Device, Tensor};

use crate::support::{devices, integers, ints, parameters, run};

/// The largest number below 1 that f32 has, and the number of bisections that come to it.
const ALMOST_ONE: f32 = 1.0 - f32::EPSILON / 2.0;
const STEPS: u32 = 25;
/// Bisection ends 2^-24 from a threshold, of which a distribution of 8 tokens has 64; what devices round is less.
const BOUND: f64 = 1e-6;
/// f32 probabilities are 2^-23 of themselves off, coins likewise.
const DEVICE_BOUND: f64 = 2e-6;

/// SplitMix64 in [0, 1).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11) as f64 / 2f64.powi(53)
    }

    pub fn logits(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() * 5.0) as f32).collect()
    }
}

pub fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let weights: Vec<f64> =
        logits.iter().map(|&logit| (f64::from(logit) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// A sequence: drafts, a row of target for each and one more, a row of q for each, its uniforms.
#[derive(Clone)]
struct Trial {
    drafts: Vec<i32>,
    target: Vec<Vec<f32>>,
    q: Vec<Vec<f32>>,
    uniforms: Vec<[f32; 2]>,
}

/// Accepted drafts and the token behind them, of each.
fn verify(device: &Device, mode: &str, trials: &[Trial]) -> Vec<(usize, i32)> {
    let columns = trials[0].target[0].len();
    let flat = |rows: Vec<&Vec<f32>>| -> Tensor {
        let values: Vec<f32> = rows.iter().flat_map(|row| row.iter().copied()).collect();
        Tensor::from_slice(&values, &[rows.len(), columns]).unwrap()
    };
    let drafts: Vec<i32> = trials.iter().flat_map(|trial| trial.drafts.clone()).collect();
    let mut offsets = vec![0u32];
    trials
        .iter()
        .for_each(|trial| offsets.push(offsets[offsets.len() - 1] + trial.drafts.len() as u32));
    let uniforms: Vec<f32> =
        trials.iter().flat_map(|trial| trial.uniforms.iter().flatten().copied()).collect();
    let mut inputs = NamedTensors::from([
        ("target".to_owned(), flat(trials.iter().flat_map(|trial| &trial.target).collect())),
        ("draft".to_owned(), integers(&drafts)),
        ("offsets".to_owned(), Tensor::from_slice(&offsets, &[offsets.len()]).unwrap()),
        ("uniforms".to_owned(), Tensor::from_slice(&uniforms, &[uniforms.len() / 2, 2]).unwrap()),
    ]);
    if mode != "one_hot" {
        let q = flat(trials.iter().flat_map(|trial| &trial.q).collect());
        inputs.insert("draft_distribution".to_owned(), q);
    }
    let parameters = parameters(&[("mode", mode), ("max_draft", "2")]);
    let outputs = run(device, "verify_sampled", &inputs, &parameters);
    let accepted = ints(&outputs, "accepted");
    let tokens = ints(&outputs, "next_token");
    accepted.into_iter().map(|n| n as usize).zip(tokens).collect()
}

/// The least number that `holds` is false of, for each trial: it is true of all numbers below and false above.
fn bisect(
    device: &Device,
    mode: &str,
    trials: &[Trial],
    place: (usize, usize),
    holds: impl Fn(usize, (usize, i32)) -> bool,
) -> Vec<f64> {
    let mut bounds = vec![(0f64, 1f64); trials.len()];
    for _ in 0..STEPS {
        let mut tried = trials.to_vec();
        for (trial, (low, high)) in tried.iter_mut().zip(&bounds) {
            trial.uniforms[place.0][place.1] = (((low + high) / 2.0) as f32).min(ALMOST_ONE);
        }
        let results = verify(device, mode, &tried);
        for (index, (bound, result)) in bounds.iter_mut().zip(results).enumerate() {
            let middle = (bound.0 + bound.1) / 2.0;
            if holds(index, result) { bound.0 = middle } else { bound.1 = middle }
        }
    }
    bounds.into_iter().map(|(low, high)| (low + high) / 2.0).collect()
}

/// The distribution of the token behind `row` drafts of each trial, whose coins are such that the walk ends there.
fn token_distributions(device: &Device, mode: &str, trials: &[Trial], row: usize) -> Vec<Vec<f64>> {
    let columns = trials[0].target[0].len();
    let copies: Vec<Trial> =
        trials.iter().flat_map(|trial| vec![trial.clone(); columns - 1]).collect();
    let steps = bisect(device, mode, &copies, (row, 1), |index, (accepted, token)| {
        assert_eq!(accepted, row, "the walk ends elsewhere");
        token as usize <= index % (columns - 1)
    });
    let cumulative = steps.chunks(columns - 1);
    cumulative
        .map(|steps| {
            let ends = [0.0].into_iter().chain(steps.iter().copied());
            let next = steps.iter().copied().chain([1.0]);
            ends.zip(next).map(|(begin, end)| end - begin).collect()
        })
        .collect()
}

fn total_variation(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

fn trial(drafts: &[usize], target: &[&Vec<f32>], q: &[&Vec<f32>]) -> Trial {
    Trial {
        drafts: drafts.iter().map(|&id| id as i32).collect(),
        target: target.iter().map(|&row| row.clone()).collect(),
        q: q.iter().map(|&row| row.clone()).collect(),
        uniforms: vec![[ALMOST_ONE, 0.5]; target.len()],
    }
}

/// For each draft: how likely it is accepted, and the distribution of what replaces it.
fn single(device: &Device, mode: &str, target: &Vec<f32>, q: &Vec<f32>) -> Vec<(f64, Vec<f64>)> {
    let trials: Vec<Trial> =
        (0..target.len()).map(|x| trial(&[x], &[target, target], &[q])).collect();
    let accepted = bisect(device, mode, &trials, (0, 0), |_, result| result.0 == 1);
    // A draft that is always accepted is replaced by nothing.
    let rejected: Vec<usize> =
        (0..trials.len()).filter(|&x| accepted[x] < f64::from(ALMOST_ONE)).collect();
    let trials: Vec<Trial> = rejected.iter().map(|&x| trials[x].clone()).collect();
    let mut replaced = vec![vec![0.0; target.len()]; target.len()];
    for (&x, distribution) in rejected.iter().zip(token_distributions(device, mode, &trials, 0)) {
        replaced[x] = distribution;
    }
    accepted.into_iter().zip(replaced).collect()
}

/// The distribution of the first token where drafts are distributed like `q`.
fn emitted(decisions: &[(f64, Vec<f64>)], q: &[f64]) -> Vec<f64> {
    let mut total = vec![0.0; q.len()];
    for (x, (accepted, replaced)) in decisions.iter().enumerate() {
        total[x] += q[x] * accepted;
        for (total, replaced) in total.iter_mut().zip(replaced) {
            *total += q[x] * (1.0 - accepted) * replaced;
        }
    }
    total
}

fn all_devices() -> impl Iterator<Item = (Device, f64)> {
    let others = devices().into_iter().map(|device| (device, DEVICE_BOUND));
    [(Device::Reference, BOUND)].into_iter().chain(others)
}

#[test]
fn one_draft_leaves_the_targets_distribution() {
    let mut random = Random(3);
    let (target, q) = (random.logits(8), random.logits(8));
    let p = softmax(&target, 1.0);
    for (device, bound) in all_devices() {
        let decisions = single(&device, "full", &target, &q);
        let distance = total_variation(&emitted(&decisions, &softmax(&q, 1.0)), &p);
        assert!(distance < bound, "full on {}: {distance:e}", device.name());
        // The control: drafts from a q of another temperature.
        let distance = total_variation(&emitted(&decisions, &softmax(&q, 1.2)), &p);
        assert!(distance > 1e-3, "the wrong q goes unnoticed on {}", device.name());
        // A certain draft leaves p, whichever it is.
        for (x, decision) in single(&device, "one_hot", &target, &q).into_iter().enumerate() {
            let mut certain = vec![(0.0, Vec::new()); 8];
            certain[x] = decision;
            let mut one = vec![0.0; 8];
            one[x] = 1.0;
            let distance = total_variation(&emitted(&certain, &one), &p);
            assert!(distance < bound, "one_hot on {}: {distance:e}", device.name());
        }
    }
}

#[test]
fn the_bonus_token_is_the_targets() {
    let mut random = Random(4);
    let rows: Vec<Vec<f32>> = (0..3).map(|_| random.logits(8)).collect();
    for (device, bound) in all_devices() {
        let trials: Vec<Trial> = rows.iter().map(|row| trial(&[], &[row], &[])).collect();
        let trials = token_distributions(&device, "one_hot", &trials, 0);
        for (distribution, row) in trials.iter().zip(&rows) {
            let distance = total_variation(distribution, &softmax(row, 1.0));
            assert!(distance < bound, "{}: {distance:e}", device.name());
        }
    }
}

/// Coin and residual from one number: what the independence of streams is for.
#[test]
fn a_coin_that_is_the_residual_number_is_noticed() {
    let mut random = Random(3);
    let (target, q) = (random.logits(8), random.logits(8));
    let device = Device::Cpu(Cpu::new());
    let (p, q_of) = (softmax(&target, 1.0), softmax(&q, 1.0));
    const GRID: usize = 1 << 10;
    let distance = |shared: bool| {
        let mut total = vec![0.0; 8];
        for (x, share) in q_of.iter().enumerate() {
            let trials: Vec<Trial> = (0..GRID)
                .map(|step| {
                    let mut trial = trial(&[x], &[&target, &target], &[&q]);
                    let u = (step as f32 + 0.5) / GRID as f32;
                    // An equidistributed second coordinate, or the first one again.
                    let v = if shared { u } else { (step as f32 * 0.618_034).fract() };
                    trial.uniforms[0] = [u, v];
                    trial
                })
                .collect();
            for (accepted, token) in verify(&device, "full", &trials) {
                let first = if accepted == 1 { x } else { token as usize };
                total[first] += share / GRID as f64;
            }
        }
        total_variation(&total, &p)
    };
    assert!(distance(false) < 5e-3, "{}", distance(false));
    assert!(distance(true) > 2e-2, "{}", distance(true));
}

/// Two drafts and their rows of target and q, which depend on the first one.
struct Pair {
    p_first: Vec<f32>,
    p_second: Vec<Vec<f32>>,
    q_first: Vec<f32>,
    q_second: Vec<Vec<f32>>,
}

impl Pair {
    fn trial(&self, x: usize, y: usize) -> Trial {
        let second = &self.p_second[x];
        trial(&[x, y], &[&self.p_first, second, second], &[&self.q_first, &self.q_second[x]])
    }
}

#[test]
fn blocks_of_two_leave_the_targets_joint_distribution() {
    const COUNT: usize = 4;
    let mut random = Random(5);
    let mut rows =
        |count: usize| -> Vec<Vec<f32>> { (0..count).map(|_| random.logits(COUNT)).collect() };
    let pair = Pair {
        p_first: rows(1).remove(0),
        p_second: rows(COUNT),
        q_first: rows(1).remove(0),
        q_second: rows(COUNT),
    };
    let second = |rows: &[Vec<f32>], x: usize| softmax(&rows[x], 1.0);
    let (p_first, q_first) = (softmax(&pair.p_first, 1.0), softmax(&pair.q_first, 1.0));
    for (device, bound) in all_devices() {
        for mode in ["full", "block"] {
            let mut joint = vec![0.0; COUNT * COUNT];
            for x in 0..COUNT {
                let q_second = second(&pair.q_second, x);
                for y in 0..COUNT {
                    let weight = q_first[x] * q_second[y];
                    let outcome = outcome(&device, mode, &pair.trial(x, y));
                    joint[x * COUNT + y] += weight * outcome.both;
                    for (token, share) in outcome.behind_one.iter().enumerate() {
                        joint[x * COUNT + token] += weight * outcome.one * share;
                    }
                    for (token, share) in outcome.behind_none.iter().enumerate() {
                        let then = second(&pair.p_second, token);
                        for (next, then) in then.iter().enumerate() {
                            joint[token * COUNT + next] += weight * outcome.none * share * then;
                        }
                    }
                }
            }
            let wanted: Vec<f64> = (0..COUNT)
                .flat_map(|x| second(&pair.p_second, x).into_iter().map(move |p| (x, p)))
                .map(|(x, p)| p_first[x] * p)
                .collect();
            let distance = total_variation(&joint, &wanted);
            assert!(distance < bound, "{mode} on {}: {distance:e}", device.name());
        }
    }
}

/// How likely two drafts, one or none are accepted, and what then follows.
struct Outcome {
    both: f64,
    one: f64,
    none: f64,
    behind_one: Vec<f64>,
    behind_none: Vec<f64>,
}

fn outcome(device: &Device, mode: &str, base: &Trial) -> Outcome {
    let columns = base.target[0].len();
    let with_coins = |coins: [f32; 2]| {
        let mut trial = base.clone();
        trial.uniforms[0][0] = coins[0];
        trial.uniforms[1][0] = coins[1];
        vec![trial]
    };
    let is_certain = |threshold: f64| threshold >= f64::from(ALMOST_ONE);
    // Full looks at the second coin only if the first was accepted, block at the first only if the second was not.
    let (both, one, none);
    if mode == "full" {
        let first =
            bisect(device, mode, &with_coins([0.0, ALMOST_ONE]), (0, 0), |_, r| r.0 >= 1)[0];
        let second = bisect(device, mode, &with_coins([0.0, 0.0]), (1, 0), |_, r| r.0 == 2)[0];
        (both, one, none) = (first * second, first * (1.0 - second), 1.0 - first);
    } else {
        let second = bisect(device, mode, &with_coins([0.0, 0.0]), (1, 0), |_, r| r.0 == 2)[0];
        let first = if is_certain(second) {
            0.0
        } else {
            bisect(device, mode, &with_coins([0.0, ALMOST_ONE]), (0, 0), |_, r| r.0 == 1)[0]
        };
        let rest = 1.0 - second;
        (both, one, none) = (second, rest * first, rest * (1.0 - first));
    }
    let nothing = || vec![0.0; columns];
    let ends_at = |coins: [f32; 2], row: usize| {
        let trials = with_coins(coins);
        match verify(device, mode, &trials)[0].0 == row {
            true => token_distributions(device, mode, &trials, row).remove(0),
            false => nothing(),
        }
    };
    Outcome {
        both,
        one,
        none,
        behind_one: ends_at([0.0, ALMOST_ONE], 1),
        behind_none: ends_at([ALMOST_ONE; 2], 0),
    }
}
