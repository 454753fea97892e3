//! `verify_sampled` by its definition, in f64: sort, filter, divide by the sum, walk.

use std::cmp::Ordering;

use super::{FilterOrder, SampledMode, SampledValues, VerifySampled, VerifySampledArgs};
use crate::ops::early_exit::philox::{Purpose, gumbel_exact, token_bits};
use crate::ops::early_exit::verification::common;
use crate::ops::early_exit::verification::reference::{Candidates, write};
use crate::tensor::{TensorMut, TensorRef};

/// `args` are valid.
pub(super) fn verify(op: &VerifySampled, args: VerifySampledArgs<TensorRef<'_>, TensorMut<'_>>) {
    let oracle = Oracle::new(op, &args.inputs());
    let offsets: Vec<usize> =
        args.offsets.to_f64().into_iter().map(|offset| offset as usize).collect();
    let mut sequences = Vec::new();
    for (index, bounds) in offsets.windows(2).enumerate() {
        let sequence = Sequence { oracle: &oracle, index, first: bounds[0], end: bounds[1] };
        sequences.push(sequence.verify());
    }
    write(common!(args), &sequences);
}

/// The inputs, widened.
struct Oracle<'a> {
    op: &'a VerifySampled,
    target: Vec<f64>,
    draft: Vec<i32>,
    draft_distribution: Option<Vec<f64>>,
    temperature: Option<Vec<f64>>,
    top_k: Option<Vec<f64>>,
    top_p: Option<Vec<f64>>,
    min_p: Option<Vec<f64>>,
    uniforms: Option<Vec<f64>>,
    positions: Option<Vec<f64>>,
    seeds: Option<Vec<f64>>,
}

impl<'a> Oracle<'a> {
    fn new<Out>(op: &'a VerifySampled, args: &VerifySampledArgs<TensorRef<'_>, Out>) -> Oracle<'a> {
        let optional = |tensor: Option<TensorRef<'_>>| tensor.map(|tensor| tensor.to_f64());
        Oracle {
            op,
            target: args.target.to_f64(),
            draft: args.draft.to_f64().into_iter().map(|id| id as i32).collect(),
            draft_distribution: optional(args.draft_distribution),
            temperature: optional(args.temperature),
            top_k: optional(args.top_k),
            top_p: optional(args.top_p),
            min_p: optional(args.min_p),
            uniforms: optional(args.uniforms),
            positions: optional(args.positions),
            seeds: optional(args.seeds),
        }
    }
}

/// One of the batch's.
struct Sequence<'a> {
    oracle: &'a Oracle<'a>,
    index: usize,
    first: usize,
    end: usize,
}

impl Sequence<'_> {
    fn first_row(&self) -> usize {
        self.first + self.index
    }

    fn drafts(&self) -> &[i32] {
        &self.oracle.draft[self.first..self.end]
    }

    fn verify(&self) -> Candidates {
        let (accepted, correction) = match self.oracle.op.mode {
            SampledMode::Match => self.matched(),
            SampledMode::OneHot | SampledMode::Full => self.one_by_one(),
            SampledMode::Block => self.block(),
        };
        Candidates {
            accepted: self.drafts()[..accepted].to_vec(),
            correction: correction.map(|id| id as i32),
            rows: (self.first_row()..=self.first_row() + accepted).collect(),
        }
    }

    fn matched(&self) -> (usize, Option<usize>) {
        let drafts = self.drafts();
        for (i, &draft) in drafts.iter().enumerate() {
            let token = self.perturbed(i);
            if token.is_none_or(|token| token as i32 != draft) {
                return (i, token);
            }
        }
        (drafts.len(), self.perturbed(drafts.len()))
    }

    fn one_by_one(&self) -> (usize, Option<usize>) {
        let drafts = self.drafts();
        for (i, &draft) in drafts.iter().enumerate() {
            let Some((p, q)) = self.pair(i) else { return (i, None) };
            let (p_x, q_x) = (at(&p, draft), if q.is_empty() { 1.0 } else { at(&q, draft) });
            if self.coin(i) * q_x < p_x {
                continue;
            }
            let residual = if q.is_empty() { Vec::new() } else { excess(1.0, &p, &q) };
            return (i, Some(self.draw(i, residual, &p, Some(draft))));
        }
        (drafts.len(), self.bonus())
    }

    fn block(&self) -> (usize, Option<usize>) {
        let drafts = self.drafts();
        let pairs: Vec<_> = (0..drafts.len()).map_while(|i| self.pair(i)).collect();
        // `ratios[i]` is the algorithm's p_i.
        let mut ratios = vec![1.0];
        for ((p, q), &draft) in pairs.iter().zip(drafts) {
            let (product, q_x) = (ratios[ratios.len() - 1] * at(p, draft), at(q, draft));
            ratios.push(if product == 0.0 { 0.0 } else { (product / q_x).min(1.0) });
        }
        for i in (0..ratios.len()).rev() {
            let is_last = i == pairs.len();
            let threshold = match pairs.get(i) {
                None => ratios[i],
                Some((p, q)) => {
                    let sum: f64 = excess(ratios[i], p, q).iter().sum();
                    let rest = 1.0 - ratios[i];
                    if sum + rest == 0.0 { 1.0 } else { sum / (sum + rest) }
                }
            };
            if i > 0 && self.coin(i - 1) >= threshold {
                continue;
            }
            if is_last {
                return (i, if i == drafts.len() { self.bonus() } else { None });
            }
            let (p, q) = &pairs[i];
            return (i, Some(self.draw(i, excess(ratios[i], p, q), p, Some(drafts[i]))));
        }
        unreachable!("no draft accepted is always possible")
    }

    /// The token behind drafts that were all accepted.
    fn bonus(&self) -> Option<usize> {
        let last = self.drafts().len();
        let p = self.distribution(false, self.first_row() + last)?;
        Some(self.draw(last, p.clone(), &p, None))
    }

    /// p and q of a draft; q is empty where the draft was certain.
    fn pair(&self, i: usize) -> Option<(Vec<f64>, Vec<f64>)> {
        let p = self.distribution(false, self.first_row() + i)?;
        if !self.oracle.op.needs_draft_distribution() {
            return Some((p, Vec::new()));
        }
        Some((p, self.distribution(true, self.first + i)?))
    }

    fn of_sequence(&self, values: &Option<Vec<f64>>, default: f64) -> f64 {
        values.as_ref().map_or(default, |values| values[self.index])
    }

    /// Values of a row that count: `-inf` or 0 where they are none. `None` if there is no distribution.
    fn values(&self, is_draft: bool, row: usize) -> Option<Vec<f64>> {
        let (oracle, op) = (self.oracle, self.oracle.op);
        let all = if is_draft { oracle.draft_distribution.as_ref()? } else { &oracle.target };
        let row = &all[row * op.vocabulary..][..op.valid_vocab];
        let is_logits = op.values == SampledValues::Logits;
        let nothing = if is_logits { f64::NEG_INFINITY } else { 0.0 };
        let is_none = |value: f64| value.is_nan() || (!is_logits && value < 0.0);
        if row.contains(&f64::INFINITY) || (!is_draft && row.iter().any(|&value| is_none(value))) {
            return None;
        }
        let values: Vec<f64> =
            row.iter().map(|&value| if is_none(value) { nothing } else { value }).collect();
        let is_distribution = if is_logits {
            values.iter().any(|value| value.is_finite())
        } else {
            (values.iter().sum::<f64>() - 1.0).abs() <= f64::from(op.sum_tolerance())
        };
        is_distribution.then_some(values)
    }

    /// Ids that the filters keep, and everybody's weight before them, the largest being 1.
    fn kept(&self, is_draft: bool, row: usize) -> Option<(Vec<usize>, Vec<f64>)> {
        let (oracle, op) = (self.oracle, self.oracle.op);
        let values = self.values(is_draft, row)?;
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let temperature = self.of_sequence(&oracle.temperature, 1.0);
        let weights: Vec<f64> = match op.values {
            SampledValues::Logits => {
                values.iter().map(|x| ((x - max) / temperature).exp()).collect()
            }
            SampledValues::Probabilities => values.iter().map(|p| p / max).collect(),
        };
        let mut ids: Vec<usize> = (0..values.len()).collect();
        if is_draft && op.values == SampledValues::Probabilities {
            return Some((ids, weights));
        }
        // Stable, so that of equal values the lowest id stays first; there is no NaN left.
        ids.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap_or(Ordering::Equal));
        let k = self.of_sequence(&oracle.top_k, 0.0) as usize;
        let k = if k == 0 { ids.len() } else { k.min(ids.len()) };
        let looked_at = match op.filter {
            FilterOrder::Joint => &ids[..],
            FilterOrder::Sequential => &ids[..k],
        };
        let top_p = self.of_sequence(&oracle.top_p, 1.0);
        let wanted = top_p * looked_at.iter().map(|&id| weights[id]).sum::<f64>();
        let mut mass = 0.0;
        let reaches = |id: &usize| {
            mass += weights[*id];
            mass >= wanted
        };
        let nucleus = match looked_at.iter().position(reaches) {
            Some(last) if top_p < 1.0 => last + 1,
            _ => looked_at.len(),
        };
        let min_p = self.of_sequence(&oracle.min_p, 0.0);
        let likely = ids.iter().take_while(|&&id| weights[id] >= min_p).count();
        ids.truncate(k.min(nucleus).min(likely));
        Some((ids, weights))
    }

    fn distribution(&self, is_draft: bool, row: usize) -> Option<Vec<f64>> {
        let (ids, weights) = self.kept(is_draft, row)?;
        let sum: f64 = ids.iter().map(|&id| weights[id]).sum();
        let mut distribution = vec![0.0; weights.len()];
        ids.iter().for_each(|&id| distribution[id] = weights[id] / sum);
        Some(distribution)
    }

    /// The token of row i in mode match.
    fn perturbed(&self, i: usize) -> Option<usize> {
        let row = self.first_row() + i;
        let values = self.values(false, row)?;
        let (ids, _) = self.kept(false, row)?;
        let temperature = self.of_sequence(&self.oracle.temperature, 1.0);
        let score = |id: usize| {
            let bits = token_bits(self.seed(), self.position(i), (id / 4) as u32, Purpose::Token);
            values[id] / temperature + gumbel_exact(bits[id % 4])
        };
        let scores = ids.into_iter().map(|id| (score(id), id));
        scores.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map(|best| best.1)
    }

    fn seed(&self) -> u64 {
        let Some(seeds) = &self.oracle.seeds else { return self.oracle.op.seed };
        seeds[2 * self.index] as u64 | (seeds[2 * self.index + 1] as u64) << 32
    }

    fn position(&self, i: usize) -> i32 {
        (self.of_sequence(&self.oracle.positions, 0.0) as i32).wrapping_add(i as i32)
    }

    fn uniform(&self, i: usize, purpose: Purpose) -> f64 {
        if let Some(uniforms) = &self.oracle.uniforms {
            let column = usize::from(purpose == Purpose::Residual);
            return uniforms[2 * (self.first_row() + i) + column];
        }
        let bits = token_bits(self.seed(), self.position(i), 0, purpose)[0];
        f64::from(bits) / 2f64.powi(32)
    }

    fn coin(&self, i: usize) -> f64 {
        self.uniform(i, Purpose::Coin)
    }

    /// A token from the residual; from p without `x` if that has no mass; else the likeliest.
    fn draw(&self, i: usize, residual: Vec<f64>, p: &[f64], x: Option<i32>) -> usize {
        let mut without = p.to_vec();
        if let Some(entry) = x.and_then(|x| without.get_mut(usize::try_from(x).ok()?)) {
            *entry = 0.0;
        }
        let u = self.uniform(i, Purpose::Residual);
        let draw = |weights: &[f64]| {
            let wanted = u * weights.iter().sum::<f64>();
            let mut mass = 0.0;
            let passes = |weight: &f64| {
                mass += weight;
                mass > wanted
            };
            let last = weights.iter().rposition(|&weight| weight > 0.0)?;
            Some(weights.iter().position(passes).unwrap_or(last))
        };
        let best = (0..p.len()).rev().max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap_or(0);
        draw(&residual).or_else(|| draw(&without)).unwrap_or(best)
    }
}

/// A token's probability; 0 for what is none.
fn at(distribution: &[f64], id: i32) -> f64 {
    let probability = usize::try_from(id).ok().and_then(|id| distribution.get(id));
    probability.copied().unwrap_or(0.0)
}

/// `relu(ratio p - q)`.
fn excess(ratio: f64, p: &[f64], q: &[f64]) -> Vec<f64> {
    p.iter().zip(q).map(|(p, q)| (ratio * p - q).max(0.0)).collect()
}
