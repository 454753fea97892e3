//! Any tensors and parameters, for any operation: refused with an error, or run on the oracle and on the CPU
//! without a panic and without a write outside the outputs.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use siluette::device::NamedTensors;
use siluette::registry::OPERATIONS;
use siluette::{Backend, DType, Device, Layout, Parameters, Tensor};

#[derive(Arbitrary, Debug)]
struct Input {
    operation: u8,
    /// Dtype, shape, gaps and a byte to fill with, for each argument that is given.
    tensors: Vec<Option<(u8, Vec<u8>, u8, u8)>>,
    parameters: Vec<(u8, String)>,
}

fuzz_target!(|input: Input| {
    let info = &OPERATIONS[usize::from(input.operation) % OPERATIONS.len()];
    let mut tensors = NamedTensors::new();
    for (argument, tensor) in info.arguments.iter().zip(&input.tensors) {
        let Some((dtype, shape, gap, fill)) = tensor else { continue };
        let dtypes = [DType::F32, DType::F16, DType::BF16, DType::U8, DType::I32, DType::U32];
        let dtype = dtypes[usize::from(*dtype) % dtypes.len()];
        // Small extents: the oracle is slow, and large ones add nothing but time.
        let shape: Vec<usize> =
            shape.iter().take(5).map(|&extent| usize::from(extent % 12)).collect();
        let mut strides = vec![1; shape.len()];
        for axis in (0..shape.len().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * shape[axis + 1].max(1) + usize::from(gap % 4);
        }
        let Ok(layout) = Layout::strided(dtype, &shape, &strides) else { continue };
        let mut tensor = Tensor::zeros(layout);
        tensor.span_bytes_mut().fill(*fill);
        tensors.insert(argument.name.to_owned(), tensor);
    }
    let mut parameters = Parameters::new();
    for (index, value) in &input.parameters {
        if let Some(info) = info.parameters.get(usize::from(*index)) {
            parameters = parameters.with(info.name, value);
        }
    }
    let Ok(prepared) = info.prepare(tensors, &parameters) else { return };
    for backend in [Backend::Reference, Backend::Cpu] {
        let device = Device::open(backend).expect("always there");
        let outputs = prepared.outputs().iter();
        let outputs =
            outputs.map(|(name, layout)| (name.clone(), Tensor::zeros(*layout))).collect();
        let mut loaded = prepared.load(&device, outputs).expect("validated");
        loaded.run(1).expect("validated");
        loaded.outputs().expect("the fences stand");
    }
});
