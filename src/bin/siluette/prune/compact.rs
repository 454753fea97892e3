//! DISP-LLM: the weights that the index sets leave.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use siluette::device::NamedTensors;
use siluette::{Error, IndexSet, LayerIndexSets, ModelIndexSets, Parameters, Tensor};

use super::compute::{matrix, on_cpu};
use super::folder::PendingFolder;
use super::llama::{Llama, Projection};
use super::shards::{self, Change};
use crate::{model, output};

/// The file of index sets in the output folder.
pub const SETS_FILE: &str = "index_sets.safetensors";

/// How many features each layer keeps, and what that leaves of its weights.
pub fn report(model: &Llama, sets: &ModelIndexSets) -> Result<String, Error> {
    let mut heading = vec!["layer".to_owned()];
    heading.extend(LayerIndexSets::NAMES.map(str::to_owned));
    heading.extend(["attention", "mlp"].map(str::to_owned));
    let mut rows = vec![heading];
    for (index, layer) in sets.layers().iter().enumerate() {
        let mut row = vec![index.to_string()];
        row.extend(layer.sets().map(|set| format!("{}/{}", set.len(), set.domain())));
        row.push(format!("{:.1}%", 100.0 * layer.attention_share()));
        row.push(format!("{:.1}%", 100.0 * layer.mlp_share()));
        rows.push(row);
    }
    let (mut before, mut after) = (0usize, 0usize);
    let change = Compaction { sets };
    for file in model.checkpoint().files() {
        for (name, view) in file.tensors()?.iter() {
            before += view.shape().iter().product::<usize>();
            after += change.shape(name, &view).iter().product::<usize>();
        }
    }
    Ok(format!(
        "{}{before} parameters, {after} are left ({:.1}%)\n",
        output::table(&rows, 1),
        100.0 * after as f64 / before.max(1) as f64
    ))
}

pub fn write(model: &Llama, sets: &ModelIndexSets, folder: PendingFolder) -> Result<(), Error> {
    shards::write(model, &Compaction { sets }, &folder)?;
    folder.write(SETS_FILE, &sets.to_safetensors()?)?;
    let mut config: Value = model::read_json(&model.path("config.json"))?;
    let layers: Vec<Value> = sets
        .layers()
        .iter()
        .map(|layer| {
            let lengths = layer.sets().map(IndexSet::len);
            BTreeMap::from_iter(LayerIndexSets::NAMES.into_iter().zip(lengths))
        })
        .map(|lengths| json!(lengths))
        .collect();
    config["siluette"] = json!({
        "method": "disp_llm",
        "index_sets": SETS_FILE,
        "norm_scope": "full",
        "layers": layers,
    });
    folder.write("config.json", format!("{config:#}\n").as_bytes())?;
    folder.commit()
}

struct Compaction<'a> {
    sets: &'a ModelIndexSets,
}

impl Compaction<'_> {
    /// The sets that a tensor's rows and columns are cut to.
    fn cut(&self, name: &str) -> (Option<&IndexSet>, Option<&IndexSet>) {
        let weight = name.strip_suffix(".bias").map(|stem| format!("{stem}.weight"));
        let Some((layer, projection)) = Projection::of(weight.as_deref().unwrap_or(name)) else {
            return (None, None);
        };
        let Some(layer) = self.sets.layers().get(layer) else { return (None, None) };
        let [rows, columns] = projection.cut(layer);
        // A bias is one value a row.
        if weight.is_some() { (None, rows) } else { (rows, columns) }
    }
}

impl Change for Compaction<'_> {
    fn shape(&self, name: &str, tensor: &TensorView<'_>) -> Vec<usize> {
        let (rows, columns) = self.cut(name);
        let mut shape = tensor.shape().to_vec();
        let kept = [columns, rows];
        for (length, set) in shape.iter_mut().rev().zip(kept) {
            *length = set.map_or(*length, IndexSet::len);
        }
        shape
    }

    fn contents(&self, name: &str, tensor: &TensorView<'_>) -> Result<Option<Vec<u8>>, Error> {
        let (rows, columns) = self.cut(name);
        if rows.is_none() && columns.is_none() {
            return Ok(None);
        }
        let mut inputs = NamedTensors::new();
        inputs.insert("weight".to_owned(), matrix("compact_weight", "weight", tensor)?);
        for (name, set) in [("rows", rows), ("columns", columns)] {
            if let Some(set) = set {
                inputs.insert(name.to_owned(), Tensor::copy_of(set.indices_tensor()));
            }
        }
        let mut outputs = on_cpu("compact_weight", inputs, &Parameters::new())?;
        Ok(outputs.remove("out").map(|out| out.view().span_bytes().to_vec()))
    }
}
