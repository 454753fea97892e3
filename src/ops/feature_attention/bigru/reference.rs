//! `bigru` by its definition, in f64.

use super::{BiGru, BiGruArgs};
use crate::layout::{HasLayout as _, Layout};
use crate::ops::feature_attention::gru::{gru_tensors, reference::gru};
use crate::ops::feature_attention::lengths::length_of;
use crate::tensor::{TensorMut, TensorRef};

/// `args` are valid.
pub(super) fn bigru(op: &BiGru, mut args: BiGruArgs<TensorRef<'_>, TensorMut<'_>>) {
    let (hidden, shape) = (op.hidden, args.x.layout());
    let [batch, longest] = [shape.shape()[0], shape.shape()[1]];
    let x = args.x.to_f64();
    let weights = gru_tensors!(args);
    let initial = args.h0.map(|h0| h0.to_f64());
    let mut out = vec![0.0; batch * longest * 2 * hidden];
    let mut last_states = vec![0.0; 2 * op.layers * batch * hidden];
    for text in 0..batch {
        let tokens = x[text * longest * op.input..].chunks(op.input).map(<[f64]>::to_vec);
        let mut tokens: Vec<_> = tokens.take(length_of(&args.lengths, text, longest)).collect();
        for layer in 0..op.layers {
            let mut outputs = vec![Vec::new(); tokens.len()];
            for (direction, weights) in weights.layer(layer).iter().enumerate() {
                let at = ((2 * layer + direction) * batch + text) * hidden;
                let start = match &initial {
                    Some(initial) => initial[at..][..hidden].to_vec(),
                    None => vec![0.0; hidden],
                };
                let (states, last) = gru(weights, &tokens, start, direction == 1);
                last_states[at..][..hidden].copy_from_slice(&last);
                for (output, state) in outputs.iter_mut().zip(states) {
                    output.extend(state);
                }
            }
            tokens = outputs;
        }
        let rows = out[text * longest * 2 * hidden..].chunks_mut(2 * hidden);
        for (row, states) in rows.zip(tokens) {
            row.copy_from_slice(&states);
        }
    }
    args.out.write_f64(out);
    if let Some(h_n) = &mut args.h_n {
        h_n.write_f64(last_states);
    }
}

/// A state is a mean of candidates, which lie between -1 and 1, and of what it started from.
pub(super) fn magnitude(args: &BiGruArgs<TensorRef<'_>, Layout>, name: &str) -> Vec<f64> {
    let layout = if name == "h_n" { args.h_n.unwrap_or(args.out) } else { args.out };
    let initial = args.h0.map(|h0| h0.to_f64()).unwrap_or_default();
    let largest = initial.iter().fold(1.0f64, |largest, state| largest.max(state.abs()));
    vec![largest; layout.elements()]
}
