//! The weights of a trained module, from a safetensors file.

use std::path::Path;

use super::{FeatureAttention, FeatureAttentionArgs};
use crate::dtype::DType;
use crate::error::Error;
use crate::ops::feature_attention::weight_file::{self, WeightFile};
use crate::tensor::{Tensor, TensorMut, TensorRef};

/// The weights of one feature attention, in host memory, and the descriptor that goes with them.
///
/// The names are those of the authors' PyTorch module, behind a prefix such as `attention.`:
///
/// | tensor | shape | |
/// |---|---|---|
/// | `dense_z.0.weight`, `dense_z.0.bias` | `[d, D]`, `[d]` | reduction |
/// | `dense_e.0.weight`, `dense_e.0.bias` | `[D, d]`, `[D]` | excitation |
/// | `dense_e.1.weight`, `.bias`, `.running_mean`, `.running_var` | `[D]` each | batch norm behind it, eps 1e-6; all or none |
///
/// in F32, F16 or BF16. A batch norm is folded into the excitation; every weight is rounded once, to the type asked for.
#[derive(Clone, Debug)]
pub struct FeatureAttentionWeights {
    op: FeatureAttention,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
}

impl FeatureAttentionWeights {
    /// Reads a file: the tensors whose names start with `prefix`, for activations of type `dtype` and weights of
    /// `weight_dtype`.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read or is not a safetensors file, and names a tensor that is missing or of
    /// another shape or type; [`Error::Argument`] for types that do not go together, and for a batch norm that
    /// [`BatchNorm::fold`](crate::ops::feature_attention::BatchNorm::fold) refuses.
    pub fn load(
        path: impl AsRef<Path>,
        prefix: &str,
        dtype: DType,
        weight_dtype: DType,
    ) -> Result<FeatureAttentionWeights, Error> {
        let bytes = weight_file::read(path.as_ref())?;
        weights(&WeightFile::new(path.as_ref(), &bytes, prefix)?, dtype, weight_dtype)
    }

    /// As [`FeatureAttentionWeights::load`], from the contents of a file.
    ///
    /// # Errors
    /// As [`FeatureAttentionWeights::load`].
    pub fn from_safetensors(
        bytes: &[u8],
        prefix: &str,
        dtype: DType,
        weight_dtype: DType,
    ) -> Result<FeatureAttentionWeights, Error> {
        weights(&WeightFile::new(Path::new("safetensors"), bytes, prefix)?, dtype, weight_dtype)
    }

    /// The descriptor, with tanh; [`FeatureAttention::with_tanh`] takes it out.
    pub fn descriptor(&self) -> FeatureAttention {
        self.op
    }

    /// `w1 [d, D]`.
    pub fn w1(&self) -> TensorRef<'_> {
        self.w1.view()
    }

    /// `b1 [d]`.
    pub fn b1(&self) -> TensorRef<'_> {
        self.b1.view()
    }

    /// `w2 [D, d]`.
    pub fn w2(&self) -> TensorRef<'_> {
        self.w2.view()
    }

    /// `b2 [D]`.
    pub fn b2(&self) -> TensorRef<'_> {
        self.b2.view()
    }

    /// The arguments of a call on the CPU; lengths may be added.
    pub fn args<'a>(
        &'a self,
        x: TensorRef<'a>,
        out: TensorMut<'a>,
    ) -> FeatureAttentionArgs<TensorRef<'a>, TensorMut<'a>> {
        FeatureAttentionArgs::new(x, self.w1(), self.w2(), out).b1(self.b1()).b2(self.b2())
    }
}

fn weights(
    file: &WeightFile<'_>,
    dtype: DType,
    weight_dtype: DType,
) -> Result<FeatureAttentionWeights, Error> {
    let [reduced, features] = file.matrix_shape("dense_z.0.weight", "[d, D]")?;
    let op = FeatureAttention::new(features, reduced, dtype)?.with_weight_dtype(weight_dtype)?;
    let w1 = file.tensor("dense_z.0.weight", &[reduced, features], weight_dtype)?;
    let b1 = file.tensor("dense_z.0.bias", &[reduced], weight_dtype)?;
    let [w2, b2] = file.linear(["dense_e.0", "dense_e.1"], [features, reduced], weight_dtype)?;
    Ok(FeatureAttentionWeights { op, w1, b1, w2, b2 })
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::dtype::f16;
    use crate::ops::feature_attention::weight_file::EPS;

    /// Name, type, shape and values.
    type Entry = (&'static str, Dtype, Vec<usize>, Vec<f32>);

    fn linear() -> Vec<Entry> {
        vec![
            ("dense_z.0.weight", Dtype::F32, vec![1, 2], vec![1.0, 2.0]),
            ("dense_z.0.bias", Dtype::F32, vec![1], vec![0.5]),
            ("dense_e.0.weight", Dtype::F32, vec![2, 1], vec![3.0, 4.0]),
            ("dense_e.0.bias", Dtype::F32, vec![2], vec![-1.0, 1.0]),
        ]
    }

    fn norm() -> Vec<Entry> {
        let vector = |name, values: [f32; 2]| (name, Dtype::F32, vec![2], values.to_vec());
        vec![
            vector("dense_e.1.weight", [2.0, 1.0]),
            vector("dense_e.1.bias", [0.0, 5.0]),
            vector("dense_e.1.running_mean", [1.0, 2.0]),
            vector("dense_e.1.running_var", [4.0, 0.25]),
        ]
    }

    fn file(entries: &[Entry]) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> = entries
            .iter()
            .map(|(_, dtype, _, values)| match dtype {
                Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                Dtype::F16 => {
                    values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()
                }
                _ => values.iter().flat_map(|&value| (value as i32).to_le_bytes()).collect(),
            })
            .collect();
        let views = entries.iter().zip(&bytes).map(|((name, dtype, shape, _), bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (format!("model.{name}"), view)
        });
        safetensors::serialize(views, None).unwrap()
    }

    fn read(entries: &[Entry]) -> Result<FeatureAttentionWeights, Error> {
        let (dtype, weight) = (DType::F32, DType::F32);
        FeatureAttentionWeights::from_safetensors(&file(entries), "model.", dtype, weight)
    }

    fn message(entries: &[Entry]) -> String {
        let error = read(entries).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn a_module_is_read_by_its_names() {
        let weights = read(&linear()).unwrap();
        let op = weights.descriptor();
        assert_eq!((op.features(), op.reduced(), op.has_tanh()), (2, 1, true));
        assert_eq!(weights.w1().to_f64(), [1.0, 2.0]);
        assert_eq!(weights.b1().to_f64(), [0.5]);
        assert_eq!(weights.w2().to_f64(), [3.0, 4.0]);
        assert_eq!(weights.b2().to_f64(), [-1.0, 1.0]);
        let (x, mut out) = ([1.0f32, 1.0], [f32::NAN; 2]);
        let x = TensorRef::new(&x, &[1, 1, 2]).unwrap();
        let out_view = TensorMut::new(&mut out, &[1, 1, 2]).unwrap();
        let args = weights.args(x, out_view);
        crate::Cpu::new().feature_attention(&op, args, &mut crate::Workspace::default()).unwrap();
        let a = 3.5f64.tanh();
        let e = [3.0 * a - 1.0, 4.0 * a + 1.0].map(|z| 1.0 / (1.0 + (-z).exp()));
        assert!((f64::from(out[0]) - e[0]).abs() < 1e-6 && (f64::from(out[1]) - e[1]).abs() < 1e-6);
    }

    #[test]
    fn a_batch_norm_is_folded_and_weights_are_rounded_to_the_type_asked_for() {
        let entries = [linear(), norm()].concat();
        let weights = read(&entries).unwrap();
        let factors = [2.0 / (4.0 + EPS).sqrt(), 1.0 / (0.25 + EPS).sqrt()];
        let expected = [3.0 * factors[0], 4.0 * factors[1]].map(|value| f64::from(value as f32));
        assert_eq!(weights.w2().to_f64(), expected);
        let expected = [factors[0] * -2.0, -factors[1] + 5.0].map(|value| f64::from(value as f32));
        assert_eq!(weights.b2().to_f64(), expected);
        let bytes = file(&entries);
        let weights =
            FeatureAttentionWeights::from_safetensors(&bytes, "model.", DType::F32, DType::F16);
        assert_eq!(weights.unwrap().descriptor().weight_dtype(), DType::F16);
    }

    #[test]
    fn files_of_16_bits_are_widened() {
        let mut entries = linear();
        entries[0].1 = Dtype::F16;
        assert_eq!(read(&entries).unwrap().w1().to_f64(), [1.0, 2.0]);
    }

    #[test]
    fn bad_files_name_the_tensor() {
        let mut entries = linear();
        entries.remove(3);
        assert!(message(&entries).contains("`model.dense_e.0.bias` is missing"));
        let entries = [linear(), norm()[..3].to_vec()].concat();
        assert!(message(&entries).contains("`model.dense_e.1.running_var` is missing"));
        let mut entries = linear();
        entries[2].2 = vec![1, 2];
        assert!(message(&entries).contains("`model.dense_e.0.weight` has shape [1, 2]"));
        let mut entries = linear();
        entries[0].2 = vec![2];
        assert!(message(&entries).contains("expected [d, D]"));
        let mut entries = linear();
        entries[1].1 = Dtype::I32;
        assert!(message(&entries).contains("`model.dense_z.0.bias` has dtype I32"));
        let garbage =
            FeatureAttentionWeights::from_safetensors(&[1; 9], "", DType::F32, DType::F32);
        assert!(garbage.unwrap_err().to_string().contains("no whole safetensors file"));
        let absent =
            FeatureAttentionWeights::load("nowhere.safetensors", "", DType::F32, DType::F32);
        assert!(absent.unwrap_err().to_string().contains("nowhere.safetensors"));
        let mut entries = [linear(), norm()].concat();
        entries[7].3[1] = -1.0;
        assert_eq!(read(&entries).unwrap_err().problem(), Some(crate::Problem::Value));
    }
}
