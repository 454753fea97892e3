//! The weights of a trained module, from a safetensors file.

use std::path::Path;

use super::{SelectiveFeatureAttention, SelectiveFeatureAttentionArgs};
use crate::arguments::{MAX_REPEATED, Repeated};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::ops::feature_attention::gru::weights::{GruTensorsOwned, gru_arguments};
use crate::ops::feature_attention::weight_file::{self, WeightFile};
use crate::tensor::{Tensor, TensorMut, TensorRef};

/// The weights of one selective feature attention, in host memory, and the descriptor that goes with them.
///
/// The names are those of the authors' PyTorch module, behind a prefix such as `attention.`:
///
/// | tensor | shape | |
/// |---|---|---|
/// | `auto_encoder_start.weight`, `.bias` | `[d1, D, 1]`, `[d1]` | from a token to the branches |
/// | `seq2seq_layers.{i}.weight_ih_l0`, ... | as `torch.nn.GRU` | branch `i` |
/// | `dense_z.0.weight`, `.bias` | `[d2, d1]`, `[d2]` | squeeze |
/// | `dense_select_weights.{i}.0.weight`, `.bias` | `[d1, d2]`, `[d1]` | selection of branch `i` |
/// | `dense_select_weights.{i}.1.weight`, `.bias`, `.running_mean`, `.running_var` | `[d1]` each | batch norm behind it, eps 1e-6; all or none |
/// | `auto_encoder_end.weight`, `.bias` | `[D, d1, 1]`, `[D]` | from the branches to a token |
///
/// in F32, F16 or BF16; the last dimension of the convolutions may be missing. Batch norms are folded into the layers in
/// front of them; every weight is rounded once, to the type asked for.
#[derive(Clone, Debug)]
pub struct SelectiveFeatureAttentionWeights {
    op: SelectiveFeatureAttention,
    branches: GruTensorsOwned,
    reduce: [Tensor; 2],
    squeeze: [Tensor; 2],
    select: Vec<[Tensor; 2]>,
    expand: [Tensor; 2],
}

impl SelectiveFeatureAttentionWeights {
    /// Reads a file: the tensors whose names start with `prefix`, for activations of type `dtype` and weights of
    /// `weight_dtype`.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read or is not a safetensors file, and names a tensor that is missing or of
    /// another shape or type; [`Error::Argument`] for types that do not go together, an odd `d1`, too many branches, and
    /// for a batch norm that [`BatchNorm::fold`](crate::ops::feature_attention::BatchNorm::fold) refuses.
    pub fn load(
        path: impl AsRef<Path>,
        prefix: &str,
        dtype: DType,
        weight_dtype: DType,
    ) -> Result<SelectiveFeatureAttentionWeights, Error> {
        let bytes = weight_file::read(path.as_ref())?;
        weights(&WeightFile::new(path.as_ref(), &bytes, prefix)?, dtype, weight_dtype)
    }

    /// As [`SelectiveFeatureAttentionWeights::load`], from the contents of a file.
    ///
    /// # Errors
    /// As [`SelectiveFeatureAttentionWeights::load`].
    pub fn from_safetensors(
        bytes: &[u8],
        prefix: &str,
        dtype: DType,
        weight_dtype: DType,
    ) -> Result<SelectiveFeatureAttentionWeights, Error> {
        weights(&WeightFile::new(Path::new("safetensors"), bytes, prefix)?, dtype, weight_dtype)
    }

    /// The descriptor, with the paper's stack mode and selection.
    pub fn descriptor(&self) -> SelectiveFeatureAttention {
        self.op
    }

    /// The arguments of a call on the CPU; lengths may be added.
    pub fn args<'a>(
        &'a self,
        x: TensorRef<'a>,
        out: TensorMut<'a>,
    ) -> SelectiveFeatureAttentionArgs<TensorRef<'a>, TensorMut<'a>> {
        let [reduce, squeeze, expand] = [&self.reduce, &self.squeeze, &self.expand];
        let select = |place: usize| {
            Repeated::of_options(self.select.iter().map(|layer| Some(layer[place].view())))
        };
        let args = SelectiveFeatureAttentionArgs::new(
            x,
            reduce[0].view(),
            squeeze[0].view(),
            expand[0].view(),
            out,
        );
        let args = args
            .reduce_bias(reduce[1].view())
            .squeeze_bias(squeeze[1].view())
            .expand_bias(expand[1].view())
            .select_weight(select(0))
            .select_bias(select(1));
        gru_arguments!(args, self.branches)
    }
}

fn weights(
    file: &WeightFile<'_>,
    dtype: DType,
    weight_dtype: DType,
) -> Result<SelectiveFeatureAttentionWeights, Error> {
    let (start, end) = ("auto_encoder_start", "auto_encoder_end");
    let [reduced, features] = match *file.shape(&format!("{start}.weight"))? {
        [reduced, features] | [reduced, features, 1] if reduced > 0 && features > 0 => {
            [reduced, features]
        }
        ref got => {
            let what = format!("has shape {got:?}, expected [d1, D, 1]");
            return Err(file.error(&format!("{start}.weight"), what));
        }
    };
    let [squeezed, _] = file.matrix_shape("dense_z.0.weight", "[d2, d1]")?;
    let branches = (0..=MAX_REPEATED)
        .take_while(|branch| {
            file.find(&format!("dense_select_weights.{branch}.0.weight")).is_some()
        })
        .count();
    let op = SelectiveFeatureAttention::new(features, reduced, squeezed, branches.max(1), dtype)?
        .with_weight_dtype(weight_dtype)?;
    let (mut grus, mut select) = (GruTensorsOwned::default(), Vec::new());
    for branch in 0..op.branches() {
        let name = |tensor: &str, direction: &str| {
            format!("seq2seq_layers.{branch}.{tensor}_l0{direction}")
        };
        grus.read(file, name, [reduced, reduced / 2], weight_dtype)?;
        let layer = format!("dense_select_weights.{branch}");
        let names = [format!("{layer}.0"), format!("{layer}.1")];
        let names = names.each_ref().map(String::as_str);
        select.push(file.linear(names, [reduced, squeezed], weight_dtype)?);
    }
    let convolution = |name: &str, rows: usize, columns: usize| {
        let weight = format!("{name}.weight");
        let shape = file.shape(&weight)?;
        let expected: &[usize] =
            if shape.len() == 2 { &[rows, columns] } else { &[rows, columns, 1] };
        let values = file.values(&weight, expected)?;
        let layout = Layout::contiguous(weight_dtype, &[rows, columns])?;
        let bias = file.tensor(&format!("{name}.bias"), &[rows], weight_dtype)?;
        Ok::<_, Error>([Tensor::from_f64(layout, values), bias])
    };
    Ok(SelectiveFeatureAttentionWeights {
        op,
        branches: grus,
        reduce: convolution(start, reduced, features)?,
        squeeze: [
            file.tensor("dense_z.0.weight", &[squeezed, reduced], weight_dtype)?,
            file.tensor("dense_z.0.bias", &[squeezed], weight_dtype)?,
        ],
        select,
        expand: convolution(end, features, reduced)?,
    })
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::{Cpu, Workspace};

    type Entry = (String, Vec<usize>, f32);

    /// A module of two branches of one unit a direction, over two features.
    fn module() -> Vec<Entry> {
        let entry = |name: &str, shape: &[usize], value| (name.to_owned(), shape.to_vec(), value);
        let mut entries = vec![
            entry("auto_encoder_start.weight", &[2, 2, 1], 0.5),
            entry("auto_encoder_start.bias", &[2], 0.0),
            entry("auto_encoder_end.weight", &[2, 2, 1], 1.0),
            entry("auto_encoder_end.bias", &[2], 3.0),
            entry("dense_z.0.weight", &[1, 2], 1.0),
            entry("dense_z.0.bias", &[1], 0.0),
        ];
        for branch in 0..2 {
            for direction in ["", "_reverse"] {
                let name = |tensor: &str| format!("seq2seq_layers.{branch}.{tensor}_l0{direction}");
                entries.push((name("weight_ih"), vec![3, 2], 0.0));
                entries.push((name("weight_hh"), vec![3, 1], 0.0));
                entries.push((name("bias_ih"), vec![3], 0.5));
                entries.push((name("bias_hh"), vec![3], 0.0));
            }
            let name = |tensor: &str| format!("dense_select_weights.{branch}.{tensor}");
            entries.push((name("0.weight"), vec![2, 1], 1.0));
            entries.push((name("0.bias"), vec![2], 0.0));
            for (tensor, value) in [("weight", 2.0), ("bias", 0.0), ("running_mean", 1.0)] {
                entries.push((name(&format!("1.{tensor}")), vec![2], value));
            }
            entries.push((name("1.running_var"), vec![2], 4.0));
        }
        entries
    }

    fn read(entries: &[Entry]) -> Result<SelectiveFeatureAttentionWeights, Error> {
        let bytes: Vec<Vec<u8>> = entries
            .iter()
            .map(|(_, shape, value)| value.to_le_bytes().repeat(shape.iter().product()))
            .collect();
        let views = entries.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        let (dtype, weight) = (DType::F32, DType::F32);
        SelectiveFeatureAttentionWeights::from_safetensors(&bytes, "", dtype, weight)
    }

    #[test]
    fn a_module_is_read_by_its_names() {
        let weights = read(&module()).unwrap();
        let op = weights.descriptor();
        let sizes = [op.features(), op.reduced(), op.squeezed(), op.branches()];
        assert_eq!(sizes, [2, 2, 1, 2]);
        let (x, mut out) = ([1.0f32, -1.0], [9.0f32; 2]);
        let x = TensorRef::new(&x, &[1, 1, 2]).unwrap();
        let args = weights.args(x, TensorMut::new(&mut out, &[1, 1, 2]).unwrap());
        let factor = 2.0 / 4.000_001f64.sqrt();
        let folded = args.select_weight.get(1).unwrap().to_f64();
        assert!((folded[0] - factor).abs() < 1e-6, "{folded:?}");
        let folded = args.select_bias.get(1).unwrap().to_f64();
        assert!((folded[0] + factor).abs() < 1e-6, "{folded:?}");
        Cpu::new().selective_feature_attention(&op, args, &mut Workspace::default()).unwrap();
        // All branches have the same state in every channel, whatever their weights.
        let gate = 1.0 / (1.0 + (-0.5f64).exp());
        let expected = 2.0 * (1.0 - gate) * 0.5f64.tanh() + 3.0;
        assert!(out.iter().all(|&y| (f64::from(y) - expected).abs() < 1e-5), "{out:?} {expected}");
    }

    #[test]
    fn bad_files_name_the_tensor() {
        let refuse = |change: &dyn Fn(&mut Vec<Entry>), words: &str| {
            let mut entries = module();
            change(&mut entries);
            let error = read(&entries).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let without = |name: &'static str| {
            move |entries: &mut Vec<Entry>| entries.retain(|(entry, ..)| entry != name)
        };
        refuse(&without("auto_encoder_start.weight"), "`auto_encoder_start.weight` is missing");
        refuse(
            &without("dense_select_weights.0.0.weight"),
            "`dense_select_weights.0.0.weight` is missing",
        );
        refuse(
            &without("dense_select_weights.1.1.running_var"),
            "`dense_select_weights.1.1.running_var` is missing",
        );
        refuse(
            &without("seq2seq_layers.1.weight_ih_l0_reverse"),
            "`seq2seq_layers.1.weight_ih_l0_reverse` is missing",
        );
        refuse(&|entries| entries[0].1 = vec![2, 2, 3], "expected [d1, D, 1]");
        refuse(&|entries| entries[2].1 = vec![2, 3, 1], "`auto_encoder_end.weight` has shape");
    }
}
