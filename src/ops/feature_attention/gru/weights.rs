//! Weights of GRUs that own their memory.

use super::{GruDirection, GruLayer};
use crate::arguments::Repeated;
use crate::dtype::DType;
use crate::error::Error;
use crate::ops::feature_attention::weight_file::WeightFile;
use crate::tensor::{Tensor, TensorRef};

/// The weights of some layers, [`MAX_REPEATED`](crate::arguments::MAX_REPEATED) at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct GruTensorsOwned {
    layers: Vec<GruLayer<Tensor>>,
}

impl GruTensorsOwned {
    /// Adds a layer; `name` makes names of `torch.nn.GRU`'s, given the tensor and what stands for its direction.
    pub fn read(
        &mut self,
        file: &WeightFile<'_>,
        name: impl Fn(&str, &str) -> String,
        [inputs, hidden]: [usize; 2],
        dtype: DType,
    ) -> Result<(), Error> {
        let rows = 3 * hidden;
        let direction = |direction: &str| {
            let tensor =
                |which: &str, shape: &[usize]| file.tensor(&name(which, direction), shape, dtype);
            let bias = |which: &str| {
                let is_there = file.find(&name(which, direction)).is_some();
                is_there.then(|| tensor(which, &[rows])).transpose()
            };
            Ok::<_, Error>(GruDirection {
                weight_ih: tensor("weight_ih", &[rows, inputs])?,
                weight_hh: tensor("weight_hh", &[rows, hidden])?,
                bias_ih: bias("bias_ih")?,
                bias_hh: bias("bias_hh")?,
            })
        };
        self.layers.push([direction("")?, direction("_reverse")?]);
        Ok(())
    }

    /// One tensor of one direction of every layer that has it.
    pub fn repeated<'a>(
        &'a self,
        direction: usize,
        tensor: impl Fn(&'a GruDirection<Tensor>) -> Option<&'a Tensor>,
    ) -> Repeated<TensorRef<'a>> {
        let tensors = self.layers.iter().map(|layer| tensor(&layer[direction]).map(Tensor::view));
        Repeated::of_options(tensors)
    }
}

/// An argument struct with these weights.
macro_rules! gru_arguments {
    ($args:expr, $tensors:expr) => {
        $args
            .weight_ih($tensors.repeated(0, |weights| Some(&weights.weight_ih)))
            .weight_hh($tensors.repeated(0, |weights| Some(&weights.weight_hh)))
            .bias_ih($tensors.repeated(0, |weights| weights.bias_ih.as_ref()))
            .bias_hh($tensors.repeated(0, |weights| weights.bias_hh.as_ref()))
            .weight_ih_reverse($tensors.repeated(1, |weights| Some(&weights.weight_ih)))
            .weight_hh_reverse($tensors.repeated(1, |weights| Some(&weights.weight_hh)))
            .bias_ih_reverse($tensors.repeated(1, |weights| weights.bias_ih.as_ref()))
            .bias_hh_reverse($tensors.repeated(1, |weights| weights.bias_hh.as_ref()))
    };
}
pub(crate) use gru_arguments;
