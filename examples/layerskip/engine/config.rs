//! What a Llama's `config.json` says, as far as this engine understands it.

use std::path::Path;

use serde_json::Value;

use super::Failure;

#[derive(Clone, Debug)]
pub struct Config {
    pub vocabulary: usize,
    pub hidden: usize,
    pub ffn: usize,
    pub layers: usize,
    pub heads: usize,
    pub key_value_heads: usize,
    pub head: usize,
    /// Tokens that the model was made for.
    pub context: usize,
    pub rope_theta: f32,
    pub rope_scaling: Option<RopeScaling>,
    pub norm_eps: f32,
    pub is_tied: bool,
    pub stop_ids: Vec<i32>,
}

/// Llama 3's stretched frequencies.
#[derive(Clone, Copy, Debug)]
pub struct RopeScaling {
    pub factor: f32,
    pub low_frequency_factor: f32,
    pub high_frequency_factor: f32,
    pub former_context: f32,
}

impl Config {
    pub fn load(folder: &Path) -> Result<Config, Failure> {
        let path = folder.join("config.json");
        let refuse = |reason: String| Failure::input(format!("{}: {reason}", path.display()));
        let text = std::fs::read(&path).map_err(|error| refuse(error.to_string()))?;
        let value: Value =
            serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        Config::from_json(&value).map_err(refuse)
    }

    fn from_json(value: &Value) -> Result<Config, String> {
        let is_llama = value["model_type"] == "llama";
        if !is_llama {
            return Err(format!("model_type is {}, expected \"llama\"", value["model_type"]));
        }
        for (name, expected) in [("attention_bias", false), ("mlp_bias", false)] {
            if value[name].as_bool().unwrap_or(expected) != expected {
                return Err(format!("{name} is {}, expected {expected}", value[name]));
            }
        }
        let activation = value["hidden_act"].as_str().unwrap_or("silu");
        if activation != "silu" {
            return Err(format!("hidden_act is \"{activation}\", expected \"silu\""));
        }
        let (hidden, heads) = (count(value, "hidden_size")?, count(value, "num_attention_heads")?);
        // What newer files call it, with theta inside.
        let rope = match &value["rope_parameters"] {
            Value::Null => &value["rope_scaling"],
            parameters => parameters,
        };
        let config = Config {
            vocabulary: count(value, "vocab_size")?,
            hidden,
            ffn: count(value, "intermediate_size")?,
            layers: count(value, "num_hidden_layers")?,
            heads,
            key_value_heads: match value["num_key_value_heads"] {
                Value::Null => heads,
                _ => count(value, "num_key_value_heads")?,
            },
            head: match value["head_dim"] {
                Value::Null => hidden / heads,
                _ => count(value, "head_dim")?,
            },
            context: count(value, "max_position_embeddings")?,
            rope_theta: number(value, "rope_theta")
                .or(number(rope, "rope_theta"))
                .unwrap_or(10_000.0),
            rope_scaling: rope_scaling(rope)?,
            norm_eps: number(value, "rms_norm_eps").unwrap_or(1e-6),
            is_tied: value["tie_word_embeddings"].as_bool().unwrap_or(false),
            stop_ids: stop_ids(&value["eos_token_id"]),
        };
        if !config.heads.is_multiple_of(config.key_value_heads) || !config.head.is_multiple_of(2) {
            let Config { heads, key_value_heads, head, .. } = config;
            return Err(format!("{heads} heads of {head} features cannot share {key_value_heads}"));
        }
        Ok(config)
    }
}

fn count(value: &Value, name: &str) -> Result<usize, String> {
    // The product of two fits.
    const MOST: u64 = i32::MAX as u64;
    match value[name].as_u64() {
        Some(count @ 1..=MOST) => Ok(count as usize),
        _ => Err(format!("{name} is {}, expected 1 to {MOST}", value[name])),
    }
}

fn number(value: &Value, name: &str) -> Option<f32> {
    value[name].as_f64().map(|number| number as f32)
}

fn rope_scaling(value: &Value) -> Result<Option<RopeScaling>, String> {
    let kind = value["rope_type"].as_str().or(value["type"].as_str()).unwrap_or("default");
    if value.is_null() || kind == "default" {
        return Ok(None);
    }
    let field = |name: &str| number(value, name).ok_or(format!("rope_scaling lacks {name}"));
    match kind {
        "llama3" => Ok(Some(RopeScaling {
            factor: field("factor")?,
            low_frequency_factor: field("low_freq_factor")?,
            high_frequency_factor: field("high_freq_factor")?,
            former_context: field("original_max_position_embeddings")?,
        })),
        other => Err(format!("rope_scaling is \"{other}\", expected \"default\" or \"llama3\"")),
    }
}

fn stop_ids(value: &Value) -> Vec<i32> {
    let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    ids.iter().filter_map(Value::as_i64).filter_map(|id| i32::try_from(id).ok()).collect()
}
