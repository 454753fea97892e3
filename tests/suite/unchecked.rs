//! Calls whose values nobody has looked at: what device code gets when indices and offsets come from a device.

use siluette::arguments::Arguments;
use siluette::device::NamedTensors;
use siluette::{Backend, Error, HasLayout, Layout, NamedLayouts, Operation, Parameters, Tensor};

/// Bytes before and behind every output that must stay as they are.
const FENCE: usize = 256;
const POISON: u8 = 0x55;

/// Results of every GPU backend that there is, with nothing written outside the outputs.
pub fn run_unchecked<O: Operation>(
    inputs: &NamedTensors,
    parameters: &Parameters,
) -> Vec<(Backend, NamedTensors)> {
    let mut results = Vec::new();
    #[cfg(feature = "cuda")]
    results.extend(cuda::run::<O>(inputs, parameters).map(|outputs| (Backend::Cuda, outputs)));
    #[cfg(feature = "wgpu")]
    results.extend(wgpu::run::<O>(inputs, parameters).map(|outputs| (Backend::Wgpu, outputs)));
    results
}

/// The descriptor and its outputs' layouts.
fn describe<O: Operation>(inputs: &NamedTensors, parameters: &Parameters) -> (O, NamedLayouts) {
    let layouts: NamedLayouts =
        inputs.iter().map(|(name, tensor)| (name.clone(), tensor.layout())).collect();
    let op = O::describe(&layouts, parameters).unwrap();
    let outputs = op.outputs(&layouts, parameters).unwrap();
    (op, outputs)
}

fn layouts<O: Operation>(
    inputs: &NamedTensors,
    outputs: &NamedLayouts,
) -> Result<O::Args<Layout, Layout>, Error> {
    Arguments::collect(
        O::NAME,
        |info| Ok(inputs.get(info.name).map(|tensor| tensor.layout())),
        |info| Ok(outputs.get(info.name).copied()),
    )
}

fn fenced(layout: &Layout) -> Vec<u8> {
    vec![POISON; (layout.span() * layout.dtype().size()).next_multiple_of(4) + 2 * FENCE]
}

/// The tensor inside its fences.
fn unfence(name: &str, layout: &Layout, bytes: &[u8]) -> Tensor {
    let length = layout.span() * layout.dtype().size();
    let (before, rest) = bytes.split_at(FENCE);
    let (inside, behind) = rest.split_at(length);
    assert!(before.iter().chain(behind).all(|&byte| byte == POISON), "{name}: written outside");
    let mut tensor = Tensor::zeros(*layout);
    tensor.span_bytes_mut().copy_from_slice(inside);
    tensor
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::collections::BTreeMap;

    use siluette::backend::cuda::CudaOptions;
    use siluette::cudarc::driver::{CudaSlice, DevicePtr};
    use siluette::{CudaTensor, CudaTensorMut, CudaWorkspace};

    use super::*;
    use crate::cuda_support::backend;

    #[allow(unsafe_code, reason = "tensors of any type over bytes")]
    pub(super) fn run<O: Operation>(
        inputs: &NamedTensors,
        parameters: &Parameters,
    ) -> Option<NamedTensors> {
        let (context, cuda) = backend(CudaOptions::default())?;
        let stream = context.new_stream().unwrap();
        let (op, outputs) = describe::<O>(inputs, parameters);
        let upload = |bytes: &[u8]| {
            stream.clone_htod(if bytes.is_empty() { &[0u8][..] } else { bytes }).unwrap()
        };
        let sources: BTreeMap<&str, CudaSlice<u8>> = inputs
            .iter()
            .map(|(name, tensor)| (name.as_str(), upload(tensor.view().span_bytes())))
            .collect();
        let memory: BTreeMap<&str, CudaSlice<u8>> =
            outputs.iter().map(|(name, layout)| (name.as_str(), upload(&fenced(layout)))).collect();
        let bytes = op.workspace_bytes(&layouts::<O>(inputs, &outputs).unwrap());
        let mut workspace = stream.alloc_zeros::<u8>(bytes.max(1)).unwrap();
        let args = Arguments::collect(
            O::NAME,
            |info| {
                let source = sources.get(info.name).map(|memory| memory.device_ptr(&stream).0);
                // SAFETY: filled from a tensor of this layout; lives to the end of this function.
                Ok(source.map(|address| unsafe {
                    CudaTensor::from_raw(address, inputs[info.name].layout())
                }))
            },
            |info| {
                let output = memory.get(info.name).map(|memory| memory.device_ptr(&stream).0);
                // SAFETY: as above, and nothing else uses it.
                Ok(output.map(|address| unsafe {
                    CudaTensorMut::from_raw(address + FENCE as u64, outputs[info.name])
                }))
            },
        );
        let workspace = CudaWorkspace::new(&mut workspace);
        op.enqueue_cuda(&cuda, &stream, args.unwrap(), workspace).unwrap();
        stream.synchronize().unwrap();
        let result = |(name, layout): (&String, &Layout)| {
            let bytes = stream.clone_dtoh(&memory[name.as_str()]).unwrap();
            (name.clone(), unfence(name, layout, &bytes))
        };
        Some(outputs.iter().map(result).collect())
    }
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use std::collections::BTreeMap;

    use siluette::wgpu::Buffer;
    use siluette::{Wgpu, WgpuTensor, WgpuWorkspace};

    use super::*;
    use crate::support::open;
    use crate::wgpu_plans::{read, storage, submit};

    pub(super) fn run<O: Operation>(
        inputs: &NamedTensors,
        parameters: &Parameters,
    ) -> Option<NamedTensors> {
        open(Backend::Wgpu)?;
        let context = Wgpu::open().unwrap();
        let (op, outputs) = describe::<O>(inputs, parameters);
        let words = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(4).max(4), 0);
            storage(&context, &bytes)
        };
        let sources: BTreeMap<&str, Buffer> = inputs
            .iter()
            .map(|(name, tensor)| (name.as_str(), words(tensor.view().span_bytes())))
            .collect();
        let memory: BTreeMap<&str, Buffer> =
            outputs.iter().map(|(name, layout)| (name.as_str(), words(&fenced(layout)))).collect();
        let bytes = op.workspace_bytes(&layouts::<O>(inputs, &outputs).unwrap());
        let workspace = words(&vec![0; bytes]);
        let args = Arguments::collect(
            O::NAME,
            |info| {
                let source = sources.get(info.name);
                Ok(source.map(|buffer| WgpuTensor::new(buffer, 0, inputs[info.name].layout())))
            },
            |info| {
                let output = memory.get(info.name);
                let layout = |name| outputs[name];
                Ok(output.map(|buffer| WgpuTensor::new(buffer, FENCE as u64, layout(info.name))))
            },
        );
        let workspace = WgpuWorkspace::whole(&workspace);
        submit(&context, &op.plan_wgpu(&context, args.unwrap(), workspace).unwrap());
        let result = |(name, layout): (&String, &Layout)| {
            (name.clone(), unfence(name, layout, &read(&context, &memory[name.as_str()])))
        };
        Some(outputs.iter().map(result).collect())
    }
}
