//! The CUDA backend.

use std::marker::PhantomData;

use crate::device::{Loaded, NamedTensors};
use crate::error::Error;
use crate::layout::{HasLayout, Layout};
use crate::operation::Operation;

/// A device, its modules and capabilities.
#[derive(Debug)]
pub struct Cuda {}

/// A tensor on the device.
#[derive(Clone, Copy, Debug)]
pub struct CudaTensor<'a> {
    layout: Layout,
    data: PhantomData<&'a ()>,
}

impl HasLayout for CudaTensor<'_> {
    fn layout(&self) -> Layout {
        self.layout
    }
}

/// A tensor on the device, to be written.
#[derive(Debug)]
pub struct CudaTensorMut<'a> {
    layout: Layout,
    data: PhantomData<&'a mut ()>,
}

impl HasLayout for CudaTensorMut<'_> {
    fn layout(&self) -> Layout {
        self.layout
    }
}

/// Scratch memory.
#[derive(Debug)]
pub struct CudaWorkspace<'a> {
    data: PhantomData<&'a mut ()>,
}

/// The owning layer: a device with its memory.
#[derive(Debug)]
pub struct CudaDevice {}

impl CudaDevice {
    /// Opens the device.
    pub fn open(_ordinal: usize) -> Result<CudaDevice, Error> {
        todo!()
    }

    /// The device's name.
    pub fn name(&self) -> String {
        todo!()
    }

    /// As [`crate::Device::details`].
    pub fn details(&self) -> Vec<(&'static str, String)> {
        todo!()
    }

    /// As [`crate::Device::cache_bytes`].
    pub fn cache_bytes(&self) -> Option<u64> {
        todo!()
    }

    /// As [`crate::Device::load`].
    pub fn load<O: Operation>(
        &self,
        _op: &O,
        _inputs: NamedTensors,
        _outputs: NamedTensors,
    ) -> Result<Box<dyn Loaded>, Error> {
        todo!()
    }
}
