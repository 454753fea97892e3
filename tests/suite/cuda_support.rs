//! What the tests of the CUDA backend share.

use std::sync::Arc;

use siluette::backend::cuda::{Cuda, CudaDevice, CudaOptions};
use siluette::cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use siluette::{Backend, Device, Element, Layout, Tensor};

use crate::support::open;

/// A backend on a context of the caller's, or `None`, said aloud, if this machine has no device.
pub fn backend(options: CudaOptions) -> Option<(Arc<CudaContext>, Cuda)> {
    open(Backend::Cuda)?;
    let context = siluette::backend::cuda::open_context(0).expect("opened a moment ago");
    let cuda = Cuda::with_options(&context, options).expect("opened a moment ago");
    Some((context, cuda))
}

/// An owning device with options, or `None`, said aloud.
pub fn device(options: CudaOptions) -> Option<Device> {
    open(Backend::Cuda)?;
    Some(Device::Cuda(CudaDevice::with_options(0, options).expect("opened a moment ago")))
}

/// Values between -scale and scale, the same in every run.
pub fn random(layout: Layout, scale: f64, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let values = std::iter::repeat_with(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f64 / (1u64 << 30) as f64 - 1.0) * scale
    });
    Tensor::from_f64(layout, values.take(layout.elements()))
}

/// A copy in device memory, `offset` elements behind the start of its allocation.
pub fn upload<T: Element + siluette::cudarc::driver::DeviceRepr>(
    stream: &Arc<CudaStream>,
    tensor: &Tensor,
    offset: usize,
) -> CudaSlice<T> {
    let view = tensor.view();
    let values = view.as_slice::<T>().expect("the tensor's own type");
    let mut padded: Vec<T> = values.iter().copied().cycle().take(offset).collect();
    padded.extend_from_slice(values);
    stream.clone_htod(&padded).expect("enough memory")
}
