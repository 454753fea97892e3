//! The weights of a trained `torch.nn.GRU`, from a safetensors file.

use std::path::Path;

use super::{BiGru, BiGruArgs};
use crate::arguments::MAX_REPEATED;
use crate::dtype::DType;
use crate::error::Error;
use crate::ops::feature_attention::gru::weights::{GruTensorsOwned, gru_arguments};
use crate::ops::feature_attention::weight_file::{self, WeightFile};
use crate::tensor::{TensorMut, TensorRef};

/// The weights of a bidirectional `torch.nn.GRU`, in host memory, and the descriptor that goes with them.
///
/// The names are those of the PyTorch module, behind a prefix such as `encoder.`: `weight_ih_l{k}`, `weight_hh_l{k}`,
/// `bias_ih_l{k}`, `bias_hh_l{k}` for each layer `k`, and the same with `_reverse`, in F32, F16 or BF16. Biases may be
/// missing. Every tensor is rounded once, to the type asked for.
#[derive(Clone, Debug)]
pub struct BiGruWeights {
    op: BiGru,
    tensors: GruTensorsOwned,
}

impl BiGruWeights {
    /// Reads a file: the tensors whose names start with `prefix`, for activations of type `dtype` and weights of
    /// `weight_dtype`.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read or is not a safetensors file, names a tensor that is missing or of
    /// another shape or type, and tells GRUs whose gates have another order: metadata `gate_order` other than `rzn`, or
    /// tensors named as in ONNX or Keras; [`Error::Argument`] for types that do not go together or too many layers.
    pub fn load(
        path: impl AsRef<Path>,
        prefix: &str,
        dtype: DType,
        weight_dtype: DType,
    ) -> Result<BiGruWeights, Error> {
        let bytes = weight_file::read(path.as_ref())?;
        weights(&WeightFile::new(path.as_ref(), &bytes, prefix)?, dtype, weight_dtype)
    }

    /// As [`BiGruWeights::load`], from the contents of a file.
    ///
    /// # Errors
    /// As [`BiGruWeights::load`].
    pub fn from_safetensors(
        bytes: &[u8],
        prefix: &str,
        dtype: DType,
        weight_dtype: DType,
    ) -> Result<BiGruWeights, Error> {
        weights(&WeightFile::new(Path::new("safetensors"), bytes, prefix)?, dtype, weight_dtype)
    }

    /// The descriptor.
    pub fn descriptor(&self) -> BiGru {
        self.op
    }

    /// The arguments of a call on the CPU; lengths and states may be added.
    pub fn args<'a>(
        &'a self,
        x: TensorRef<'a>,
        out: TensorMut<'a>,
    ) -> BiGruArgs<TensorRef<'a>, TensorMut<'a>> {
        gru_arguments!(BiGruArgs::new(x, out), self.tensors)
    }
}

fn weights(
    file: &WeightFile<'_>,
    dtype: DType,
    weight_dtype: DType,
) -> Result<BiGruWeights, Error> {
    file.check_gates()?;
    let layers = (1..=MAX_REPEATED)
        .take_while(|layer| file.find(&format!("weight_ih_l{layer}")).is_some())
        .count();
    let [_, input] = file.matrix_shape("weight_ih_l0", "[3h, I]")?;
    let [_, hidden] = file.matrix_shape("weight_hh_l0", "[3h, h]")?;
    let op = BiGru::new(input, hidden, 1 + layers, dtype)?.with_weight_dtype(weight_dtype)?;
    let mut tensors = GruTensorsOwned::default();
    for layer in 0..=layers {
        let inputs = if layer == 0 { input } else { 2 * hidden };
        let name = |tensor: &str, direction: &str| format!("{tensor}_l{layer}{direction}");
        tensors.read(file, name, [inputs, hidden], weight_dtype)?;
    }
    Ok(BiGruWeights { op, tensors })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::{Cpu, Workspace};

    /// A file of one layer of one unit over two features, without the tensors whose names contain `missing`.
    fn file(missing: &str, more: &[&str], gate_order: Option<&str>) -> Vec<u8> {
        let mut entries: Vec<(String, Vec<usize>)> = Vec::new();
        for direction in ["", "_reverse"] {
            entries.push((format!("gru.weight_ih_l0{direction}"), vec![3, 2]));
            entries.push((format!("gru.weight_hh_l0{direction}"), vec![3, 1]));
            entries.push((format!("gru.bias_hh_l0{direction}"), vec![3]));
        }
        entries.retain(|(name, _)| missing.is_empty() || !name.contains(missing));
        entries.extend(more.iter().map(|name| (format!("gru.{name}"), vec![1])));
        let bytes = 0.5f32.to_le_bytes().repeat(6);
        let views = entries.iter().map(|(name, shape)| {
            let size = 4 * shape.iter().product::<usize>();
            (name, TensorView::new(Dtype::F32, shape.clone(), &bytes[..size]).unwrap())
        });
        let metadata = gate_order.map(|order| HashMap::from([("gate_order".into(), order.into())]));
        safetensors::serialize(views, metadata).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<BiGruWeights, Error> {
        BiGruWeights::from_safetensors(bytes, "gru.", DType::F32, DType::F32)
    }

    #[track_caller]
    fn assert_refused(bytes: &[u8], words: &str) {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn a_module_is_read_by_its_names() {
        let weights = read(&file("", &[], Some("r, z, n"))).unwrap();
        let op = weights.descriptor();
        assert_eq!((op.input(), op.hidden(), op.layers()), (2, 1, 1));
        let (x, mut out) = ([1.0f32, -1.0], [9.0f32; 2]);
        let x = TensorRef::new(&x, &[1, 1, 2]).unwrap();
        let args = weights.args(x, TensorMut::new(&mut out, &[1, 1, 2]).unwrap());
        assert!(args.bias_ih.get(0).is_none() && args.bias_hh_reverse.get(0).is_some());
        Cpu::new().bigru(&op, args, &mut Workspace::default()).unwrap();
        // All gates see 0 from the input and 0.5 from a bias.
        let gate = 1.0 / (1.0 + (-0.5f64).exp());
        let expected = (1.0 - gate) * (gate * 0.5).tanh();
        assert!(out.iter().all(|&state| (f64::from(state) - expected).abs() < 1e-6), "{out:?}");
    }

    #[test]
    fn bad_files_name_the_tensor() {
        assert_refused(
            &file("weight_hh_l0_reverse", &[], None),
            "`gru.weight_hh_l0_reverse` is missing",
        );
        assert_refused(&file("weight_ih_l0", &[], None), "`gru.weight_ih_l0` is missing");
        assert_refused(
            &file("bias_hh_l0", &["bias_hh_l0"], None),
            "`gru.bias_hh_l0` has shape [1]",
        );
    }

    #[test]
    fn gates_of_other_frameworks_are_named_as_such() {
        assert_refused(&file("", &[], Some("zrh")), "ONNX, haste and Keras");
        assert_refused(&file("", &["W", "R"], None), "ONNX");
        assert_refused(&file("", &["kernel", "recurrent_kernel"], None), "Keras");
    }
}
