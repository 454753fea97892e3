//! The scalar oracle of every block: f64 throughout, rounded only where the operation says so.

use super::config::{First, MlpConfig, MlpTensors};
use crate::dtype::{DType, Float, bf16, f16};
use crate::error::Error;
use crate::layout::{HasLayout, Layout};
use crate::ops::prune_gather::NormScope;
use crate::ops::silu_mlp::Rounding;
use crate::tensor::{TensorMut, TensorRef};

pub(crate) fn mlp(
    op: &MlpConfig,
    mut args: MlpTensors<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let block = Block::new(op, &args.inputs());
    let mut out = Vec::new();
    for (m, x) in args.x.to_f64().chunks_exact(op.hidden).enumerate() {
        let n = block.normalise(x);
        let h = block.hidden(&n);
        let mut row = block.residual(m);
        for o in 0..op.outputs {
            let y = block.out_mask(o) * (dot(&h, block.down_row(o)) + at(&block.down_bias, o));
            row[block.feature(o)] += y;
        }
        out.extend(row);
    }
    args.out.write_f64(out);
    Ok(())
}

/// Sums of `|a * b|` through both projections, to first order, as [`crate::Operation::magnitude`].
pub(crate) fn magnitude(op: &MlpConfig, args: &MlpTensors<TensorRef<'_>, Layout>) -> Vec<f64> {
    let block = Block::new(op, args);
    let mut magnitudes = Vec::new();
    for (m, x) in args.x.to_f64().chunks_exact(op.hidden).enumerate() {
        let n = block.normalise(x);
        let h = block.hidden_magnitude(&n);
        let mut row: Vec<f64> = block.residual(m).iter().map(|value| value.abs()).collect();
        for o in 0..op.outputs {
            let sum = absolute_dot(&h, block.down_row(o)) + at(&block.down_bias, o).abs();
            row[block.feature(o)] += block.out_mask(o).abs() * sum;
        }
        magnitudes.extend(row);
    }
    magnitudes
}

/// A block's tensors in f64.
pub(crate) struct Block<'a> {
    op: &'a MlpConfig,
    gate: Vec<f64>,
    up: Vec<f64>,
    down: Vec<f64>,
    gate_bias: Option<Vec<f64>>,
    up_bias: Option<Vec<f64>>,
    down_bias: Option<Vec<f64>>,
    norm: Option<Vec<f64>>,
    residual: Option<Vec<f64>>,
    in_indices: Option<Vec<f64>>,
    out_indices: Option<Vec<f64>>,
    in_mask: Option<Vec<f64>>,
    mid_mask: Option<Vec<f64>>,
    out_mask: Option<Vec<f64>>,
}

impl<'a> Block<'a> {
    pub(crate) fn new<Out: HasLayout>(
        op: &'a MlpConfig,
        args: &MlpTensors<TensorRef<'_>, Out>,
    ) -> Block<'a> {
        let optional = |tensor: Option<TensorRef<'_>>| tensor.map(|tensor| tensor.to_f64());
        let default_residual = op.scatters.then_some(args.x);
        Block {
            op,
            gate: optional(args.gate_weight).unwrap_or_default(),
            up: optional(args.up_weight).unwrap_or_default(),
            down: args.down_weight.to_f64(),
            gate_bias: optional(args.gate_bias),
            up_bias: optional(args.up_bias),
            down_bias: optional(args.down_bias),
            norm: optional(args.norm_weight),
            residual: optional(args.residual.or(default_residual)),
            in_indices: optional(args.in_indices),
            out_indices: optional(args.out_indices),
            in_mask: optional(args.in_mask),
            mid_mask: optional(args.mid_mask),
            out_mask: optional(args.out_mask),
        }
    }

    /// `n_i = mask_j w_j x_j / sqrt(mean(x^2) + eps)` with `j` the `i`-th feature that is read, rounded once to
    /// the activation type.
    pub(crate) fn normalise(&self, x: &[f64]) -> Vec<f64> {
        let op = self.op;
        let features: Vec<usize> = match &self.in_indices {
            Some(indices) => indices.iter().map(|&index| index as usize).collect(),
            None => (0..op.hidden).collect(),
        };
        let squares = |features: &[usize]| features.iter().map(|&j| x[j] * x[j]).sum::<f64>();
        let mean_square = match op.norm_scope {
            NormScope::Full => x.iter().map(|x| x * x).sum::<f64>() / op.hidden as f64,
            NormScope::Selected => squares(&features) / features.len() as f64,
            NormScope::SelectedSumOverD => squares(&features) / op.hidden as f64,
        };
        let normalised = |j: usize| match (op.norm, &self.norm) {
            (Some(eps), Some(weight)) => weight[j] * x[j] / (mean_square + f64::from(eps.0)).sqrt(),
            _ => x[j],
        };
        let masked = |j: usize| self.in_mask.as_ref().map_or(1.0, |mask| mask[j]) * normalised(j);
        features.iter().map(|&j| round(op.activation_dtype, masked(j))).collect()
    }

    /// What the second projection reads.
    fn hidden(&self, n: &[f64]) -> Vec<f64> {
        match self.op.first {
            First::Absent => n.to_vec(),
            // Without inputs every projection is 0, whatever the norm of nothing is.
            _ => (0..self.op.ffn).map(|f| self.activation(n, f)).collect(),
        }
    }

    /// `h_f`, rounded once to the activation type.
    pub(crate) fn activation(&self, n: &[f64], f: usize) -> f64 {
        let storage = |value| round(self.op.activation_dtype, value);
        let early = |value| match self.op.rounding {
            Rounding::KeepF32 => value,
            Rounding::RoundGateUp => storage(value),
        };
        let up = early(self.up(n, f));
        let h = match self.op.first {
            First::Gated => early(silu(early(self.gate(n, f)))) * up,
            _ => silu(up),
        };
        storage(self.mid_mask(f).powi(2) * h)
    }

    pub(crate) fn hidden_magnitude(&self, n: &[f64]) -> Vec<f64> {
        /// The largest slope of `silu`.
        const SILU_SLOPE: f64 = 1.1;
        let op = self.op;
        let neuron = |f: usize| {
            let up_row = row(&self.up, op.inputs, f);
            let up_scale = absolute_dot(n, up_row) + at(&self.up_bias, f).abs();
            if op.first == First::Plain {
                return SILU_SLOPE * up_scale;
            }
            let gate_row = row(&self.gate, op.inputs, f);
            let gate_scale = absolute_dot(n, gate_row) + at(&self.gate_bias, f).abs();
            let (gate, up) = (self.gate(n, f), self.up(n, f));
            let scale = SILU_SLOPE * gate_scale * up.abs() + silu(gate).abs() * up_scale;
            self.mid_mask(f).powi(2) * scale
        };
        match op.first {
            First::Absent => n.to_vec(),
            _ => (0..op.ffn).map(neuron).collect(),
        }
    }

    pub(crate) fn gate(&self, n: &[f64], f: usize) -> f64 {
        dot(n, row(&self.gate, self.op.inputs, f)) + at(&self.gate_bias, f)
    }

    fn up(&self, n: &[f64], f: usize) -> f64 {
        dot(n, row(&self.up, self.op.inputs, f)) + at(&self.up_bias, f)
    }

    fn down_row(&self, o: usize) -> &[f64] {
        let columns = if self.op.first == First::Absent { self.op.inputs } else { self.op.ffn };
        row(&self.down, columns, o)
    }

    /// What is added to, for every feature that is written.
    pub(crate) fn residual(&self, m: usize) -> Vec<f64> {
        match &self.residual {
            Some(residual) => row(residual, self.op.width, m).to_vec(),
            None => vec![0.0; self.op.width],
        }
    }

    fn feature(&self, o: usize) -> usize {
        self.out_indices.as_ref().map_or(o, |indices| indices[o] as usize)
    }

    fn mid_mask(&self, f: usize) -> f64 {
        self.mid_mask.as_ref().map_or(1.0, |mask| mask[f])
    }

    fn out_mask(&self, o: usize) -> f64 {
        self.out_mask.as_ref().map_or(1.0, |mask| mask[o])
    }
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
