//! The tensors of a Hugging Face Llama, one file or several.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::Failure;
use super::config::Config;

pub struct Weights {
    pub embedding: Tensor,
    pub layers: Vec<Layer>,
    pub norm: Tensor,
    pub head: Tensor,
}

pub struct Layer {
    pub input_norm: Tensor,
    /// Queries, keys and values one below the other.
    pub query_key_value: Tensor,
    pub output: Tensor,
    pub post_norm: Tensor,
    pub gate: Tensor,
    pub up: Tensor,
    pub down: Tensor,
    /// Which features a pruned layer reads and writes.
    pub sets: Option<Sets>,
}

/// Ascending indices of features of the residual stream.
pub struct Sets {
    pub attention_in: Tensor,
    pub attention_out: Tensor,
    pub mlp_in: Tensor,
    pub mlp_out: Tensor,
}

impl Weights {
    pub fn load(folder: &Path, config: &Config, dtype: DType) -> Result<Weights, Failure> {
        let tensors = Tensors { all: read(folder)?, folder, dtype };
        let (hidden, ffn) = (config.hidden, config.ffn);
        let queries = config.heads * config.head;
        let shared = config.key_value_heads * config.head;
        let layer = |index: usize| {
            let get = |name: &str, shape: &[usize]| {
                tensors.get(&format!("model.layers.{index}.{name}.weight"), shape)
            };
            let [query, key, value] = [
                get("self_attn.q_proj", &[queries, hidden])?,
                get("self_attn.k_proj", &[shared, hidden])?,
                get("self_attn.v_proj", &[shared, hidden])?,
            ];
            Ok(Layer {
                input_norm: get("input_layernorm", &[hidden])?,
                query_key_value: Tensor::cat(&[query, key, value], 0)?,
                output: get("self_attn.o_proj", &[hidden, queries])?,
                post_norm: get("post_attention_layernorm", &[hidden])?,
                gate: get("mlp.gate_proj", &[ffn, hidden])?,
                up: get("mlp.up_proj", &[ffn, hidden])?,
                down: get("mlp.down_proj", &[hidden, ffn])?,
                sets: None,
            })
        };
        let embedding = tensors.get("model.embed_tokens.weight", &[config.vocabulary, hidden])?;
        let head = match config.is_tied {
            true => embedding.clone(),
            false => tensors.get("lm_head.weight", &[config.vocabulary, hidden])?,
        };
        Ok(Weights {
            layers: (0..config.layers).map(layer).collect::<Result<_, Failure>>()?,
            norm: tensors.get("model.norm.weight", &[hidden])?,
            embedding,
            head,
        })
    }

    /// The same of another type; not for pruned ones.
    pub fn to_dtype(&self, dtype: DType) -> candle_core::Result<Weights> {
        let layer = |layer: &Layer| {
            Ok(Layer {
                input_norm: layer.input_norm.to_dtype(dtype)?,
                query_key_value: layer.query_key_value.to_dtype(dtype)?,
                output: layer.output.to_dtype(dtype)?,
                post_norm: layer.post_norm.to_dtype(dtype)?,
                gate: layer.gate.to_dtype(dtype)?,
                up: layer.up.to_dtype(dtype)?,
                down: layer.down.to_dtype(dtype)?,
                sets: None,
            })
        };
        Ok(Weights {
            embedding: self.embedding.to_dtype(dtype)?,
            layers: self.layers.iter().map(layer).collect::<candle_core::Result<_>>()?,
            norm: self.norm.to_dtype(dtype)?,
            head: self.head.to_dtype(dtype)?,
        })
    }
}

struct Tensors<'a> {
    all: HashMap<String, Tensor>,
    folder: &'a Path,
    dtype: DType,
}

impl Tensors<'_> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, Failure> {
        let refuse =
            |reason: String| Failure::input(format!("{}: {name} {reason}", self.folder.display()));
        let tensor = self.all.get(name).ok_or_else(|| refuse("is missing".to_owned()))?;
        if tensor.dims() != shape {
            return Err(refuse(format!("has shape {:?}, expected {shape:?}", tensor.dims())));
        }
        Ok(tensor.to_dtype(self.dtype)?)
    }
}

fn read(folder: &Path) -> Result<HashMap<String, Tensor>, Failure> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|error| Failure::input(format!("{}: {error}", folder.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("model"))
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Failure::input(format!("{}: no model*.safetensors", folder.display())));
    }
    let mut all = HashMap::new();
    for file in files {
        let tensors = candle_core::safetensors::load(&file, &Device::Cpu)
            .map_err(|error| Failure::input(format!("{}: {error}", file.display())))?;
        all.extend(tensors);
    }
    Ok(all)
}
