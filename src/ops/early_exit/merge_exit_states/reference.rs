//! The scalar oracle of `merge_exit_states`.

use super::{MergeExitStates, MergeExitStatesArgs};
use crate::layout::{HasLayout as _, Layout};
use crate::ops::early_exit::state::{token, value};
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn merge(
    op: &MergeExitStates,
    mut args: MergeExitStatesArgs<TensorRef<'_>, TensorMut<'_>>,
) {
    let merged = Merged::all(op, args.state_values, args.state_tokens);
    let write = |output: &mut Option<TensorMut<'_>>, value: &dyn Fn(&Merged) -> Vec<f64>| {
        if let Some(output) = output {
            output.write_f64(merged.iter().flat_map(value));
        }
    };
    write(&mut args.token, &|row| vec![row.token]);
    write(&mut args.max_logit, &|row| vec![row.max]);
    write(&mut args.second_logit, &|row| vec![row.second]);
    write(&mut args.log_sum_exp, &|row| vec![row.max + row.sum.ln()]);
    write(&mut args.entropy, &|row| vec![row.sum.ln() - row.weighted / row.sum]);
    write(&mut args.top_tokens, &|row| row.top.iter().map(|best| best.1).collect());
    write(&mut args.top_logits, &|row| row.top.iter().map(|best| best.0).collect());
    write(&mut args.gathered_logit, &|row| vec![row.gathered]);
    write(&mut args.sampled_token, &|row| vec![row.sampled]);
}

/// As [`crate::Operation::magnitude`]: what is only chosen is exact.
pub(super) fn magnitude(
    op: &MergeExitStates,
    args: &MergeExitStatesArgs<TensorRef<'_>, Layout>,
    name: &str,
) -> Vec<f64> {
    let merged = Merged::all(op, args.state_values, args.state_tokens);
    let of_row = |row: &Merged| match name {
        "log_sum_exp" => vec![1.0 + row.max.abs() + row.sum.ln().abs()],
        "entropy" => vec![1.0 + row.sum.ln().abs() + row.magnitude / row.sum],
        "top_logits" => vec![0.0; op.top_k],
        _ => vec![0.0],
    };
    merged.iter().flat_map(of_row).collect()
}

/// A row's results.
struct Merged {
    token: f64,
    max: f64,
    second: f64,
    sum: f64,
    weighted: f64,
    /// Of the terms of `weighted`.
    magnitude: f64,
    gathered: f64,
    sampled: f64,
    /// Logits and ids.
    top: Vec<(f64, f64)>,
}

impl Merged {
    fn all(op: &MergeExitStates, values: TensorRef<'_>, tokens: TensorRef<'_>) -> Vec<Merged> {
        let (tiles, rows) = (values.layout().shape()[0], values.layout().shape()[1]);
        let (values, tokens) = (values.to_f64(), tokens.to_f64());
        let columns = (value::COUNT + op.top_k, token::COUNT + op.top_k);
        let merged = |row: usize| {
            let states: Vec<(&[f64], &[f64])> = (0..tiles)
                .map(|tile| {
                    let at = tile * rows + row;
                    (&values[at * columns.0..][..columns.0], &tokens[at * columns.1..][..columns.1])
                })
                .collect();
            Merged::new(op.top_k, &states)
        };
        (0..rows).map(merged).collect()
    }

    fn new(top_k: usize, states: &[(&[f64], &[f64])]) -> Merged {
        let has_no_token = states.iter().any(|(values, _)| values[value::MAX].is_nan());
        let nothing = if has_no_token { f64::NAN } else { f64::NEG_INFINITY };
        let mut merged = Merged {
            token: -1.0,
            max: nothing,
            second: nothing,
            sum: if has_no_token { nothing } else { 0.0 },
            weighted: 0.0,
            magnitude: 0.0,
            gathered: nothing,
            sampled: -1.0,
            top: vec![(nothing, -1.0); top_k],
        };
        if has_no_token {
            return merged;
        }
        let mut score = f64::NEG_INFINITY;
        let mut all = Vec::new();
        for (values, tokens) in states {
            let max = values[value::MAX];
            if max > merged.max {
                (merged.second, merged.max) = (merged.max, max);
                merged.token = tokens[token::MAX];
            } else {
                merged.second = merged.second.max(max);
            }
            merged.second = merged.second.max(values[value::SECOND]);
            merged.gathered = merged.gathered.max(values[value::GATHERED]);
            if values[value::SCORE] > score {
                (score, merged.sampled) = (values[value::SCORE], tokens[token::SAMPLED]);
            }
            let list = values[value::COUNT..].iter().zip(&tokens[token::COUNT..]);
            all.extend(list.map(|(&logit, &id)| (logit, id)).filter(|best| best.1 >= 0.0));
        }
        for (values, _) in states.iter().filter(|(values, _)| values[value::SUM] > 0.0) {
            let lower = values[value::MAX] - merged.max;
            let (sum, weighted) = (values[value::SUM], values[value::WEIGHTED]);
            merged.sum += lower.exp() * sum;
            merged.weighted += lower.exp() * (weighted + lower * sum);
            merged.magnitude += lower.exp() * (weighted.abs() + lower.abs() * sum);
        }
        // Stable: states are in the order of ids.
        all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(std::cmp::Ordering::Equal));
        for (place, best) in merged.top.iter_mut().zip(all) {
            *place = best;
        }
        merged
    }
}
