//! Buffers of our own, and waiting for what is in them: for the layers that own memory.

use std::ops::Range;

use super::context::Wgpu;
use super::plan::Plan;
use super::scope::{device_error, scoped};
use crate::error::Error;

impl Wgpu {
    /// A buffer with these bytes, padded to whole words.
    pub(crate) fn upload(&self, name: &str, bytes: &[u8]) -> Result<wgpu::Buffer, Error> {
        let mut words = bytes.to_vec();
        words.resize(bytes.len().next_multiple_of(4), 0);
        let buffer = self.buffer(name, words.len() as u64)?;
        scoped(self.device(), &format!("writing {name}"), || {
            self.queue().write_buffer(&buffer, 0, &words);
        })?;
        Ok(buffer)
    }

    /// A buffer of at least so many bytes, for shaders and copies.
    pub(crate) fn buffer(&self, name: &str, bytes: u64) -> Result<wgpu::Buffer, Error> {
        /// No binding may be empty, and the shortest vector of a shader is 16 bytes.
        const SMALLEST: u64 = 16;
        let size = bytes.max(SMALLEST).next_multiple_of(4);
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        scoped(self.device(), &format!("allocating {size} bytes for {name}"), || {
            self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(name),
                size,
                usage,
                mapped_at_creation: false,
            })
        })
    }

    /// Submits a plan in a pass of its own.
    pub(crate) fn submit(&self, plan: &Plan) -> Result<(), Error> {
        scoped(self.device(), "running", || {
            let mut encoder = self.device().create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            plan.record(&mut pass);
            drop(pass);
            self.queue().submit([encoder.finish()]);
        })
    }

    /// Waits until everything that was submitted is done.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        self.device()
            .poll(wgpu::PollType::wait_indefinitely())
            .map(drop)
            .map_err(|error| device_error("waiting for the device", error))
    }

    /// Some bytes of a buffer, whole words, once everything that was submitted is done.
    pub(crate) fn download(
        &self,
        buffer: &wgpu::Buffer,
        bytes: Range<u64>,
    ) -> Result<Vec<u8>, Error> {
        const ACTION: &str = "reading a buffer back";
        let (sender, receiver) = std::sync::mpsc::channel();
        let size = bytes.end - bytes.start;
        let staging = scoped(self.device(), ACTION, || {
            let staging = self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("siluette.staging"),
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut encoder = self.device().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, bytes.start, &staging, 0, size);
            self.queue().submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., move |result| drop(sender.send(result)));
            staging
        })?;
        self.wait()?;
        receiver
            .recv()
            .map_err(|error| device_error(ACTION, error))?
            .map_err(|error| device_error(ACTION, error))?;
        let view = staging.get_mapped_range(..).map_err(|error| device_error(ACTION, error))?;
        Ok(view.to_vec())
    }
}
