//! What can be asked for.

use std::path::PathBuf;

use candle_core::DType;
use clap::{Parser, ValueEnum};

use super::Failure;
use super::config::Config;

/// Generate text with a Llama: by candle alone, with siluette, self-speculating and pruned
#[derive(Debug, Parser)]
pub struct Options {
    /// Hugging Face folder: config.json, tokenizer.json, model*.safetensors
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data/layerskip"))]
    pub model: PathBuf,
    /// What the text starts with
    #[arg(long, default_value = "It is a truth universally acknowledged, that")]
    pub prompt: String,
    /// Tokens to generate
    #[arg(long, default_value_t = 128)]
    pub length: usize,
    /// Layers that draft; a quarter of the model's unless given
    #[arg(long)]
    pub exit_layer: Option<usize>,
    /// Tokens of a draft
    #[arg(long, default_value_t = 1)]
    pub draft_length: usize,
    /// Of the sampled runs' noise
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Of the sampled runs
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f32,
    /// Type that siluette's runs keep the weights in; activations are f32
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub dtype: Dtype,
    /// Index sets of the pruned runs; masks_50.safetensors of the model's folder unless given
    #[arg(long, value_name = "FILE")]
    pub masks: Option<PathBuf>,
    /// Times that all runs are made, in turns; times are medians
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Print the tokens and figures of all runs as JSON, and nothing else
    #[arg(long)]
    pub json: bool,
}

/// As on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> DType {
        match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
        }
    }
}

impl Options {
    /// The layers that draft, if the options go with a model and a prompt of so many tokens.
    pub fn exit_layer_of(&self, config: &Config, prompt: usize) -> Result<usize, Failure> {
        if prompt == 0 {
            return Err(Failure::input("--prompt: expected at least one token"));
        }
        if self.length == 0 {
            return Err(Failure::input("--length: 0, expected at least one token"));
        }
        if prompt.saturating_add(self.length) > config.context {
            let (length, most) = (self.length, config.context);
            return Err(Failure::input(format!(
                "--prompt and --length: {prompt} + {length} tokens, but the model was made for {most}"
            )));
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let got = self.temperature;
            return Err(Failure::input(format!(
                "--temperature: {got}, expected a positive number"
            )));
        }
        let exit_layer = self.exit_layer.unwrap_or((config.layers / 4).max(1));
        if !(1..config.layers).contains(&exit_layer) {
            let expected = match config.layers {
                1 => "a model of at least 2 layers".to_owned(),
                layers => format!("1 to {}", layers - 1),
            };
            return Err(Failure::input(format!("--exit-layer: {exit_layer}, expected {expected}")));
        }
        Ok(exit_layer)
    }
}
