//! The owning layer: a device that takes host tensors and gives host tensors back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Wgpu;
use super::plan::Plan;
use super::scope::scoped;
use super::tensor::{WgpuTensor, WgpuWorkspace};
use crate::arguments::Arguments;
use crate::device::guard::{GUARD_BYTES, Guarded};
use crate::device::{Loaded, NamedTensors};
use crate::error::{Backend, Error};
use crate::layout::{HasLayout, Layout};
use crate::operation::Operation;
use crate::tensor::Tensor;

/// A context together with the memory that it computes in.
#[derive(Debug)]
pub struct WgpuDevice {
    wgpu: Arc<Wgpu>,
}

impl WgpuDevice {
    /// Opens the best adapter, as [`Wgpu::open`].
    ///
    /// # Errors
    /// Those of [`Wgpu::open`].
    pub fn open() -> Result<WgpuDevice, Error> {
        Wgpu::open().map(WgpuDevice::new)
    }

    /// Allocates on a context's device.
    pub fn new(wgpu: Wgpu) -> WgpuDevice {
        WgpuDevice { wgpu: Arc::new(wgpu) }
    }

    /// The context.
    pub fn context(&self) -> &Wgpu {
        &self.wgpu
    }

    /// Adapter, API and driver.
    pub fn name(&self) -> String {
        self.wgpu.name()
    }

    /// As [`crate::Device::details`].
    pub fn details(&self) -> Vec<(&'static str, String)> {
        let capabilities = self.wgpu.capabilities();
        let matrices = capabilities.matrices.map_or("not used".to_owned(), |matrices| {
            format!("{0} by {0} for subgroups of {1}", matrices.size, matrices.subgroup)
        });
        vec![
            ("subgroups", capabilities.subgroups.to_string()),
            ("cooperative_matrices", matrices),
            ("software", capabilities.cpu.to_string()),
            ("workgroup_memory_bytes", capabilities.workgroup_bytes.to_string()),
            ("invocations_per_workgroup", capabilities.invocations.to_string()),
            ("workgroups_per_dimension", capabilities.workgroups_per_dimension.to_string()),
            ("storage_buffers_per_shader", capabilities.storage_buffers.to_string()),
            ("storage_binding_bytes", capabilities.storage_binding_bytes.to_string()),
            ("storage_offset_alignment_bytes", capabilities.storage_offset_alignment.to_string()),
        ]
    }

    /// As [`crate::Device::load`].
    ///
    /// # Errors
    /// Those of the operation, and [`Error::Device`].
    pub fn load<O: Operation>(
        &self,
        op: &O,
        inputs: NamedTensors,
        outputs: NamedTensors,
    ) -> Result<Box<dyn Loaded>, Error> {
        let layouts = O::Args::collect(
            O::NAME,
            |info| Ok(inputs.get(info.name).map(HasLayout::layout)),
            |info| Ok(outputs.get(info.name).map(HasLayout::layout)),
        )?;
        op.validate(&layouts)?;
        let (inputs, outputs) = (self.upload_inputs(&inputs)?, self.upload_outputs(outputs)?);
        let workspace =
            self.wgpu.buffer("siluette.workspace", op.workspace_bytes(&layouts) as u64)?;
        let args = O::Args::collect(
            O::NAME,
            |info| {
                Ok(inputs
                    .get(info.name)
                    .map(|(buffer, layout)| WgpuTensor::new(buffer, 0, *layout)))
            },
            |info| Ok(outputs.get(info.name).map(Output::view)),
        )?;
        let plan = op.plan_wgpu(&self.wgpu, args, WgpuWorkspace::whole(&workspace))?;
        let clock = Clock::new(self.wgpu.device())?;
        Ok(Box::new(WgpuLoaded { wgpu: self.wgpu.clone(), plan, outputs, clock }))
    }

    // Apart from `load`, which is generic, since collecting a map compiles a sort each time.

    fn upload_inputs<'a>(
        &self,
        inputs: &'a NamedTensors,
    ) -> Result<BTreeMap<&'a str, (wgpu::Buffer, Layout)>, Error> {
        let upload = |(name, tensor): (&'a String, &Tensor)| {
            let buffer = self.wgpu.upload(name, tensor.view().span_bytes())?;
            Ok((name.as_str(), (buffer, tensor.layout())))
        };
        inputs.iter().map(upload).collect()
    }

    fn upload_outputs(&self, outputs: NamedTensors) -> Result<BTreeMap<String, Output>, Error> {
        let upload = |(name, tensor): (String, Tensor)| {
            let guarded = Guarded::new(&tensor);
            let buffer = self.wgpu.upload(&name, guarded.bytes())?;
            Ok((name, Output { buffer, guarded }))
        };
        outputs.into_iter().map(upload).collect()
    }
}

/// An output between its fences, in a buffer of its own.
struct Output {
    buffer: wgpu::Buffer,
    guarded: Guarded,
}

impl Output {
    fn view(&self) -> WgpuTensor<'_> {
        WgpuTensor::new(&self.buffer, GUARD_BYTES as u64, self.guarded.layout())
    }
}

struct WgpuLoaded {
    wgpu: Arc<Wgpu>,
    plan: Plan,
    outputs: BTreeMap<String, Output>,
    clock: Option<Clock>,
}

impl WgpuLoaded {
    fn submit(&self, iterations: u32, clock: Option<&Clock>) -> Result<(), Error> {
        scoped(self.wgpu.device(), "running", || {
            let mut encoder = self.wgpu.device().create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("siluette.run"),
                timestamp_writes: clock.map(Clock::writes),
            });
            for _ in 0..iterations {
                self.plan.record(&mut pass);
            }
            drop(pass);
            if let Some(clock) = clock {
                clock.resolve(&mut encoder);
            }
            self.wgpu.queue().submit([encoder.finish()]);
        })
    }
}

impl Loaded for WgpuLoaded {
    fn run(&mut self, iterations: u32) -> Result<Duration, Error> {
        let start = Instant::now();
        self.submit(iterations, self.clock.as_ref())?;
        self.wgpu.wait()?;
        let elapsed = start.elapsed();
        match &self.clock {
            Some(clock) => clock.read(&self.wgpu),
            None => Ok(elapsed),
        }
    }

    fn enqueue(&mut self) -> Result<(), Error> {
        self.submit(1, None)
    }

    fn outputs(&mut self) -> Result<NamedTensors, Error> {
        let mut tensors = NamedTensors::new();
        for (name, output) in &mut self.outputs {
            let bytes = self.wgpu.download(&output.buffer, 0..output.buffer.size())?;
            let image = output.guarded.bytes_mut();
            image.copy_from_slice(&bytes[..image.len()]);
            tensors.insert(name.clone(), output.guarded.tensor(Backend::Wgpu)?);
        }
        Ok(tensors)
    }

    fn launches(&self) -> Option<usize> {
        Some(self.plan.dispatches())
    }
}

/// Two timestamps around a pass.
struct Clock {
    queries: wgpu::QuerySet,
    ticks: wgpu::Buffer,
}

impl Clock {
    const BYTES: u64 = 2 * size_of::<u64>() as u64;

    /// `None` if the device was opened without timestamps.
    fn new(device: &wgpu::Device) -> Result<Option<Clock>, Error> {
        if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        scoped(device, "creating timestamp queries", || {
            let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("siluette.clock"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            });
            let ticks = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("siluette.clock"),
                size: Self::BYTES,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            Some(Clock { queries, ticks })
        })
    }

    fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2, &self.ticks, 0);
    }

    fn read(&self, wgpu: &Wgpu) -> Result<Duration, Error> {
        let bytes = wgpu.download(&self.ticks, 0..Self::BYTES)?;
        let tick = |index: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[index * 8..][..8]);
            u64::from_le_bytes(raw)
        };
        let ticks = tick(1).saturating_sub(tick(0));
        let nanoseconds = ticks as f64 * f64::from(wgpu.queue().get_timestamp_period());
        Ok(Duration::from_nanos(nanoseconds as u64))
    }
}
