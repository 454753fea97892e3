//! The owning layer: a device with its memory.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::sys::{
    CUdevice_attribute, CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode,
};
use cudarc::driver::{CudaEvent, CudaGraph, CudaSlice, CudaStream, DevicePtr, DriverError};

use super::driver::{device_error, open_context};
use super::{Cuda, CudaOptions, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::arguments::Arguments as _;
use crate::device::guard::{GUARD_BYTES, Guarded};
use crate::device::{Loaded, NamedTensors, Recorded};
use crate::error::{Backend, Error};
use crate::layout::{HasLayout, Layout};
use crate::operation::Operation;
use crate::tensor::Tensor;

/// A NaN in each type, wherever it is repeated.
const NAN_BYTE: u8 = 0xff;

/// A device, a stream and the memory that it allocates for host tensors.
#[derive(Clone, Debug)]
pub struct CudaDevice {
    cuda: Arc<Cuda>,
    stream: Arc<CudaStream>,
}

impl CudaDevice {
    /// Opens a device by its ordinal.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without a driver or such a device.
    pub fn open(ordinal: usize) -> Result<CudaDevice, Error> {
        CudaDevice::with_options(ordinal, CudaOptions::default())
    }

    /// As [`CudaDevice::open`], with options.
    ///
    /// # Errors
    /// As [`CudaDevice::open`].
    pub fn with_options(ordinal: usize, options: CudaOptions) -> Result<CudaDevice, Error> {
        let context = open_context(ordinal)?;
        // SAFETY: all that this device allocates is used on its one stream. Graphs cannot wait for events from outside.
        unsafe { context.disable_event_tracking() };
        let failed = |error| device_error("making a stream", error);
        // Not the default stream, which cannot be captured.
        let stream = context.new_stream().map_err(failed)?;
        let cuda = Arc::new(Cuda::with_options(&context, options)?);
        Ok(CudaDevice { cuda, stream })
    }

    /// The backend underneath.
    pub fn cuda(&self) -> &Arc<Cuda> {
        &self.cuda
    }

    /// The device's name, as its driver tells it, and its compute capability.
    pub fn name(&self) -> String {
        let (major, minor) = self.cuda.capabilities().compute_capability;
        let name = self.cuda.context().name().unwrap_or_else(|_| "CUDA device".to_owned());
        format!("{name} (sm_{major}{minor})")
    }

    /// As [`crate::Device::details`].
    pub fn details(&self) -> Vec<(&'static str, String)> {
        let capabilities = self.cuda.capabilities();
        let (major, minor) = capabilities.compute_capability;
        let driver = capabilities.driver_version;
        let mut details = vec![
            ("compute_capability", format!("{major}.{minor}")),
            ("multiprocessors", capabilities.multiprocessors.to_string()),
            ("shared_memory_per_block_bytes", capabilities.shared_memory_per_block.to_string()),
            ("driver_cuda_version", format!("{}.{}", driver / 1000, driver % 1000 / 10)),
        ];
        if let Some(bytes) = self.cache_bytes() {
            details.push(("l2_cache_bytes", bytes.to_string()));
        }
        if let Ok(bytes) = self.cuda.context().total_mem() {
            details.push(("memory_bytes", bytes.to_string()));
        }
        details
    }

    /// As [`crate::Device::cache_bytes`].
    pub fn cache_bytes(&self) -> Option<u64> {
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE;
        let bytes = self.cuda.context().attribute(attribute).ok()?;
        u64::try_from(bytes).ok().filter(|&bytes| bytes > 0)
    }

    /// As [`crate::Device::load`].
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
        self.cuda.prepare(op, &layouts)?;
        let (inputs, outputs) = (self.upload_inputs(inputs)?, self.upload_outputs(outputs)?);
        // Not zeros: a kernel that reads what no launch has written should not go unnoticed.
        let fill = vec![NAN_BYTE; op.workspace_bytes(&layouts).max(1)];
        let workspace = self
            .stream
            .clone_htod(&fill)
            .map_err(|error| device_error("allocating the workspace", error))?;
        let launches = op.plan_cuda(&self.cuda, &layouts, true)?.launches().count();
        let device = self.clone();
        Ok(Box::new(CudaLoaded { op: *op, device, inputs, outputs, workspace, launches }))
    }

    /// As [`crate::Device::record`].
    pub fn record<'a>(
        &self,
        loaded: &'a mut [Box<dyn Loaded>],
        rounds: u32,
    ) -> Result<CudaRecording<'a>, Error> {
        let failed = |error| device_error("capturing a graph", error);
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(failed)?;
        let enqueued =
            (0..rounds).try_for_each(|_| loaded.iter_mut().try_for_each(|one| one.enqueue()));
        // In any case: a stream that is capturing does nothing else.
        let graph = self.stream.end_capture(CUgraphInstantiate_flags(0));
        enqueued?;
        let graph = graph.map_err(failed)?.ok_or_else(|| Error::Device {
            backend: Backend::Cuda,
            action: "capturing a graph".to_owned(),
            message: "the driver gave none".to_owned(),
        })?;
        graph.upload().map_err(failed)?;
        Ok(CudaRecording { device: self.clone(), graph, loaded: PhantomData })
    }

    /// How long what `enqueue` enqueues takes, by the device's clock where it has one. Nothing is left to do then.
    fn time(
        &self,
        action: impl Into<String>,
        enqueue: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Duration, Error> {
        let action = action.into();
        let failed = |error| device_error(action.as_str(), error);
        let clock = self.start_clock().map_err(failed)?;
        enqueue()?;
        let duration = self.stop_clock(&clock).map_err(failed)?;
        self.stream.synchronize().map_err(failed)?;
        Ok(duration)
    }

    fn start_clock(&self) -> Result<Clock, DriverError> {
        // cudarc's `elapsed_ms` calls a function that earlier drivers lack, and panics then.
        const EVENTS_WITH_TIMES: u32 = 12_080;
        let stream = &self.stream;
        if self.cuda.capabilities().driver_version >= EVENTS_WITH_TIMES {
            let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
            return stream.record_event(flags).map(Clock::Device);
        }
        stream.synchronize()?;
        Ok(Clock::Host(Instant::now()))
    }

    fn stop_clock(&self, clock: &Clock) -> Result<Duration, DriverError> {
        let stream = &self.stream;
        match clock {
            Clock::Device(start) => {
                let end = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
                let milliseconds = start.elapsed_ms(&end)?;
                Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1000.0))
            }
            Clock::Host(start) => {
                stream.synchronize()?;
                Ok(start.elapsed())
            }
        }
    }

    // Apart from `load`, which is generic, since collecting a map compiles a sort each time.

    fn upload_inputs(&self, inputs: NamedTensors) -> Result<Inputs, Error> {
        let upload = |(name, tensor): (String, Tensor)| {
            Ok((name, (tensor.layout(), self.upload(tensor.view().span_bytes())?)))
        };
        inputs.into_iter().map(upload).collect()
    }

    fn upload_outputs(&self, outputs: NamedTensors) -> Result<Outputs, Error> {
        let upload = |(name, tensor): (String, Tensor)| {
            let guarded = Guarded::new(&tensor);
            let memory = self.upload(guarded.bytes())?;
            Ok((name, (guarded, memory)))
        };
        outputs.into_iter().map(upload).collect()
    }

    /// At least one byte, since CUDA allocates no empty memory.
    fn upload(&self, bytes: &[u8]) -> Result<CudaSlice<u8>, Error> {
        let bytes = if bytes.is_empty() { &[0u8][..] } else { bytes };
        let failed = |error| device_error("copying to the device", error);
        self.stream.clone_htod(bytes).map_err(failed)
    }
}

type Inputs = BTreeMap<String, (Layout, CudaSlice<u8>)>;
type Outputs = BTreeMap<String, (Guarded, CudaSlice<u8>)>;

struct CudaLoaded<O> {
    op: O,
    device: CudaDevice,
    inputs: Inputs,
    outputs: Outputs,
    workspace: CudaSlice<u8>,
    launches: usize,
}

enum Clock {
    Device(CudaEvent),
    Host(Instant),
}

impl<O: Operation> Loaded for CudaLoaded<O> {
    fn run(&mut self, iterations: u32) -> Result<Duration, Error> {
        let device = self.device.clone();
        device.time(format!("running {}", O::NAME), || {
            (0..iterations).try_for_each(|_| self.enqueue())
        })
    }

    fn enqueue(&mut self) -> Result<(), Error> {
        let stream = &self.device.stream;
        let (inputs, outputs) = (&self.inputs, &self.outputs);
        let args = O::Args::collect(
            O::NAME,
            |info| {
                Ok(inputs.get(info.name).map(|(layout, memory)| {
                    let (pointer, _guard) = memory.device_ptr(stream);
                    // SAFETY: the memory was filled from a tensor of this layout, is kept by `self`, and is
                    // used on this stream alone.
                    unsafe { CudaTensor::from_raw(pointer, *layout) }
                }))
            },
            |info| {
                Ok(outputs.get(info.name).map(|(guarded, memory)| {
                    let (pointer, _guard) = memory.device_ptr(stream);
                    let pointer = pointer + GUARD_BYTES as u64;
                    // SAFETY: as above, the contents starting behind the first fence; nothing else uses it.
                    unsafe { CudaTensorMut::from_raw(pointer, guarded.layout()) }
                }))
            },
        )?;
        let workspace = CudaWorkspace::new(&mut self.workspace);
        self.op.enqueue_cuda(&self.device.cuda, stream, args, workspace)
    }

    fn outputs(&mut self) -> Result<NamedTensors, Error> {
        let stream = &self.device.stream;
        let failed = |error| device_error("copying from the device", error);
        let mut tensors = NamedTensors::new();
        for (name, (guarded, memory)) in &mut self.outputs {
            stream.memcpy_dtoh(memory, guarded.bytes_mut()).map_err(failed)?;
            stream.synchronize().map_err(failed)?;
            tensors.insert(name.clone(), guarded.tensor(Backend::Cuda)?);
        }
        Ok(tensors)
    }

    fn launches(&self) -> Option<usize> {
        Some(self.launches)
    }
}

/// Runs of operations in one CUDA graph.
pub struct CudaRecording<'a> {
    device: CudaDevice,
    graph: CudaGraph,
    /// The graph has their tensors' addresses.
    loaded: PhantomData<&'a mut [Box<dyn Loaded>]>,
}

impl Recorded for CudaRecording<'_> {
    fn run(&mut self) -> Result<Duration, Error> {
        self.device.time("running a graph", || {
            self.graph.launch().map_err(|error| device_error("launching a graph", error))
        })
    }
}
