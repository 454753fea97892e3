//! A checkpoint of the Llama architecture, its shapes proven against its configuration.

use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use serde::Deserialize;
use siluette::{Error, IndexSet, LayerIndexSets, ModelIndexSets};

use crate::model::{self, Checkpoint};
use crate::output::file_error;

#[derive(Debug, Deserialize)]
struct Config {
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
}

/// The matrices of a layer, as Hugging Face calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    Query,
    Key,
    Value,
    AttentionOutput,
    Gate,
    Up,
    Down,
}

impl Projection {
    pub const ALL: [Projection; 7] = [
        Projection::Query,
        Projection::Key,
        Projection::Value,
        Projection::AttentionOutput,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    const fn name(self) -> &'static str {
        match self {
            Projection::Query => "self_attn.q_proj.weight",
            Projection::Key => "self_attn.k_proj.weight",
            Projection::Value => "self_attn.v_proj.weight",
            Projection::AttentionOutput => "self_attn.o_proj.weight",
            Projection::Gate => "mlp.gate_proj.weight",
            Projection::Up => "mlp.up_proj.weight",
            Projection::Down => "mlp.down_proj.weight",
        }
    }

    /// The tensor of one layer.
    pub fn tensor(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.name())
    }

    /// Which layer and matrix a tensor is.
    pub fn of(tensor: &str) -> Option<(usize, Projection)> {
        let (layer, name) = tensor.strip_prefix("model.layers.")?.split_once('.')?;
        let projection = Projection::ALL.into_iter().find(|projection| projection.name() == name);
        Some((layer.parse().ok()?, projection?))
    }

    /// The sets that its rows and its columns are cut to, as places in [`LayerIndexSets::sets`].
    const fn sets(self) -> [Option<usize>; 2] {
        const ATTENTION_IN: Option<usize> = Some(0);
        const ATTENTION_OUT: Option<usize> = Some(1);
        const MLP_IN: Option<usize> = Some(2);
        const MLP_MID: Option<usize> = Some(3);
        const MLP_OUT: Option<usize> = Some(4);
        match self {
            Projection::Query | Projection::Key | Projection::Value => [None, ATTENTION_IN],
            Projection::AttentionOutput => [ATTENTION_OUT, None],
            Projection::Gate | Projection::Up => [MLP_MID, MLP_IN],
            Projection::Down => [MLP_OUT, MLP_MID],
        }
    }

    /// The sets of its layer that its rows and its columns are cut to.
    pub fn cut(self, layer: &LayerIndexSets) -> [Option<&IndexSet>; 2] {
        let sets = layer.sets();
        self.sets().map(|place| place.map(|place| sets[place]))
    }
}

/// A Llama.
#[derive(Debug)]
pub struct Llama {
    checkpoint: Checkpoint,
    config: Config,
}

impl Llama {
    /// Opens a checkpoint and compares every layer's shapes with its configuration.
    pub fn open(folder: &Path) -> Result<Llama, Error> {
        let checkpoint = Checkpoint::open(folder)?;
        let config: Config = model::read_json(&folder.join("config.json"))?;
        let llama = Llama { checkpoint, config };
        for layer in 0..llama.layers() {
            for projection in Projection::ALL {
                llama.check_shape(layer, projection)?;
            }
        }
        Ok(llama)
    }

    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub fn layers(&self) -> usize {
        self.config.num_hidden_layers
    }

    pub fn width(&self) -> usize {
        self.config.hidden_size
    }

    pub fn neurons(&self) -> usize {
        self.config.intermediate_size
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.checkpoint.folder().join(name)
    }

    /// One matrix, `[out_features, in_features]`.
    pub fn matrix(&self, layer: usize, projection: Projection) -> Result<TensorView<'_>, Error> {
        self.checkpoint.require(&projection.tensor(layer))
    }

    /// The index sets of a file, which must fit this model.
    pub fn read_sets(&self, file: &Path) -> Result<ModelIndexSets, Error> {
        let bytes = std::fs::read(file)
            .map_err(|error| file_error(file, format!("cannot be read: {error}"), ""))?;
        let sets = ModelIndexSets::from_safetensors(&bytes)
            .map_err(|error| file_error(file, error.to_string(), ""))?;
        let got = [sets.layers().len(), sets.width(), sets.neurons()];
        let expected = [self.layers(), self.width(), self.neurons()];
        if got != expected {
            let reason = format!(
                "holds sets of {} layers, {} features and {} neurons, the model has {}, {} and {}",
                got[0], got[1], got[2], expected[0], expected[1], expected[2]
            );
            return Err(file_error(file, reason, "masks belong to one model"));
        }
        Ok(sets)
    }

    fn shape(&self, projection: Projection) -> [usize; 2] {
        let config = &self.config;
        let (width, neurons) = (config.hidden_size, config.intermediate_size);
        let head = config.head_dim.unwrap_or(width / config.num_attention_heads.max(1));
        let queries = config.num_attention_heads * head;
        let keys = config.num_key_value_heads.unwrap_or(config.num_attention_heads) * head;
        match projection {
            Projection::Query => [queries, width],
            Projection::Key | Projection::Value => [keys, width],
            Projection::AttentionOutput => [width, queries],
            Projection::Gate | Projection::Up => [neurons, width],
            Projection::Down => [width, neurons],
        }
    }

    fn check_shape(&self, layer: usize, projection: Projection) -> Result<(), Error> {
        let (got, expected) = (self.matrix(layer, projection)?, self.shape(projection));
        if got.shape() == expected {
            return Ok(());
        }
        let tensor = projection.tensor(layer);
        let reason =
            format!("`{tensor}` has shape {:?}, config.json says {expected:?}", got.shape());
        Err(file_error(self.checkpoint.folder(), reason, "the files belong to different models"))
    }
}
