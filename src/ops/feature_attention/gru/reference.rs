//! The GRU by its definition, in f64.

use super::GruDirection;
use crate::layout::HasLayout as _;
use crate::tensor::TensorRef;

/// The states of one text, one a token in the order of the text, and the last one computed.
///
/// `x` holds the valid tokens; a reverse direction starts at the last of them.
pub(crate) fn gru(
    weights: &GruDirection<TensorRef<'_>>,
    x: &[Vec<f64>],
    initial: Vec<f64>,
    is_reverse: bool,
) -> (Vec<Vec<f64>>, Vec<f64>) {
    let hidden = initial.len();
    let (weight_ih, weight_hh) = (weights.weight_ih.to_f64(), weights.weight_hh.to_f64());
    let bias = |bias: Option<TensorRef<'_>>| match bias {
        Some(bias) => bias.to_f64(),
        None => vec![0.0; 3 * hidden],
    };
    let (bias_ih, bias_hh) = (bias(weights.bias_ih), bias(weights.bias_hh));
    let inputs = weights.weight_ih.layout().columns();
    let mut states = vec![Vec::new(); x.len()];
    let mut state = initial;
    for step in 0..x.len() {
        let token = if is_reverse { x.len() - 1 - step } else { step };
        let from_input =
            |row: usize| bias_ih[row] + dot(&weight_ih[row * inputs..][..inputs], &x[token]);
        let from_state =
            |row: usize| bias_hh[row] + dot(&weight_hh[row * hidden..][..hidden], &state);
        state = (0..hidden)
            .map(|unit| {
                let (r, z, n) = (unit, hidden + unit, 2 * hidden + unit);
                let reset = sigmoid(from_input(r) + from_state(r));
                let update = sigmoid(from_input(z) + from_state(z));
                let candidate = (from_input(n) + reset * from_state(n)).tanh();
                (1.0 - update) * candidate + update * state[unit]
            })
            .collect();
        states[token] = state.clone();
    }
    (states, state)
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
