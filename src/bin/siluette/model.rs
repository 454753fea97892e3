//! Checkpoints in the layout of Hugging Face: `config.json` beside safetensors files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use siluette::conformance::{Fill, TensorSpec};
use siluette::device::NamedTensors;
use siluette::registry::{self, OperationInfo};
use siluette::{DType, Error, HasLayout as _, Layout, Parameters, Tensor};

use crate::elements;
use crate::output::file_error;
use crate::tensor_file::TensorFile;

/// The operation that a layer's feed-forward block is.
pub const OPERATION: &str = "gated_mlp";

/// Arguments of the operation and what a checkpoint calls them, within a layer. The last four may be absent.
const NAMES: [(&str, &str); 7] = [
    ("gate_weight", "mlp.gate_proj.weight"),
    ("up_weight", "mlp.up_proj.weight"),
    ("down_weight", "mlp.down_proj.weight"),
    ("gate_bias", "mlp.gate_proj.bias"),
    ("up_bias", "mlp.up_proj.bias"),
    ("down_bias", "mlp.down_proj.bias"),
    ("norm_weight", "post_attention_layernorm.weight"),
];

#[derive(Debug, Deserialize)]
struct Config {
    num_hidden_layers: usize,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    #[serde(default = "default_activation")]
    hidden_act: String,
}

/// What `transformers` takes if a Llama's configuration says nothing.
fn default_eps() -> f64 {
    1e-6
}

fn default_activation() -> String {
    "silu".to_owned()
}

#[derive(Debug, Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// A checkpoint of the Llama architecture or a relative with the same names.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: Config,
    files: Vec<TensorFile>,
    /// For each tensor, its place in `files`.
    places: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Reads the configuration and maps the files.
    pub fn open(folder: &Path) -> Result<Checkpoint, Error> {
        let config: Config = read_json(&folder.join("config.json"))?;
        if !matches!(config.hidden_act.as_str(), "silu" | "swish") {
            let reason = format!("hidden_act is `{}`, expected `silu`", config.hidden_act);
            return Err(file_error(&folder.join("config.json"), reason, ""));
        }
        let single = folder.join("model.safetensors");
        let paths: Vec<PathBuf> = if single.exists() {
            vec![single]
        } else {
            let index: ShardIndex = read_json(&folder.join("model.safetensors.index.json"))?;
            let mut names: Vec<String> = index.weight_map.into_values().collect();
            names.sort();
            names.dedup();
            names.iter().map(|name| folder.join(name)).collect()
        };
        let files =
            paths.iter().map(|path| TensorFile::open(path)).collect::<Result<Vec<_>, Error>>()?;
        let mut places = BTreeMap::new();
        for (place, file) in files.iter().enumerate() {
            places.extend(file.tensors()?.names().into_iter().map(|name| (name.to_owned(), place)));
        }
        Ok(Checkpoint { folder: folder.to_owned(), config, files, places })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its safetensors files.
    pub fn files(&self) -> &[TensorFile] {
        &self.files
    }

    /// A tensor that a checkpoint of this architecture has.
    pub fn require(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.view(name)?.ok_or_else(|| self.not_like_llama(name))
    }

    /// `eps` of the norms.
    pub fn norm_epsilon(&self) -> f64 {
        self.config.rms_norm_eps
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.config.num_hidden_layers
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The type of a layer's weights, as in the case list.
    pub fn dtype(&self, layer: usize) -> Result<String, Error> {
        let name = format!("model.layers.{layer}.mlp.up_proj.weight");
        Ok(format!("{:?}", self.require(&name)?.dtype()).to_lowercase())
    }

    /// A layer's feed-forward block on random normal hidden states, norm and residual included.
    pub fn layer(&self, layer: usize, rows: usize) -> Result<(NamedTensors, Parameters), Error> {
        let info = registry::find(OPERATION)?;
        let mut tensors = NamedTensors::new();
        for (argument, name) in NAMES {
            let name = format!("model.layers.{layer}.{name}");
            if let Some(view) = self.view(&name)? {
                tensors.insert(argument.to_owned(), converted(info, argument, &view)?);
            }
        }
        let Some(up) = tensors.get("up_weight").map(Tensor::layout) else {
            return Err(self.not_like_llama(&format!("model.layers.{layer}.mlp.up_proj.weight")));
        };
        let x = TensorSpec {
            name: "x",
            dtype: up.dtype(),
            shape: vec![rows, up.columns()],
            gap: 0,
            fill: Fill::Normal { scale: 1.0 },
        };
        let x = x.draw(layer as u64)?;
        tensors.insert("residual".to_owned(), x.clone());
        tensors.insert("x".to_owned(), x);
        let mut parameters = Parameters::new();
        if let Some(norm) = tensors.get_mut("norm_weight") {
            *norm = rounded(norm, up.dtype())?;
            parameters = parameters.with("eps", &self.config.rms_norm_eps.to_string());
        }
        Ok((tensors, parameters))
    }

    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>, Error> {
        let Some(&place) = self.places.get(name) else { return Ok(None) };
        let file = &self.files[place];
        let view = file.tensors()?.tensor(name);
        view.map(Some).map_err(|error| file_error(file.path(), format!("`{name}`: {error}"), ""))
    }

    fn not_like_llama(&self, name: &str) -> Error {
        let remedy = "a checkpoint of the Llama architecture is needed";
        file_error(&self.folder, format!("has no `{name}`"), remedy)
    }
}

fn converted(
    info: &OperationInfo,
    name: &'static str,
    view: &TensorView<'_>,
) -> Result<Tensor, Error> {
    elements::tensor(info, elements::argument(info, name)?, view)
}

/// Some checkpoints keep norm weights in f32 beside narrower matrices; operations take one weight type.
pub fn rounded(tensor: &Tensor, dtype: DType) -> Result<Tensor, Error> {
    let layout = Layout::contiguous(dtype, tensor.layout().shape())?;
    Ok(Tensor::from_f64(layout, tensor.view().to_f64()))
}

/// Reads and understands a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| file_error(path, format!("cannot be read: {error}"), ""))?;
    serde_json::from_str(&text)
        .map_err(|error| file_error(path, format!("cannot be understood: {error}"), ""))
}
