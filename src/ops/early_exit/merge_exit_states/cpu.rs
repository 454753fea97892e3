//! `merge_exit_states` on the CPU.

use super::MergeExitStatesArgs;
use crate::layout::HasLayout;
use crate::ops::early_exit::state::{token, value};
use crate::tensor::{TensorMut, TensorRef};

/// `args` are valid. A row has one state for each tile, thousands at most: its merge is not worth a second thread.
pub(in crate::ops::early_exit) fn merge(
    top_k: usize,
    mut args: MergeExitStatesArgs<TensorRef<'_>, TensorMut<'_>>,
) {
    let (tiles, rows) = {
        let shape = args.state_values.layout();
        (shape.shape()[0], shape.shape()[1])
    };
    let values = States::<f32>::new(args.state_values);
    let tokens = States::<i32>::new(args.state_tokens);
    let mut list = Vec::with_capacity(top_k);
    for row in 0..rows {
        let state = |tile: usize| (values.row(tile, row), tokens.row(tile, row));
        let merged = Merged::new((0..tiles).map(state));
        put(&mut args.token, row, 0, merged.token);
        put(&mut args.max_logit, row, 0, merged.max);
        put(&mut args.second_logit, row, 0, merged.second);
        put(&mut args.log_sum_exp, row, 0, merged.log_sum_exp());
        put(&mut args.entropy, row, 0, merged.entropy());
        put(&mut args.gathered_logit, row, 0, merged.gathered);
        put(&mut args.sampled_token, row, 0, merged.sampled);
        merged.best((0..tiles).map(state), top_k, &mut list);
        for place in 0..top_k {
            let (logit, id) = list.get(place).copied().unwrap_or((merged.nothing, -1));
            put(&mut args.top_logits, row, place, logit);
            put(&mut args.top_tokens, row, place, id);
        }
    }
}

/// Writes an element of an output, if it is wanted.
fn put<T: crate::dtype::Element>(
    output: &mut Option<TensorMut<'_>>,
    row: usize,
    column: usize,
    value: T,
) {
    let Some(output) = output else { return };
    // The stride of a vector, as a matrix of one column.
    let stride = match output.layout().strides() {
        &[_] => 1,
        strides => strides[0],
    };
    if let Some(elements) = output.as_mut_slice() {
        elements[row * stride + column] = value;
    }
}

/// States of rows, gaps included.
struct States<'a, T> {
    elements: &'a [T],
    strides: [usize; 2],
    columns: usize,
}

impl<'a, T: crate::dtype::Element> States<'a, T> {
    fn new(tensor: TensorRef<'a>) -> States<'a, T> {
        let layout = tensor.layout();
        let strides = [layout.strides()[0], layout.strides()[1]];
        let elements = tensor.as_slice().unwrap_or_else(|| unreachable!("validated to be of it"));
        States { elements, strides, columns: layout.columns() }
    }

    fn row(&self, tile: usize, row: usize) -> &'a [T] {
        &self.elements[tile * self.strides[0] + row * self.strides[1]..][..self.columns]
    }
}

/// A row's results.
struct Merged {
    token: i32,
    max: f32,
    second: f32,
    sum: f64,
    weighted: f64,
    gathered: f32,
    sampled: i32,
    /// In place of what there is not: NaN for a row without a token, otherwise `-inf`.
    nothing: f32,
}

impl Merged {
    fn new<'a>(states: impl Iterator<Item = (&'a [f32], &'a [i32])> + Clone) -> Merged {
        let has_no_token = states.clone().any(|(values, _)| values[value::MAX].is_nan());
        let nothing = if has_no_token { f32::NAN } else { f32::NEG_INFINITY };
        let mut merged = Merged {
            token: -1,
            max: nothing,
            second: nothing,
            sum: if has_no_token { f64::NAN } else { 0.0 },
            weighted: 0.0,
            gathered: nothing,
            sampled: -1,
            nothing,
        };
        if has_no_token {
            return merged;
        }
        let mut score = f32::NEG_INFINITY;
        for (values, tokens) in states.clone() {
            merged.second = merged.second.max(merged.max.min(values[value::MAX]));
            merged.second = merged.second.max(values[value::SECOND]);
            merged.gathered = merged.gathered.max(values[value::GATHERED]);
            // Strictly more: of equal ones the first, which has the lower id.
            if values[value::MAX] > merged.max {
                (merged.max, merged.token) = (values[value::MAX], tokens[token::MAX]);
            }
            if values[value::SCORE] > score {
                (score, merged.sampled) = (values[value::SCORE], tokens[token::SAMPLED]);
            }
        }
        for (values, _) in states.filter(|(values, _)| values[value::MAX] > f32::NEG_INFINITY) {
            let lower = f64::from(values[value::MAX]) - f64::from(merged.max);
            let (sum, weighted) = (values[value::SUM], values[value::WEIGHTED]);
            let factor = lower.exp();
            merged.sum += factor * f64::from(sum);
            merged.weighted += factor * (f64::from(weighted) + lower * f64::from(sum));
        }
        merged
    }

    fn log_sum_exp(&self) -> f32 {
        (f64::from(self.max) + self.sum.ln()) as f32
    }

    fn entropy(&self) -> f32 {
        (self.sum.ln() - self.weighted / self.sum) as f32
    }

    /// The best of the states' lists, which are sorted.
    fn best<'a>(
        &self,
        states: impl Iterator<Item = (&'a [f32], &'a [i32])>,
        top_k: usize,
        list: &mut Vec<(f32, i32)>,
    ) {
        list.clear();
        if top_k == 0 || self.nothing.is_nan() {
            return;
        }
        for (values, tokens) in states {
            for (&logit, &id) in values[value::COUNT..].iter().zip(&tokens[token::COUNT..]) {
                if id < 0 || !insert(list, top_k, logit, id) {
                    break;
                }
            }
        }
    }
}

/// Puts a logit behind those that are at least as large; `false` if the list is full of them. Ids come in ascending
/// order, so that of equal logits the lowest stays first.
pub(in crate::ops::early_exit) fn insert(
    list: &mut Vec<(f32, i32)>,
    top_k: usize,
    logit: f32,
    id: i32,
) -> bool {
    let place = list.partition_point(|best| best.0 >= logit);
    if place == top_k {
        return false;
    }
    list.truncate(top_k - 1);
    list.insert(place, (logit, id));
    true
}
