//! Selective feature attention by its definition, in f64.

use super::{Select, SelectiveFeatureAttention, SelectiveFeatureAttentionArgs, StackMode};
use crate::layout::{HasLayout as _, Layout};
use crate::ops::feature_attention::gru::gru_tensors;
use crate::ops::feature_attention::gru::reference::{dot, gru, sigmoid};
use crate::ops::feature_attention::lengths::length_of;
use crate::tensor::{TensorMut, TensorRef};

type Args<'a> = SelectiveFeatureAttentionArgs<TensorRef<'a>, Layout>;

/// `args` are valid.
pub(super) fn selective_feature_attention(
    op: &SelectiveFeatureAttention,
    mut args: SelectiveFeatureAttentionArgs<TensorRef<'_>, TensorMut<'_>>,
) {
    let inputs = args.inputs();
    let [batch, longest] = [args.x.layout().shape()[0], args.x.layout().shape()[1]];
    let x = args.x.to_f64();
    let reduce = Linear::new(args.reduce_weight, args.reduce_bias);
    let expand = Linear::new(args.expand_weight, args.expand_bias);
    let mut texts = Vec::new();
    for text in 0..batch {
        let rows = x[text * longest * op.features..].chunks(op.features);
        let rows = rows.take(length_of(&args.lengths, text, longest));
        let tokens: Vec<Vec<f64>> = rows.map(|token| reduce.apply(token)).collect();
        let branches = branches(op, &inputs, tokens);
        let gates = gates(op, &inputs, &branches);
        texts.push((branches, gates));
    }
    let total: f64 = texts.iter().flat_map(|(_, gates)| gates).flatten().map(|g| g.exp()).sum();
    let mut out = vec![0.0; batch * longest * op.features];
    for (text, (branches, gates)) in texts.iter().enumerate() {
        for token in 0..length_of(&args.lengths, text, longest) {
            let selected: Vec<f64> = (0..op.reduced)
                .map(|channel| {
                    let of_branches: f64 = gates.iter().map(|gates| gates[channel].exp()).sum();
                    let whole = match op.select {
                        Select::BranchSoftmax => of_branches,
                        Select::GlobalSum => total,
                    };
                    let weighted = branches.iter().zip(gates).map(|(states, gates)| {
                        gates[channel].exp() / whole * states[token][channel]
                    });
                    weighted.sum()
                })
                .collect();
            let row = (text * longest + token) * op.features;
            out[row..][..op.features].copy_from_slice(&expand.apply(&selected));
        }
    }
    args.out.write_f64(out);
}

/// The states of each branch, token by token.
fn branches(
    op: &SelectiveFeatureAttention,
    args: &Args<'_>,
    tokens: Vec<Vec<f64>>,
) -> Vec<Vec<Vec<f64>>> {
    let weights = gru_tensors!(args);
    let mut branches: Vec<Vec<Vec<f64>>> = Vec::new();
    let mut states = [vec![0.0; op.hidden()], vec![0.0; op.hidden()]];
    for branch in 0..op.branches {
        let input = match (op.stack_mode, branches.last()) {
            (StackMode::OutputChained, Some(before)) => before,
            _ => &tokens,
        };
        let mut output = vec![Vec::new(); tokens.len()];
        for (direction, weights) in weights.layer(branch).iter().enumerate() {
            let start = match op.stack_mode {
                StackMode::OutputChained => vec![0.0; op.hidden()],
                StackMode::StateChained => states[direction].clone(),
            };
            let (of_tokens, last) = gru(weights, input, start, direction == 1);
            states[direction] = last;
            for (output, state) in output.iter_mut().zip(of_tokens) {
                output.extend(state);
            }
        }
        branches.push(output);
    }
    branches
}

/// `g_i` of each branch; none for a text without tokens.
fn gates(
    op: &SelectiveFeatureAttention,
    args: &Args<'_>,
    branches: &[Vec<Vec<f64>>],
) -> Vec<Vec<f64>> {
    let all: Vec<&Vec<f64>> = branches.iter().flatten().collect();
    if all.is_empty() {
        return Vec::new();
    }
    let squeezed: Vec<f64> = (0..op.reduced)
        .map(|channel| {
            let values = || all.iter().map(|state| state[channel]);
            let largest = values().fold(f64::NEG_INFINITY, f64::max);
            values().sum::<f64>() / all.len() as f64 + largest
        })
        .collect();
    let squeeze = Linear::new(args.squeeze_weight, args.squeeze_bias);
    let z: Vec<f64> = squeeze.apply(&squeezed).into_iter().map(f64::tanh).collect();
    let gate = |branch| {
        let weight = args.select_weight.get(branch).copied();
        let weight = weight.expect("validated: one for each branch");
        let select = Linear::new(weight, args.select_bias.get(branch).copied());
        select.apply(&z).into_iter().map(sigmoid).collect()
    };
    (0..op.branches).map(gate).collect()
}

struct Linear {
    weight: Vec<f64>,
    columns: usize,
    bias: Vec<f64>,
}

impl Linear {
    fn new(weight: TensorRef<'_>, bias: Option<TensorRef<'_>>) -> Linear {
        let layout = weight.layout();
        Linear {
            weight: weight.to_f64(),
            columns: layout.columns(),
            bias: bias.map_or_else(|| vec![0.0; layout.shape()[0]], |bias| bias.to_f64()),
        }
    }

    fn apply(&self, values: &[f64]) -> Vec<f64> {
        let rows = self.weight.chunks_exact(self.columns).zip(&self.bias);
        rows.map(|(row, bias)| bias + dot(row, values)).collect()
    }
}

/// States lie between -1 and 1, and what is selected is at most one of them in size: an element of the output is made of
/// its row of the expansion.
pub(super) fn magnitude(op: &SelectiveFeatureAttention, args: &Args<'_>) -> Vec<f64> {
    let expand = Linear::new(args.expand_weight, args.expand_bias);
    let rows = expand.weight.chunks_exact(op.reduced).zip(&expand.bias);
    let sizes: Vec<f64> = rows
        .map(|(row, bias)| bias.abs() + row.iter().map(|value| value.abs()).sum::<f64>())
        .collect();
    let tokens = args.out.elements() / op.features;
    std::iter::repeat_n(sizes, tokens).flatten().collect()
}
