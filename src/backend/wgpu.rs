//! The wgpu backend.

use std::marker::PhantomData;

use crate::device::{Loaded, NamedTensors};
use crate::error::Error;
use crate::layout::{HasLayout, Layout};
use crate::operation::Operation;

/// A device and its queue, pipelines and capabilities.
#[derive(Debug)]
pub struct Wgpu {}

/// A tensor in somebody's buffer.
#[derive(Clone, Copy, Debug)]
pub struct WgpuTensor<'a> {
    layout: Layout,
    buffer: PhantomData<&'a ()>,
}

impl HasLayout for WgpuTensor<'_> {
    fn layout(&self) -> Layout {
        self.layout
    }
}

/// Scratch memory.
#[derive(Clone, Copy, Debug)]
pub struct WgpuWorkspace<'a> {
    buffer: PhantomData<&'a ()>,
}

/// Dispatches bound to their buffers.
#[derive(Debug)]
pub struct Plan {}

/// The owning layer: a device with its memory.
#[derive(Debug)]
pub struct WgpuDevice {}

impl WgpuDevice {
    /// Opens the device.
    pub fn open() -> Result<WgpuDevice, Error> {
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
