//! The end of a sequence by its definition: a list of tokens that is cut.

use super::{Common, Finish};
use crate::layout::HasLayout as _;
use crate::tensor::{TensorMut, TensorRef};

/// A sequence before it is cut.
#[derive(Default)]
pub(in crate::ops::early_exit) struct Candidates {
    /// The accepted drafts.
    pub accepted: Vec<i32>,
    /// What follows them, if the row has a token.
    pub correction: Option<i32>,
    /// The row of target that each of them comes from.
    pub rows: Vec<usize>,
}

/// Cuts each sequence's candidates and writes the results; says how many drafts are left of each.
pub(in crate::ops::early_exit) fn write(
    common: Common<TensorRef<'_>, TensorMut<'_>>,
    sequences: &[Candidates],
) -> Vec<usize> {
    let numbers = |tensor: Option<TensorRef<'_>>| tensor.map(|tensor| tensor.to_f64());
    let stop_ids = numbers(common.stop_ids).unwrap_or_default();
    let budget = numbers(common.budget);
    let columns = common.outputs.tokens.as_ref().map(|tokens| tokens.layout().columns());
    let mut results: [Vec<f64>; 6] = Default::default();
    for (index, candidates) in sequences.iter().enumerate() {
        let budget = budget.as_ref().map(|budget| budget[index].max(0.0) as usize);
        let (tokens, finish) = cut(candidates, &stop_ids, budget);
        let last_row = match tokens.len() {
            0 => -1.0,
            emitted => candidates.rows[emitted - 1] as f64,
        };
        let padding = columns.unwrap_or(tokens.len()) - tokens.len();
        results[1].push(candidates.accepted.len().min(tokens.len()) as f64);
        results[2].push(tokens.len() as f64);
        results[3].push(tokens.last().map_or(-1.0, |&token| f64::from(token)));
        results[4].push(last_row);
        results[5].push(f64::from(finish.code()));
        results[0].extend(tokens.into_iter().map(f64::from));
        results[0].extend(std::iter::repeat_n(-1.0, padding));
    }
    let left = results[1].iter().map(|&accepted| accepted as usize).collect();
    let outputs = common.outputs;
    let places = [
        outputs.tokens,
        outputs.accepted,
        outputs.emitted,
        outputs.next_token,
        outputs.last_row,
        outputs.finish,
    ];
    for (output, values) in places.into_iter().zip(results) {
        if let Some(mut output) = output {
            output.write_f64(values);
        }
    }
    left
}

fn cut(candidates: &Candidates, stop_ids: &[f64], budget: Option<usize>) -> (Vec<i32>, Finish) {
    let mut tokens = candidates.accepted.clone();
    tokens.extend(candidates.correction);
    let mut finish = match candidates.correction {
        Some(_) => Finish::Continue,
        None => Finish::InvalidRow,
    };
    if let Some(budget) = budget.filter(|&budget| tokens.len() >= budget) {
        tokens.truncate(budget);
        finish = Finish::Budget;
    }
    let is_stop = |&token: &i32| stop_ids.contains(&f64::from(token));
    if let Some(place) = tokens.iter().position(is_stop) {
        tokens.truncate(place + 1);
        finish = Finish::Stop;
    }
    (tokens, finish)
}
