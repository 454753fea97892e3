//! A layer's products and the head by siluette: activations in f32, weights in their own type.

use candle_core::{DType, Device, Tensor};
use siluette::candle::{Output, Runner};
use siluette::{
    ExitHead, ExitHeadArgs, GatedMlp, GatedMlpArgs, PrunedGatedMlp, PrunedGatedMlpArgs,
    PrunedLinear, PrunedLinearArgs,
};

use super::Failure;
use super::config::Config;
use super::weights::{Layer, Weights};

/// Tokens drawn with noise that their position keys.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    pub temperature: f32,
    pub seed: u64,
}

/// What is computed, made once for a model.
pub struct Operations {
    runner: Runner,
    layers: Vec<LayerOperations>,
    head: ExitHead,
    is_sampled: bool,
}

struct LayerOperations {
    query_key_value: PrunedLinear,
    output: PrunedLinear,
    mlp: Mlp,
}

enum Mlp {
    Dense(GatedMlp),
    Pruned(PrunedGatedMlp),
}

impl Operations {
    /// Greedy without `sampling`.
    pub fn new(
        config: &Config,
        weights: &Weights,
        sampling: Option<Sampling>,
    ) -> Result<Operations, Failure> {
        let head = ExitHead::new(config.hidden, config.vocabulary, siluette::DType::F32)?
            .with_weight_dtype(weights.head.dtype().try_into()?)?
            .with_norm(config.norm_eps)?;
        let layers = weights.layers.iter().map(|layer| LayerOperations::new(config, layer));
        Ok(Operations {
            runner: Runner::new(),
            layers: layers.collect::<Result<_, Failure>>()?,
            head: match sampling {
                Some(Sampling { temperature, seed }) => {
                    head.with_sampling(1.0 / temperature, seed)?
                }
                None => head,
            },
            is_sampled: sampling.is_some(),
        })
    }

    pub fn query_key_value(
        &self,
        index: usize,
        layer: &Layer,
        x: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let out = Output::new(DType::F32, &[x.dim(0)?, layer.query_key_value.dim(0)?])?;
        let mut args = PrunedLinearArgs::new(x, &layer.query_key_value, out);
        args.in_indices = layer.sets.as_ref().map(|sets| &sets.attention_in);
        let op = &self.layers[index].query_key_value;
        Ok(self.runner.run(op, args.norm_weight(&layer.input_norm))?.out)
    }

    /// The output projection, added to the residual stream `x`.
    pub fn output(
        &self,
        index: usize,
        layer: &Layer,
        mixed: &Tensor,
        x: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let mut args = PrunedLinearArgs::new(mixed, &layer.output, Output::like(x)?);
        args.out_indices = layer.sets.as_ref().map(|sets| &sets.attention_out);
        Ok(self.runner.run(&self.layers[index].output, args.residual(x))?.out)
    }

    /// The MLP with the norm before it, added to the residual stream `x`.
    pub fn mlp(&self, index: usize, layer: &Layer, x: &Tensor) -> candle_core::Result<Tensor> {
        let Layer { gate, up, down, post_norm, sets, .. } = layer;
        let out = Output::like(x)?;
        match (&self.layers[index].mlp, sets) {
            (Mlp::Pruned(op), Some(sets)) => {
                let args =
                    PrunedGatedMlpArgs::new(x, &sets.mlp_in, gate, up, down, &sets.mlp_out, out);
                Ok(self.runner.run(op, args.norm_weight(post_norm))?.out)
            }
            (Mlp::Dense(op), None) => {
                let args = GatedMlpArgs::new(x, gate, up, down, out);
                Ok(self.runner.run(op, args.norm_weight(post_norm).residual(x))?.out)
            }
            _ => unreachable!("made from this layer"),
        }
    }

    /// The token that follows each row.
    pub fn tokens(
        &self,
        weights: &Weights,
        x: &Tensor,
        positions: &[i32],
    ) -> candle_core::Result<Vec<i32>> {
        let rows = x.dim(0)?;
        let token = Output::new(DType::I32, &[rows])?;
        let args = ExitHeadArgs::new(x, &weights.head).norm_weight(&weights.norm);
        let tokens = if self.is_sampled {
            let positions = Tensor::from_slice(positions, rows, &Device::Cpu)?;
            let args = args.positions(&positions).sampled_token(token);
            self.runner.run(&self.head, args)?.sampled_token
        } else {
            self.runner.run(&self.head, args.token(token))?.token
        };
        tokens.expect("asked for").to_vec1()
    }
}

impl LayerOperations {
    fn new(config: &Config, layer: &Layer) -> Result<LayerOperations, Failure> {
        let f32 = siluette::DType::F32;
        let weights = layer.gate.dtype().try_into()?;
        let queries = config.heads * config.head;
        let (hidden, eps) = (config.hidden, config.norm_eps);
        // Drafts are verified together: what comes out must not depend on how many tokens there are.
        let linear = |inputs: usize, outputs: usize| {
            let op = PrunedLinear::new(inputs, outputs, f32)?.with_weight_dtype(weights)?;
            Ok::<_, siluette::Error>(op.with_batch_invariance(true))
        };
        let mut query_key_value = linear(hidden, layer.query_key_value.dim(0)?)?.with_norm(eps)?;
        let mut output = linear(queries, layer.output.dim(0)?)?;
        let ffn = layer.gate.dim(0)?;
        let mlp = match &layer.sets {
            Some(sets) => {
                query_key_value = query_key_value.with_gather(sets.attention_in.elem_count())?;
                output = output.with_scatter(hidden)?;
                let op = PrunedGatedMlp::new(hidden, ffn, f32)?.with_weight_dtype(weights)?;
                let op = op.with_inputs(sets.mlp_in.elem_count())?;
                let op = op.with_outputs(sets.mlp_out.elem_count())?.with_norm(eps)?;
                Mlp::Pruned(op.with_batch_invariance(true))
            }
            None => {
                let op = GatedMlp::new(hidden, ffn, f32)?.with_weight_dtype(weights)?;
                Mlp::Dense(op.with_norm(eps)?.with_batch_invariance(true))
            }
        };
        Ok(LayerOperations { query_key_value, output, mlp })
    }
}
