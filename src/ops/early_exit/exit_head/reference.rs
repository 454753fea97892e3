//! The scalar oracle of the heads: all logits of a row in f64, then the definitions.

use std::cmp::Ordering;

use super::{ExitHeadArgs, ExitHeadStatesArgs};
use crate::dtype::{DType, Float, bf16, f16};
use crate::layout::{HasLayout, Layout};
use crate::ops::early_exit::VOCABULARY_TILE;
use crate::ops::early_exit::config::HeadConfig;
use crate::ops::early_exit::philox::{Purpose, gumbel_exact, token_bits};
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn head(op: &HeadConfig, mut args: ExitHeadArgs<TensorRef<'_>, TensorMut<'_>>) {
    let oracle = Oracle::new(op, &args);
    let rows: Vec<Vec<f64>> = (0..oracle.rows).map(|row| oracle.logits(row)).collect();
    let summary = |(row, logits): (usize, &Vec<f64>)| Summary::new(&oracle, row, logits, 0);
    let summaries: Vec<Summary> = rows.iter().enumerate().map(summary).collect();
    let write = |output: &mut Option<TensorMut<'_>>, value: &dyn Fn(&Summary) -> Vec<f64>| {
        if let Some(output) = output {
            output.write_f64(summaries.iter().flat_map(value));
        }
    };
    write(&mut args.token, &|row| vec![row.token]);
    write(&mut args.max_logit, &|row| vec![row.max]);
    write(&mut args.second_logit, &|row| vec![row.second]);
    write(&mut args.log_sum_exp, &|row| vec![row.max + row.sum.ln()]);
    write(&mut args.entropy, &|row| vec![row.sum.ln() - row.weighted / row.sum]);
    write(&mut args.top_tokens, &|row| row.top_tokens.clone());
    write(&mut args.top_logits, &|row| row.top_logits.clone());
    write(&mut args.gathered_logit, &|row| vec![row.gathered]);
    write(&mut args.sampled_token, &|row| vec![row.sampled]);
    if let Some(logits) = &mut args.logits {
        logits.write_f64(rows.into_iter().flatten());
    }
}

pub(super) fn states(op: &HeadConfig, mut args: ExitHeadStatesArgs<TensorRef<'_>, TensorMut<'_>>) {
    let oracle = Oracle::of_states(op, &args.inputs());
    let rows: Vec<Vec<f64>> = (0..oracle.rows).map(|row| oracle.logits(row)).collect();
    let (mut values, mut tokens) = (Vec::new(), Vec::new());
    for tile in 0..op.tiles() {
        for (row, logits) in rows.iter().enumerate() {
            let first = tile * VOCABULARY_TILE;
            let end = op.vocabulary.min(first + VOCABULARY_TILE);
            let state = Summary::new(&oracle, row, &logits[first..end], first);
            values.extend([state.max, state.second, state.sum, state.weighted]);
            values.extend([state.gathered, state.score]);
            values.extend(state.top_logits);
            tokens.extend([state.token, state.sampled]);
            tokens.extend(state.top_tokens);
        }
    }
    args.state_values.write_f64(values);
    args.state_tokens.write_f64(tokens);
    if let Some(logits) = &mut args.logits {
        logits.write_f64(rows.into_iter().flatten());
    }
}

/// Magnitudes of the products that outputs are made of, as [`crate::Operation::magnitude`].
pub(super) fn magnitude(
    op: &HeadConfig,
    args: &ExitHeadStatesArgs<TensorRef<'_>, Layout>,
    name: &str,
) -> Vec<f64> {
    let oracle = Oracle::of_states(op, args);
    let rows: Vec<_> =
        (0..oracle.rows).map(|row| (oracle.logits(row), oracle.sizes(row))).collect();
    let largest = |sizes: &[f64]| sizes.iter().copied().fold(0.0, f64::max) + 1.0;
    let of_row = |(row, (logits, sizes)): (usize, &(Vec<f64>, Vec<f64>))| {
        let size = largest(sizes);
        match name {
            "logits" => sizes.clone(),
            "top_logits" => vec![size; op.top_k],
            // The derivative by a logit of probability p is -p (logit - mean logit).
            "entropy" => {
                let all = Summary::new(&oracle, row, logits, 0);
                vec![size * (1.0 + all.sum.ln().abs() + 2.0 * all.weighted.abs() / all.sum)]
            }
            _ => vec![size],
        }
    };
    if name != "state_values" {
        return rows.iter().enumerate().flat_map(of_row).collect();
    }
    let mut magnitudes = Vec::new();
    for tile in 0..op.tiles() {
        for (row, (logits, sizes)) in rows.iter().enumerate() {
            let first = tile * VOCABULARY_TILE;
            let end = op.vocabulary.min(first + VOCABULARY_TILE);
            let size = largest(&sizes[first..end]);
            let state = Summary::new(&oracle, row, &logits[first..end], first);
            let weighted = state.sum - state.weighted;
            magnitudes.extend([size, size, size * state.sum, size * weighted, size]);
            magnitudes.push(size * f64::from(op.inv_temperature()) + 25.0);
            magnitudes.extend(vec![size; op.top_k]);
        }
    }
    magnitudes
}

/// The inputs, widened.
struct Oracle<'a> {
    op: &'a HeadConfig,
    /// Rows of the outputs.
    rows: usize,
    hidden: Vec<f64>,
    weight: Vec<f64>,
    norm: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
    selected: Option<Vec<f64>>,
    positions: Option<Vec<f64>>,
    seeds: Option<Vec<f64>>,
    gather: Option<Vec<f64>>,
}

impl<'a> Oracle<'a> {
    fn new(op: &'a HeadConfig, args: &ExitHeadArgs<TensorRef<'_>, TensorMut<'_>>) -> Oracle<'a> {
        let unused = args.hidden.layout();
        Oracle::of_states(op, &args.states(unused, unused, None))
    }

    fn of_states(
        op: &'a HeadConfig,
        args: &ExitHeadStatesArgs<TensorRef<'_>, Layout>,
    ) -> Oracle<'a> {
        let optional = |tensor: Option<TensorRef<'_>>| tensor.map(|tensor| tensor.to_f64());
        let selected = optional(args.rows);
        Oracle {
            op,
            rows: selected.as_ref().map_or(args.hidden.layout().shape()[0], Vec::len),
            hidden: args.hidden.to_f64(),
            weight: args.head_weight.to_f64(),
            norm: optional(args.norm_weight),
            bias: optional(args.head_bias),
            selected,
            positions: optional(args.positions),
            seeds: optional(args.seeds),
            gather: optional(args.gather_tokens),
        }
    }

    /// What is multiplied with the weight; `None` for a row that is none.
    fn operand(&self, row: usize) -> Option<Vec<f64>> {
        let row = self.selected.as_ref().map_or(row as f64, |rows| rows[row]);
        let all = self.hidden.len() / self.op.hidden;
        if row < 0.0 || row >= all as f64 {
            return None;
        }
        let x = &self.hidden[row as usize * self.op.hidden..][..self.op.hidden];
        let (Some(eps), Some(weight)) = (self.op.norm, &self.norm) else { return Some(x.to_vec()) };
        let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean_square + f64::from(eps.0)).sqrt();
        let normalised = x.iter().zip(weight).map(|(x, weight)| weight * x * scale);
        Some(normalised.map(|value| round(self.op.activation_dtype, value)).collect())
    }

    /// The seed of a row's noise.
    fn seed(&self, row: usize) -> u64 {
        match &self.seeds {
            Some(words) => words[2 * row] as u64 + ((words[2 * row + 1] as u64) << 32),
            None => self.op.seed,
        }
    }

    /// Logits of a row: `-inf` where masked, NaN throughout for a row that is none.
    fn logits(&self, row: usize) -> Vec<f64> {
        let operand = self.operand(row);
        let logit = |id: usize| {
            let Some(operand) = &operand else { return f64::NAN };
            if id >= self.op.valid_rows() {
                return f64::NEG_INFINITY;
            }
            let weight = &self.weight[id * self.op.hidden..][..self.op.hidden];
            let sum: f64 = operand.iter().zip(weight).map(|(x, weight)| x * weight).sum();
            let logit = sum + self.bias.as_ref().map_or(0.0, |bias| bias[id]);
            let logit = self
                .op
                .softcap()
                .map_or(logit, |cap| f64::from(cap) * (logit / f64::from(cap)).tanh());
            // Kernels keep logits in f32.
            if logit.abs() > f64::from(f32::MAX) { logit * f64::INFINITY } else { logit }
        };
        (0..self.op.vocabulary).map(logit).collect()
    }

    /// Sums of the magnitudes of a logit's products.
    fn sizes(&self, row: usize) -> Vec<f64> {
        let Some(operand) = self.operand(row) else { return vec![1.0; self.op.vocabulary] };
        let size = |id: usize| {
            let weight = &self.weight[id * self.op.hidden..][..self.op.hidden];
            let sum: f64 = operand.iter().zip(weight).map(|(x, weight)| (x * weight).abs()).sum();
            // A banned entry's bias is infinite and nothing is rounded.
            let bias = self.bias.as_ref().map_or(0.0, |bias| bias[id].abs());
            sum + if bias.is_finite() { bias } else { 0.0 }
                + self.op.softcap().map_or(0.0, f64::from)
        };
        (0..self.op.vocabulary).map(size).collect()
    }
}

/// What is kept of some consecutive logits of a row.
struct Summary {
    token: f64,
    max: f64,
    second: f64,
    sum: f64,
    weighted: f64,
    gathered: f64,
    sampled: f64,
    score: f64,
    top_tokens: Vec<f64>,
    top_logits: Vec<f64>,
}

impl Summary {
    /// `logits` are those of the weight's rows from `first` on.
    fn new(oracle: &Oracle<'_>, row: usize, logits: &[f64], first: usize) -> Summary {
        let op = oracle.op;
        // A row that is none has NaN everywhere, even where all of a tile is masked.
        let absent = oracle.operand(row).is_none();
        if absent || logits.iter().any(|logit| logit.is_nan() || *logit == f64::INFINITY) {
            return Summary::none(f64::NAN, op.top_k);
        }
        let id = |index: usize| op.vocab_offset + first + index;
        let mut order: Vec<usize> =
            (0..logits.len()).filter(|&index| logits[index] > f64::NEG_INFINITY).collect();
        // Stable: of equal logits, zeros of both signs among them, the lowest id stays first.
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(Ordering::Equal));
        let Some(&best) = order.first() else {
            return Summary::none(f64::NEG_INFINITY, op.top_k);
        };
        let max = logits[best];
        let mut summary = Summary::none(f64::NEG_INFINITY, op.top_k);
        summary.token = id(best) as f64;
        summary.max = max;
        summary.second = order.get(1).map_or(f64::NEG_INFINITY, |&index| logits[index]);
        summary.sum = order.iter().map(|&index| (logits[index] - max).exp()).sum();
        let weighted = |&index: &usize| (logits[index] - max) * (logits[index] - max).exp();
        summary.weighted = order.iter().map(weighted).sum();
        for (place, &index) in order.iter().take(op.top_k).enumerate() {
            summary.top_tokens[place] = id(index) as f64;
            summary.top_logits[place] = logits[index];
        }
        order.sort_unstable();
        if let Some(gather) = &oracle.gather {
            let wanted = order.iter().find(|&&index| id(index) as f64 == gather[row]);
            summary.gathered = wanted.map_or(f64::NEG_INFINITY, |&index| logits[index]);
        }
        if let Some(positions) = &oracle.positions {
            for index in order {
                let quad = (id(index) / 4) as u32;
                let bits =
                    token_bits(oracle.seed(row), positions[row] as i32, quad, Purpose::Token);
                let noise = gumbel_exact(bits[id(index) % 4]);
                let score = logits[index] * f64::from(op.inv_temperature()) + noise;
                if score > summary.score {
                    (summary.score, summary.sampled) = (score, id(index) as f64);
                }
            }
        }
        summary
    }

    /// Of no logits at all, or of a row without a token.
    fn none(nothing: f64, top_k: usize) -> Summary {
        Summary {
            token: -1.0,
            max: nothing,
            second: nothing,
            sum: if nothing.is_nan() { nothing } else { 0.0 },
            weighted: if nothing.is_nan() { nothing } else { 0.0 },
            gathered: nothing,
            sampled: -1.0,
            score: nothing,
            top_tokens: vec![-1.0; top_k],
            top_logits: vec![nothing; top_k],
        }
    }
}

fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => f64::from(<f16 as Float>::from_f64(value).to_f32()),
        DType::BF16 => f64::from(<bf16 as Float>::from_f64(value).to_f32()),
        _ => f64::from(value as f32),
    }
}
