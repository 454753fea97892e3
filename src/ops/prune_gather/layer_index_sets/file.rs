//! The sets as a safetensors file.

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{LayerIndexSets, ModelIndexSets, OP};
use crate::error::{Error, Problem};
use crate::ops::prune_gather::IndexSet;
use crate::ops::prune_gather::index_set::check_rank;

/// # The file
///
/// One safetensors file holds every set, for layer `i` and each name of [`LayerIndexSets::NAMES`]:
///
/// | tensor | dtype and shape | |
/// |---|---|---|
/// | `layers.{i}.{name}.indices` | U32 `[k]` | strictly ascending |
/// | `layers.{i}.{name}.rank` | I32 `[n]` | the inverse: position in `indices`, or -1 |
///
/// so that both can be copied to a device as they lie. When a file is read, a set may instead be one
/// tensor `layers.{i}.{name}.mask`, U8 or BOOL `[n]`, not 0 for what is kept.
impl ModelIndexSets {
    /// The file's contents.
    ///
    /// # Errors
    /// [`Problem::Size`] for contents that safetensors cannot hold.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, Error> {
        let mut tensors = Vec::new();
        for (index, layer) in self.layers().iter().enumerate() {
            for (name, set) in LayerIndexSets::NAMES.into_iter().zip(layer.sets()) {
                let indices = (Dtype::U32, bytemuck::cast_slice(set.indices()), set.len());
                let rank = (Dtype::I32, bytemuck::cast_slice(set.rank()), set.domain());
                for (part, (dtype, bytes, length)) in [("indices", indices), ("rank", rank)] {
                    let view = TensorView::new(dtype, vec![length], bytes).map_err(too_large)?;
                    tensors.push((format!("layers.{index}.{name}.{part}"), view));
                }
            }
        }
        let metadata = HashMap::from([("siluette".to_owned(), "index_sets".to_owned())]);
        safetensors::serialize(tensors, Some(metadata)).map_err(too_large)
    }

    /// Reads a file's contents.
    ///
    /// # Errors
    /// [`Problem::Value`] for what is no safetensors file, for a set that is not strictly ascending or whose
    /// rank is not its inverse; [`Problem::Missing`] and [`Problem::Unexpected`] name a tensor.
    pub fn from_safetensors(bytes: &[u8]) -> Result<ModelIndexSets, Error> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| {
            let expected = "a whole safetensors file";
            Error::argument(OP, "file", Problem::Value, expected, error, "")
        })?;
        let mut names: Vec<&str> = tensors.names();
        let count = names.iter().filter_map(|name| layer_of(name)).max().map_or(0, |last| last + 1);
        // Every layer takes at least five tensors: a larger number is a typing mistake, not a model.
        let layers = (0..count.min(names.len()))
            .map(|layer| read_layer(&tensors, layer, &mut names))
            .collect::<Result<_, Error>>()?;
        if let Some(name) = names.first() {
            let expected = "layers.{i}.{set}.indices, .rank or .mask";
            let got = format!("`{name}`");
            return Err(Error::argument(OP, "tensor", Problem::Unexpected, expected, got, ""));
        }
        ModelIndexSets::new(layers)
    }
}

fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("layers.")?.split_once('.')?.0.parse().ok()
}

/// Takes the layer's tensors off the list of names.
fn read_layer(
    tensors: &SafeTensors<'_>,
    layer: usize,
    names: &mut Vec<&str>,
) -> Result<LayerIndexSets, Error> {
    let mut read = |set: &'static str| {
        let mut take = |part: &str| {
            let name = format!("layers.{layer}.{set}.{part}");
            let view = tensors.tensor(&name).ok()?;
            names.retain(|other| *other != name);
            Some((name, view))
        };
        match (take("mask"), take("indices"), take("rank")) {
            (Some(mask), None, None) => read_mask(mask),
            (None, Some(indices), Some(rank)) => read_set(indices, rank),
            _ => {
                let argument = format!("layers.{layer}.{set}");
                let expected = "either .mask, or .indices and .rank";
                let got = "another combination of tensors";
                Err(Error::argument(OP, argument, Problem::Missing, expected, got, ""))
            }
        }
    };
    let [s1, s2, s3, s4, s5] = LayerIndexSets::NAMES;
    Ok(LayerIndexSets::from_sets([read(s1)?, read(s2)?, read(s3)?, read(s4)?, read(s5)?]))
}

type Named<'a> = (String, TensorView<'a>);

fn read_mask((name, view): Named<'_>) -> Result<IndexSet, Error> {
    check_vector(&name, &view, &[Dtype::U8, Dtype::BOOL])?;
    IndexSet::from_mask(view.data()).map_err(|error| renamed(error, name))
}

fn read_set((name, indices): Named<'_>, (rank_name, rank): Named<'_>) -> Result<IndexSet, Error> {
    check_vector(&name, &indices, &[Dtype::U32])?;
    check_vector(&rank_name, &rank, &[Dtype::I32])?;
    let indices = words(indices.data()).map(u32::from_le_bytes).collect();
    let rank: Vec<i32> = words(rank.data()).map(i32::from_le_bytes).collect();
    let set = IndexSet::new(indices, rank.len()).map_err(|error| renamed(error, name))?;
    check_rank(OP, "rank", set.indices(), &rank).map_err(|error| renamed(error, rank_name))?;
    Ok(set)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.as_chunks().0.iter().copied()
}

fn check_vector(name: &str, view: &TensorView<'_>, dtypes: &[Dtype]) -> Result<(), Error> {
    let name = name.to_owned();
    if !dtypes.contains(&view.dtype()) {
        let (expected, got) = (format!("{dtypes:?}"), format!("{:?}", view.dtype()));
        return Err(Error::argument(OP, name, Problem::DType, expected, got, ""));
    }
    if view.shape().len() != 1 {
        let got = format!("{:?}", view.shape());
        return Err(Error::argument(OP, name, Problem::Shape, "[n]", got, ""));
    }
    Ok(())
}

/// The error about the tensor of the file, not about the argument that it became.
fn renamed(error: Error, name: String) -> Error {
    match error {
        Error::Argument { problem, expected, got, remedy, .. } => {
            Error::Argument { op: OP, argument: name.into(), problem, expected, got, remedy }
        }
        other => other,
    }
}

fn too_large(error: safetensors::SafeTensorError) -> Error {
    Error::argument(OP, "file", Problem::Size, "what safetensors can hold", error, "")
}

#[cfg(test)]
mod tests {
    use super::super::tests::layer;
    use super::*;

    fn model() -> ModelIndexSets {
        ModelIndexSets::new(vec![layer(4, 6), layer(4, 6)]).unwrap()
    }

    /// The file with one tensor replaced, or left out.
    fn changed(name: &str, tensor: Option<(&str, Dtype, &[u8])>) -> String {
        let bytes = model().to_safetensors().unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut views: Vec<(String, TensorView<'_>)> =
            tensors.tensors().into_iter().filter(|(other, _)| other != name).collect();
        if let Some((name, dtype, bytes)) = tensor {
            let length = bytes.len() * 8 / dtype.bitsize();
            views.push((name.to_owned(), TensorView::new(dtype, vec![length], bytes).unwrap()));
        }
        let bytes = safetensors::serialize(views, None).unwrap();
        match ModelIndexSets::from_safetensors(&bytes) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_model_comes_back_from_its_file() {
        let bytes = model().to_safetensors().unwrap();
        assert_eq!(ModelIndexSets::from_safetensors(&bytes).unwrap(), model());
        let none = ModelIndexSets::new(Vec::new()).unwrap();
        let bytes = none.to_safetensors().unwrap();
        assert_eq!(ModelIndexSets::from_safetensors(&bytes).unwrap(), none);
    }

    #[test]
    fn mistakes_name_the_tensor() {
        let indices = "layers.1.mlp_mid.indices";
        let words = |words: [u32; 3]| words.map(u32::to_le_bytes).concat();
        for (name, replacement, expected) in [
            (indices, None, "layers.1.mlp_mid"),
            (indices, Some((indices, Dtype::U32, words([0, 4, 2]))), "2 at position 2"),
            (indices, Some((indices, Dtype::U32, words([0, 2, 5]))), "at position 4, expected -1"),
            (indices, Some((indices, Dtype::F32, words([0, 2, 4]))), "F32"),
            ("", Some(("layers.1.mlp.mask", Dtype::U8, vec![1])), "layers.1.mlp.mask"),
            ("", Some(("layers.9000.mlp_mid.mask", Dtype::U8, vec![1])), "layers.2."),
            ("", Some(("layers.0.mlp_mid.mask", Dtype::U8, vec![1])), "layers.0.mlp_mid"),
        ] {
            let replacement =
                replacement.as_ref().map(|(name, dtype, bytes)| (*name, *dtype, bytes.as_slice()));
            let message = changed(name, replacement);
            assert!(message.contains(expected), "{message} instead of {expected}");
        }
        assert!(ModelIndexSets::from_safetensors(b"nothing").is_err());
    }

    #[test]
    fn masks_are_taken_as_well() {
        let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, set) in LayerIndexSets::NAMES.into_iter().zip(layer(4, 6).sets()) {
            tensors.push((format!("layers.0.{name}.mask"), set.to_mask()));
        }
        let views = tensors.iter().map(|(name, mask)| {
            (name, TensorView::new(Dtype::BOOL, vec![mask.len()], mask).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        let model = ModelIndexSets::from_safetensors(&bytes).unwrap();
        assert_eq!(model.layers(), [layer(4, 6)]);
    }
}
