//! Operations of the crate on tensors of a checkpoint.

use safetensors::tensor::TensorView;
use siluette::device::NamedTensors;
use siluette::{
    Backend, Device, Error, HasLayout as _, Layout, Parameters, Tensor, TensorRef, registry,
};

use crate::elements;

/// Runs an operation on the CPU; outputs are as long as the data say.
pub fn on_cpu(
    operation: &str,
    inputs: NamedTensors,
    parameters: &Parameters,
) -> Result<NamedTensors, Error> {
    let prepared = registry::find(operation)?.prepare(inputs, parameters)?;
    let outputs = prepared.outputs().iter();
    let outputs = outputs.map(|(name, layout)| (name.clone(), Tensor::zeros(*layout)));
    let mut loaded = prepared.load(&Device::open(Backend::Cpu)?, outputs.collect())?;
    loaded.run(1)?;
    let mut outputs = loaded.outputs()?;
    prepared.trim(&mut outputs)?;
    Ok(outputs)
}

/// A tensor of a file as an argument that takes matrices; a vector becomes one row.
pub fn matrix(
    operation: &str,
    argument: &'static str,
    view: &TensorView<'_>,
) -> Result<Tensor, Error> {
    let info = registry::find(operation)?;
    let tensor = elements::tensor(info, elements::argument(info, argument)?, view)?;
    let layout = tensor.layout();
    if layout.shape().len() != 1 {
        return Ok(tensor);
    }
    let row = Layout::contiguous(layout.dtype(), &[1, layout.columns()])?;
    Ok(Tensor::copy_of(TensorRef::from_bytes(tensor.view().span_bytes(), row)?))
}
