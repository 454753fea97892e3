//! Tensors of a trained module, from a safetensors file.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::dtype::{DType, bf16, f16};
use crate::error::Error;
use crate::layout::Layout;
use crate::ops::feature_attention::BatchNorm;
use crate::tensor::Tensor;

/// What the authors' modules add to a variance before its root.
pub(crate) const EPS: f64 = 1e-6;

/// An open file, of which only tensors behind a prefix are looked at.
pub(crate) struct WeightFile<'a> {
    path: PathBuf,
    prefix: &'a str,
    tensors: SafeTensors<'a>,
    gate_order: Option<String>,
}

/// The contents of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| file_error(path, error.to_string()))
}

fn file_error(path: &Path, reason: String) -> Error {
    Error::File { path: path.to_owned(), reason, remedy: "".into() }
}

impl<'a> WeightFile<'a> {
    pub fn new(path: &Path, bytes: &'a [u8], prefix: &'a str) -> Result<WeightFile<'a>, Error> {
        let bad = |error| file_error(path, format!("is no whole safetensors file: {error}"));
        let tensors = SafeTensors::deserialize(bytes).map_err(bad)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(bad)?;
        let metadata = header.metadata().as_ref();
        let gate_order = metadata.and_then(|metadata| metadata.get("gate_order")).cloned();
        Ok(WeightFile { path: path.to_owned(), prefix, tensors, gate_order })
    }

    pub fn find(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.tensor(&format!("{}{name}", self.prefix)).ok()
    }

    pub fn error(&self, name: &str, what: impl Display) -> Error {
        file_error(&self.path, format!("tensor `{}{name}` {what}", self.prefix))
    }

    pub fn shape(&self, name: &str) -> Result<Vec<usize>, Error> {
        let view = self.find(name).ok_or_else(|| self.error(name, "is missing"))?;
        Ok(view.shape().to_vec())
    }

    /// The shape of a matrix that is not empty; `meaning` names its dimensions.
    pub fn matrix_shape(&self, name: &str, meaning: &str) -> Result<[usize; 2], Error> {
        match *self.shape(name)? {
            [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
            ref got => Err(self.error(name, format_args!("has shape {got:?}, expected {meaning}"))),
        }
    }

    /// The values of a tensor of this shape.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>, Error> {
        let view = self.find(name).ok_or_else(|| self.error(name, "is missing"))?;
        if view.shape() != shape {
            let got = view.shape();
            return Err(self.error(name, format_args!("has shape {got:?}, expected {shape:?}")));
        }
        let bytes = view.data();
        Ok(match view.dtype() {
            Dtype::F32 => {
                bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect()
            }
            Dtype::F16 => {
                bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).into()).collect()
            }
            Dtype::BF16 => {
                bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).into()).collect()
            }
            got => {
                let what = format!("has dtype {got:?}, expected F32, F16 or BF16");
                return Err(self.error(name, what));
            }
        })
    }

    /// A tensor of this shape, rounded to a type.
    pub fn tensor(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor, Error> {
        let values = self.values(name, shape)?;
        Ok(Tensor::from_f64(Layout::contiguous(dtype, shape)?, values))
    }

    /// The layer `linear` (its weight of this shape, its bias), rounded to a type; the batch norm `norm`, if the file has
    /// one, is folded in first.
    pub fn linear(
        &self,
        [linear, norm]: [&str; 2],
        shape: [usize; 2],
        dtype: DType,
    ) -> Result<[Tensor; 2], Error> {
        let mut weight = self.values(&format!("{linear}.weight"), &shape)?;
        let mut bias = self.values(&format!("{linear}.bias"), &shape[..1])?;
        self.fold(norm, &mut weight, &mut bias)?;
        let tensor = |shape: &[usize], values| {
            Ok::<_, Error>(Tensor::from_f64(Layout::contiguous(dtype, shape)?, values))
        };
        Ok([tensor(&shape, weight)?, tensor(&shape[..1], bias)?])
    }

    fn fold(&self, norm: &str, weight: &mut [f64], bias: &mut [f64]) -> Result<(), Error> {
        let names =
            ["weight", "bias", "running_mean", "running_var"].map(|name| format!("{norm}.{name}"));
        if names.iter().all(|name| self.find(name).is_none()) {
            return Ok(());
        }
        let mut tensors = Vec::new();
        for name in names {
            tensors.push(self.tensor(&name, &[bias.len()], DType::F32)?);
        }
        let norm = BatchNorm {
            weight: tensors[0].view(),
            bias: tensors[1].view(),
            running_mean: tensors[2].view(),
            running_var: tensors[3].view(),
            eps: EPS,
        };
        norm.fold_f64(weight, bias)
    }

    /// That GRUs in the file have PyTorch's gates, as far as the file tells.
    ///
    /// ONNX, haste and Keras have the update gate first: their files are refused if the metadata says `gate_order` or
    /// the tensors have their names. ONNX must further have been exported with `linear_before_reset=1`, Keras with
    /// `reset_after=True`; without, the reset gate stands elsewhere, and no reordering helps.
    pub fn check_gates(&self) -> Result<(), Error> {
        const REMEDY: &str = "reorder the three blocks of rows to r, z, n; ONNX needs \
             linear_before_reset=1, Keras reset_after=True, and its kernels are transposed";
        let refuse = |reason: String| {
            Err(Error::File { path: self.path.clone(), reason, remedy: REMEDY.into() })
        };
        if let Some(order) = &self.gate_order {
            let letters: String = order.chars().filter(|letter| letter.is_alphabetic()).collect();
            if !["rzn", "rzh"].contains(&letters.as_str()) {
                return refuse(format!(
                    "metadata `gate_order` is {order:?}, expected \"rzn\", the order of torch.nn.GRU; \
                     z, r, h is that of ONNX, haste and Keras"
                ));
            }
        }
        for (framework, names) in [("ONNX", ["W", "R"]), ("Keras", ["kernel", "recurrent_kernel"])]
        {
            if names.iter().all(|name| self.find(name).is_some()) {
                return refuse(format!(
                    "tensors `{}` and `{}` are named as in a GRU of {framework}, whose gates are z, r, h",
                    names[0], names[1],
                ));
            }
        }
        Ok(())
    }
}
