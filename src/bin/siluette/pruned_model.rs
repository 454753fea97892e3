//! A pruned checkpoint beside the one that it was made from.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use siluette::conformance::{Fill, Oracle, TensorSpec};
use siluette::device::NamedTensors;
use siluette::{
    DType, Device, Error, HasLayout as _, IndexSet, LayerIndexSets, Layout, ModelIndexSets,
    Parameters, Tensor, registry,
};

use crate::model::{Checkpoint, rounded};
use crate::output::file_error;
use crate::prune::compact::SETS_FILE;
use crate::prune::compute::matrix;
use crate::prune::llama::{Llama, Projection};

/// The MLPs of a pruned model, expected to do what the dense model's do under masks.
pub struct PrunedModel {
    dense: Llama,
    pruned: Checkpoint,
    sets: ModelIndexSets,
    /// The hidden states before each layer of the masked model, as far as they are known.
    states: RefCell<Vec<State>>,
}

/// Hidden states.
struct State {
    /// In the model's type, as a layer reads them.
    rounded: Tensor,
    /// In f32, as the layer before gave them.
    exact: Tensor,
}

impl PrunedModel {
    /// What a pruned layer's block is.
    pub const OPERATION: &'static str = "pruned_gated_mlp";
    const MASKED: &'static str = "masked_gated_mlp";

    /// Opens both folders.
    pub fn open(dense: &Path, pruned: &Path) -> Result<PrunedModel, Error> {
        let dense = Llama::open(dense)?;
        let file: PathBuf = pruned.join(SETS_FILE);
        if !file.exists() {
            let remedy = "name a folder that `siluette prune` made";
            return Err(file_error(&file, "is missing", remedy));
        }
        let sets = dense.read_sets(&file)?;
        let pruned = Checkpoint::open(pruned)?;
        Ok(PrunedModel { dense, pruned, sets, states: RefCell::new(Vec::new()) })
    }

    pub fn layers(&self) -> usize {
        self.dense.layers()
    }

    pub fn name(&self) -> String {
        self.pruned.name()
    }

    pub fn dtype(&self, layer: usize) -> Result<String, Error> {
        self.pruned.dtype(layer)
    }

    /// The pruned block on the hidden states of its place in the masked model, `rows` tokens, with what the masked
    /// block makes of them.
    pub fn oracle(&self, layer: usize, rows: usize) -> Result<Oracle, Error> {
        while self.states.borrow().len() < layer + 2 {
            let next = self.next_state(rows)?;
            self.states.borrow_mut().push(next);
        }
        let states = self.states.borrow();
        let info = registry::find(Self::OPERATION)?;
        let sets = &self.sets.layers()[layer];
        let x = &states[layer].rounded;
        let mut inputs = self.inputs(Self::OPERATION, &self.pruned, layer, x)?;
        for (name, set) in [("in_indices", &sets.mlp_in), ("out_indices", &sets.mlp_out)] {
            inputs.insert(name.to_owned(), Tensor::copy_of(set.indices_tensor()));
        }
        let oracle = Oracle::for_inputs(info, inputs, &self.parameters())?;
        let expected = states[layer + 1].exact.clone();
        oracle.expecting(NamedTensors::from([("out".to_owned(), expected)]))
    }

    /// The first layer's input, random normal, or what the masked model makes of the last state known.
    fn next_state(&self, rows: usize) -> Result<State, Error> {
        let states = self.states.borrow();
        let dense = self.dense.checkpoint();
        let Some(State { rounded: state, .. }) = states.last() else {
            let dtype = self.weight(Self::MASKED, dense, 0, Projection::Up)?.layout().dtype();
            let shape = vec![rows, self.dense.width()];
            let fill = Fill::Normal { scale: 1.0 };
            let x = TensorSpec { name: "x", dtype, shape, gap: 0, fill }.draw(0)?;
            return Ok(State { rounded: x.clone(), exact: x });
        };
        let layer = states.len() - 1;
        let sets: &LayerIndexSets = &self.sets.layers()[layer];
        let mut inputs = self.inputs(Self::MASKED, dense, layer, state)?;
        inputs.insert("residual".to_owned(), state.clone());
        for (name, set) in
            [("in_mask", &sets.mlp_in), ("mid_mask", &sets.mlp_mid), ("out_mask", &sets.mlp_out)]
        {
            inputs.insert(name.to_owned(), mask(set)?);
        }
        let prepared = registry::find(Self::MASKED)?.prepare(inputs, &self.parameters())?;
        let shape = [rows, self.dense.width()];
        let mut exact = Tensor::zeros(Layout::contiguous(DType::F32, &shape)?);
        let outputs = NamedTensors::from([("out".to_owned(), exact.clone())]);
        let mut loaded = prepared.load(&Device::Reference, outputs)?;
        loaded.run(1)?;
        if let Some(out) = loaded.outputs()?.remove("out") {
            exact = out;
        }
        Ok(State { rounded: rounded(&exact, state.layout().dtype())?, exact })
    }

    /// What the dense and the pruned block have in common.
    fn inputs(
        &self,
        operation: &str,
        checkpoint: &Checkpoint,
        layer: usize,
        x: &Tensor,
    ) -> Result<NamedTensors, Error> {
        let weight = |projection| self.weight(operation, checkpoint, layer, projection);
        let norm = format!("model.layers.{layer}.post_attention_layernorm.weight");
        let norm = rounded_vector(checkpoint, operation, &norm, x)?;
        Ok(NamedTensors::from([
            ("x".to_owned(), x.clone()),
            ("gate_weight".to_owned(), weight(Projection::Gate)?),
            ("up_weight".to_owned(), weight(Projection::Up)?),
            ("down_weight".to_owned(), weight(Projection::Down)?),
            ("norm_weight".to_owned(), norm),
        ]))
    }

    fn weight(
        &self,
        operation: &str,
        checkpoint: &Checkpoint,
        layer: usize,
        projection: Projection,
    ) -> Result<Tensor, Error> {
        matrix(operation, "down_weight", &checkpoint.require(&projection.tensor(layer))?)
    }

    fn parameters(&self) -> Parameters {
        Parameters::new().with("eps", &self.dense.checkpoint().norm_epsilon().to_string())
    }
}

fn rounded_vector(
    checkpoint: &Checkpoint,
    operation: &str,
    name: &str,
    like: &Tensor,
) -> Result<Tensor, Error> {
    let row = matrix(operation, "norm_weight", &checkpoint.require(name)?)?;
    let vector = Tensor::from_f64(
        Layout::contiguous(row.layout().dtype(), &[row.layout().columns()])?,
        row.view().to_f64(),
    );
    rounded(&vector, like.layout().dtype())
}

/// 1 for members and 0 for others, in f32.
fn mask(set: &IndexSet) -> Result<Tensor, Error> {
    let values: Vec<f32> = set.to_mask().into_iter().map(f32::from).collect();
    Tensor::from_slice(&values, &[values.len()])
}
