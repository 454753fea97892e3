//! The scalar oracle of both MLPs: f64 throughout, rounded only where the operation says so.

use super::config::{MlpConfig, MlpTensors};
use crate::dtype::{DType, Float, bf16, f16};
use crate::error::Error;
use crate::layout::{HasLayout, Layout};
use crate::ops::silu_mlp::Rounding;
use crate::tensor::{TensorMut, TensorRef};

pub(crate) fn mlp(
    op: &MlpConfig,
    mut args: MlpTensors<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    let weights = Weights::new(op, &args);
    let residual = args.residual.map(|residual| residual.to_f64());
    let mut y = Vec::new();
    for (m, x) in args.x.to_f64().chunks_exact(op.hidden).enumerate() {
        let n = normalise(op, x, weights.norm.as_deref());
        let h: Vec<f64> = (0..op.ffn).map(|f| weights.activation(op, &n, f)).collect();
        for j in 0..op.hidden {
            let residual = residual.as_ref().map_or(0.0, |residual| residual[m * op.hidden + j]);
            y.push(residual + dot(&h, row(&weights.down, op.ffn, j)) + at(&weights.down_bias, j));
        }
    }
    args.out.write_f64(y);
    Ok(())
}

/// Sums of `|a * b|` through both layers, to first order, as [`crate::Operation::magnitude`].
pub(crate) fn magnitude(op: &MlpConfig, args: &MlpTensors<TensorRef<'_>, Layout>) -> Vec<f64> {
    /// The largest slope of `silu`.
    const SILU_SLOPE: f64 = 1.1;
    let weights = Weights::new(op, args);
    let residual = args.residual.map(|residual| residual.to_f64());
    let mut magnitudes = Vec::new();
    for (m, x) in args.x.to_f64().chunks_exact(op.hidden).enumerate() {
        let n = normalise(op, x, weights.norm.as_deref());
        let h: Vec<f64> = (0..op.ffn)
            .map(|f| {
                let up_scale = absolute_dot(&n, row(&weights.up, op.hidden, f))
                    + at(&weights.up_bias, f).abs();
                let Some(gate) = &weights.gate else { return SILU_SLOPE * up_scale };
                let gate_row = row(gate, op.hidden, f);
                let gate_scale = absolute_dot(&n, gate_row) + at(&weights.gate_bias, f).abs();
                let gate = dot(&n, gate_row) + at(&weights.gate_bias, f);
                let up = dot(&n, row(&weights.up, op.hidden, f)) + at(&weights.up_bias, f);
                SILU_SLOPE * gate_scale * up.abs() + silu(gate).abs() * up_scale
            })
            .collect();
        for j in 0..op.hidden {
            let residual = residual.as_ref().map_or(0.0, |residual| residual[m * op.hidden + j]);
            let sum = absolute_dot(&h, row(&weights.down, op.ffn, j));
            magnitudes.push(residual.abs() + sum + at(&weights.down_bias, j).abs());
        }
    }
    magnitudes
}

struct Weights {
    gate: Option<Vec<f64>>,
    up: Vec<f64>,
    down: Vec<f64>,
    gate_bias: Option<Vec<f64>>,
    up_bias: Option<Vec<f64>>,
    down_bias: Option<Vec<f64>>,
    norm: Option<Vec<f64>>,
}

impl Weights {
    fn new<Out: HasLayout>(op: &MlpConfig, args: &MlpTensors<TensorRef<'_>, Out>) -> Weights {
        let optional = |tensor: &Option<TensorRef<'_>>| tensor.map(|tensor| tensor.to_f64());
        debug_assert_eq!(op.gated, args.gate_weight.is_some());
        Weights {
            gate: optional(&args.gate_weight),
            up: args.up_weight.to_f64(),
            down: args.down_weight.to_f64(),
            gate_bias: optional(&args.gate_bias),
            up_bias: optional(&args.up_bias),
            down_bias: optional(&args.down_bias),
            norm: optional(&args.norm_weight),
        }
    }

    /// `h_f` of one row, rounded once to the activation type.
    fn activation(&self, op: &MlpConfig, n: &[f64], f: usize) -> f64 {
        let storage = |value| round(op.activation_dtype, value);
        let early = |value| match op.rounding {
            Rounding::KeepF32 => value,
            Rounding::RoundGateUp => storage(value),
        };
        let up = early(dot(n, row(&self.up, op.hidden, f)) + at(&self.up_bias, f));
        let Some(gate) = &self.gate else { return storage(silu(up)) };
        let gate = early(dot(n, row(gate, op.hidden, f)) + at(&self.gate_bias, f));
        storage(early(silu(gate)) * up)
    }
}

/// `n_j = w_j x_j / sqrt(mean(x^2) + eps)`, rounded once to the activation type; `x` itself without a norm.
fn normalise(op: &MlpConfig, x: &[f64], weight: Option<&[f64]>) -> Vec<f64> {
    let (Some(eps), Some(weight)) = (op.norm, weight) else { return x.to_vec() };
    let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean_square + f64::from(eps.0)).sqrt();
    x.iter().zip(weight).map(|(x, w)| round(op.activation_dtype, w * x * scale)).collect()
}

pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => <f16 as Float>::from_f64(value).to_f64(),
        DType::BF16 => <bf16 as Float>::from_f64(value).to_f64(),
        _ => f64::from(value as f32),
    }
}

fn row(matrix: &[f64], columns: usize, row: usize) -> &[f64] {
    &matrix[row * columns..][..columns]
}

fn at(bias: &Option<Vec<f64>>, index: usize) -> f64 {
    bias.as_ref().map_or(0.0, |bias| bias[index])
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn absolute_dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a * b).abs()).sum()
}
