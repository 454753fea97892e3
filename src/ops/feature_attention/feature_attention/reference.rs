//! The scalar oracle of `feature_attention`.

use super::{FeatureAttention, FeatureAttentionArgs};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::feature_attention::lengths::length_of;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn feature_attention(
    op: &FeatureAttention,
    mut args: FeatureAttentionArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let values = scaled(op, &args.inputs(), |x, text, feature| x * text.excited[feature]);
    args.out.write_f64(values);
    Ok(())
}

/// An error of one unit in every product and intermediate result moves `e` by a unit of itself, and by `1 - e` of itself
/// for each unit of the sum under the sigmoid; an error of `a` is one of the sum under the tanh, which is flatter.
pub(super) fn magnitude(
    op: &FeatureAttention,
    args: &FeatureAttentionArgs<TensorRef<'_>, Layout>,
) -> Vec<f64> {
    scaled(op, args, |x, text, feature| {
        let excited = text.excited[feature];
        (x * excited).abs() * (1.0 + (1.0 - excited) * text.sensitivity[feature])
    })
}

/// What a text's features are multiplied with, and the magnitudes under the sigmoid.
struct Text {
    excited: Vec<f64>,
    sensitivity: Vec<f64>,
}

/// `f(x, text, feature)` for every valid element, 0 for the others.
fn scaled(
    op: &FeatureAttention,
    args: &FeatureAttentionArgs<TensorRef<'_>, Layout>,
    f: impl Fn(f64, &Text, usize) -> f64,
) -> Vec<f64> {
    let weights = Weights::new(op, args);
    let (batch, tokens) = (args.out.shape()[0], args.out.shape()[1]);
    let x = args.x.to_f64();
    let mut out = vec![0.0; x.len()];
    for row in 0..batch {
        let length = length_of(&args.lengths, row, tokens);
        let valid = row * tokens * op.features..(row * tokens + length) * op.features;
        let text = weights.excite(op, &x[valid.clone()]);
        for (index, (out, &x)) in out[valid.clone()].iter_mut().zip(&x[valid]).enumerate() {
            *out = f(x, &text, index % op.features);
        }
    }
    out
}

struct Weights {
    w1: Vec<f64>,
    b1: Vec<f64>,
    w2: Vec<f64>,
    b2: Vec<f64>,
}

impl Weights {
    fn new(op: &FeatureAttention, args: &FeatureAttentionArgs<TensorRef<'_>, Layout>) -> Weights {
        Weights {
            w1: args.w1.to_f64(),
            b1: args.b1.map_or(vec![0.0; op.reduced], |b1| b1.to_f64()),
            w2: args.w2.to_f64(),
            b2: args.b2.map_or(vec![0.0; op.features], |b2| b2.to_f64()),
        }
    }

    /// `e` for the valid tokens of a text.
    fn excite(&self, op: &FeatureAttention, x: &[f64]) -> Text {
        let tokens = (x.len() / op.features) as f64;
        let mean = |f: fn(f64) -> f64| -> Vec<f64> {
            let column = |feature| x.iter().skip(feature).step_by(op.features);
            (0..op.features)
                .map(|feature| column(feature).map(|&x| f(x)).sum::<f64>() / tokens)
                .collect()
        };
        let (squeezed, sizes) = (mean(|x| x), mean(f64::abs));
        let mut reduced = Vec::new();
        let mut reduced_sizes = Vec::new();
        for (row, bias) in self.w1.chunks_exact(op.features).zip(&self.b1) {
            let sum = bias + dot(row, &squeezed);
            let size = bias.abs() + dot_sizes(row, &sizes);
            let a = if op.tanh { sum.tanh() } else { sum };
            let slope = if op.tanh { 1.0 - a * a } else { 1.0 };
            reduced.push(a);
            reduced_sizes.push(a.abs() + slope * size);
        }
        let mut text = Text { excited: Vec::new(), sensitivity: Vec::new() };
        for (row, bias) in self.w2.chunks_exact(op.reduced).zip(&self.b2) {
            text.excited.push(1.0 / (1.0 + (-(bias + dot(row, &reduced))).exp()));
            text.sensitivity.push(bias.abs() + dot_sizes(row, &reduced_sizes));
        }
        text
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The sum of the products' magnitudes; `sizes` are not negative.
fn dot_sizes(a: &[f64], sizes: &[f64]) -> f64 {
    a.iter().zip(sizes).map(|(a, size)| a.abs() * size).sum()
}
