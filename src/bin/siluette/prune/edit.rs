//! DEAN: zeroing the weights that two tasks share.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use siluette::device::NamedTensors;
use siluette::{Error, Parameters, Tensor};

use super::compute::{matrix, on_cpu};
use super::folder::PendingFolder;
use super::llama::Llama;
use super::shards::{self, Change};
use crate::output::{self, file_error};
use crate::tensor_file::TensorFile;

/// Score tensors of a weight are called after it, with one of these before.
const SCORES: [&str; 3] = ["general", "first", "second"];

/// Flat positions to zero, by tensor.
#[derive(Debug)]
pub struct Edits {
    indices: BTreeMap<String, Vec<u32>>,
    elements: BTreeMap<String, usize>,
}

/// Finds the coupled neurons of every weight that has scores.
pub fn find(model: &Llama, scores: &Path, parameters: &Parameters) -> Result<Edits, Error> {
    let file = TensorFile::open(scores)?;
    let tensors = file.tensors()?;
    let mut weights: Vec<String> = Vec::new();
    for name in tensors.names() {
        let weight = name.split_once('.').filter(|(score, _)| SCORES.contains(score));
        let Some((_, weight)) = weight else {
            let reason =
                format!("holds `{name}`, expected general., first. or second. and a weight");
            return Err(file_error(scores, reason, ""));
        };
        weights.push(weight.to_owned());
    }
    weights.sort();
    weights.dedup();
    let progress = output::progress(weights.len());
    let mut edits = Edits { indices: BTreeMap::new(), elements: BTreeMap::new() };
    for weight in weights {
        let view = model.checkpoint().require(&weight)?;
        let mut inputs = NamedTensors::new();
        for score in SCORES {
            let name = format!("{score}.{weight}");
            let tensor = tensors
                .tensor(&name)
                .map_err(|error| file_error(scores, format!("`{name}`: {error}"), ""))?;
            if tensor.shape() != view.shape() {
                let (got, expected) = (tensor.shape(), view.shape());
                let reason = format!("`{name}` has shape {got:?}, the weight has {expected:?}");
                return Err(file_error(scores, reason, ""));
            }
            inputs.insert(score.to_owned(), matrix("coupled_neurons", score, &tensor)?);
        }
        let found = on_cpu("coupled_neurons", inputs, parameters)
            .map_err(|error| file_error(scores, format!("`{weight}`: {error}"), ""))?;
        let indices = found.get("indices").and_then(|tensor| tensor.view().as_slice::<u32>());
        edits.elements.insert(weight.clone(), view.shape().iter().product());
        edits.indices.insert(weight, indices.unwrap_or_default().to_vec());
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(edits)
}

impl Edits {
    /// How many entries of which tensors go.
    pub fn report(&self) -> String {
        let mut rows = vec![["weight", "entries", "zeroed"].map(str::to_owned).to_vec()];
        let mut total = 0;
        for (weight, indices) in &self.indices {
            rows.push(vec![
                weight.clone(),
                self.elements[weight].to_string(),
                indices.len().to_string(),
            ]);
            total += indices.len();
        }
        format!("{}{total} entries are zeroed\n", output::table(&rows, 1))
    }
}

pub fn write(model: &Llama, edits: &Edits, folder: PendingFolder) -> Result<(), Error> {
    shards::write(model, edits, &folder)?;
    folder.copy(&model.path("config.json"), "config.json")?;
    folder.commit()
}

impl Change for Edits {
    fn shape(&self, _name: &str, tensor: &TensorView<'_>) -> Vec<usize> {
        tensor.shape().to_vec()
    }

    fn contents(&self, name: &str, tensor: &TensorView<'_>) -> Result<Option<Vec<u8>>, Error> {
        let Some(indices) = self.indices.get(name).filter(|indices| !indices.is_empty()) else {
            return Ok(None);
        };
        let inputs = NamedTensors::from([
            ("weight".to_owned(), matrix("zero_entries", "weight", tensor)?),
            ("indices".to_owned(), Tensor::from_slice(indices, &[indices.len()])?),
        ]);
        let mut outputs = on_cpu("zero_entries", inputs, &Parameters::new())?;
        Ok(outputs.remove("out").map(|out| out.view().span_bytes().to_vec()))
    }
}
