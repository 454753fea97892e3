//! The context: a device with its capabilities and pipelines.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::capabilities::WgpuCapabilities;
use super::matrices::CooperativeMatrices;
use super::pipeline::{Constants, Pipeline, Pipelines};
use super::scope::{device_error, scoped};
use super::shader::Shader;
use crate::error::{Backend, Error};

/// A device and its queue, its capabilities, and the pipelines compiled for it so far.
///
/// Cheap to make, but keep it: pipelines are compiled once a context, on first use. Plans may be made from
/// several threads at once.
#[derive(Debug)]
pub struct Wgpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: WgpuCapabilities,
    dispatch: WgpuDispatch,
    pipelines: Pipelines,
    absent: [wgpu::Buffer; 2],
}

/// How kernels are chosen; the default leaves everything to shape and capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WgpuDispatch {
    /// The kernels of the MLPs, whatever the number of rows.
    pub mlp: Option<MlpKernel>,
    /// How invocations add up their sums.
    pub reduction: Option<Reduction>,
    /// Reads rows element by element even where 16-byte words would do.
    pub scalar_loads: bool,
    /// Binds no more storage buffers to a shader than the 8 that WebGPU promises, whatever the device takes. Heads then
    /// take more launches.
    pub few_buffers: bool,
    /// Chooses for a software device as for a GPU. By default it gets fewer invocations, since it runs one after the
    /// other, and kernels with fewer barriers, since it switches between invocations there.
    pub as_gpu: bool,
    /// Lets wgpu inject its bounds checks into the shaders, which the crate does without because all
    /// extents are validated beforehand.
    pub bounds_checks: bool,
}

/// Kernels of the MLPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MlpKernel {
    /// Reads a weight once for up to eight rows; for decoding.
    Gemv,
    /// Tiles in workgroup memory; for prompts.
    Tile,
    /// Tiles by cooperative matrices, instead of [`MlpKernel::Tile`] where activations and weights are f16 and
    /// [`WgpuCapabilities::matrices`] says that there are some.
    Matrices,
}

/// How the invocations of a workgroup add up their sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// By subgroup operations.
    Subgroup,
    /// Through workgroup memory.
    Workgroup,
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Wgpu>();
    assert_send_sync::<super::Plan>();
};

impl Wgpu {
    /// Works on the caller's device. Subgroup kernels are used if the device was requested with
    /// [`wgpu::Features::SUBGROUP`]; large tensors need `required_limits: adapter.limits()`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for a device with too few storage buffers, or a driver known to compute wrongly.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Wgpu, Error> {
        let capabilities = WgpuCapabilities::of(device)?;
        let absent = scoped(device, "creating placeholder buffers", || {
            [false, true].map(|_| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("siluette.absent"),
                    size: 16,
                    usage: wgpu::BufferUsages::STORAGE,
                    mapped_at_creation: false,
                })
            })
        })?;
        Ok(Wgpu {
            device: device.clone(),
            queue: queue.clone(),
            capabilities,
            dispatch: WgpuDispatch::default(),
            pipelines: Pipelines::default(),
            absent,
        })
    }

    /// Opens the best adapter of this machine, with all its limits, subgroups and timestamps.
    ///
    /// Heeds wgpu's environment variables: `WGPU_BACKEND`, `WGPU_ADAPTER_NAME`, `WGPU_POWER_PREF`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is no adapter or it is of no use, [`Error::Device`] if it cannot be
    /// opened.
    pub fn open() -> Result<Wgpu, Error> {
        open_on(&adapter()?, wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled())
    }

    /// As [`Wgpu::open`], with the adapter's cooperative matrices, by which products of many rows of f16 are then made.
    ///
    /// They are an experiment of wgpu's, which warns of undefined behaviour in it: hence apart. No other way to open a device
    /// enables them.
    ///
    /// # Errors
    /// Those of [`Wgpu::open`], and [`Error::Unavailable`] if the adapter has no matrices that there are kernels for.
    #[allow(unsafe_code, reason = "wgpu's word for experiments is a promise")]
    pub fn open_with_matrices() -> Result<Wgpu, Error> {
        let adapter = adapter()?;
        CooperativeMatrices::required(&adapter)?;
        // SAFETY: the promise is to expect errors in wgpu's cooperative matrices, and to report them. The caller asks for
        // these by name, and the shaders are the crate's own: all reads and writes of matrices lie in workgroup memory, at
        // places that depend on the shader's constants alone, in uniform control flow.
        let experiments = unsafe { wgpu::ExperimentalFeatures::enabled() };
        open_on(&adapter, CooperativeMatrices::FEATURES, experiments)?.with_matrices(&adapter)
    }

    /// Lets products of many rows of f16 be made by cooperative matrices, on a device that was requested from `adapter`
    /// with [`CooperativeMatrices::FEATURES`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the adapter has no matrices that there are kernels for, or the device lacks a feature.
    pub fn with_matrices(mut self, adapter: &wgpu::Adapter) -> Result<Wgpu, Error> {
        let matrices = CooperativeMatrices::required(adapter)?;
        let missing = CooperativeMatrices::FEATURES - self.device.features();
        if !missing.is_empty() {
            return Err(Error::Unavailable {
                backend: Backend::Wgpu,
                reason: format!("the device was requested without {missing}"),
                remedy: "request it with CooperativeMatrices::FEATURES".into(),
            });
        }
        self.capabilities.matrices = Some(matrices);
        Ok(self)
    }

    /// Chooses kernels in another way.
    #[must_use]
    pub fn with_dispatch(mut self, dispatch: WgpuDispatch) -> Wgpu {
        if dispatch.bounds_checks != self.dispatch.bounds_checks {
            self.pipelines = Pipelines::default();
        }
        self.capabilities.cpu = WgpuCapabilities::is_software(&self.device) && !dispatch.as_gpu;
        self.dispatch = dispatch;
        self
    }

    /// How kernels are chosen.
    pub fn dispatch(&self) -> WgpuDispatch {
        self.dispatch
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Its queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// What the device can do.
    pub fn capabilities(&self) -> &WgpuCapabilities {
        &self.capabilities
    }

    /// Storage buffers that a shader may bind.
    pub(crate) fn storage_buffers(&self) -> u32 {
        // Kernels that bind more have barriers in their loops.
        if self.dispatch.few_buffers || self.capabilities.cpu {
            WgpuCapabilities::FEWEST_STORAGE_BUFFERS
        } else {
            self.capabilities.storage_buffers
        }
    }

    /// Adapter, API and driver.
    pub fn name(&self) -> String {
        let info = self.device.adapter_info();
        format!("{} ({:?}, {} {})", info.name, info.backend, info.driver, info.driver_info)
    }

    /// How many pipelines have been compiled so far.
    pub fn compiled_pipelines(&self) -> usize {
        self.pipelines.len()
    }

    /// The kernels, with their variants, that pipelines have been compiled of so far: `gate_up_tile.vector`.
    pub fn compiled_kernels(&self) -> BTreeSet<&'static str> {
        self.pipelines.shaders()
    }

    pub(super) fn pipeline(
        &self,
        op: &'static str,
        shader: &'static Shader,
        constants: &Constants,
    ) -> Result<Arc<Pipeline>, Error> {
        self.pipelines.get(
            op,
            &self.device,
            &self.capabilities,
            self.dispatch.bounds_checks,
            shader,
            constants,
        )
    }

    /// What is bound in place of an optional tensor. One buffer cannot be bound both to be read and to be
    /// written, hence two.
    pub(super) fn absent(&self, writable: bool) -> &wgpu::Buffer {
        &self.absent[usize::from(writable)]
    }
}

/// A device of this adapter, with all its limits and with more features than those that every context takes where it can.
fn open_on(
    adapter: &wgpu::Adapter,
    features: wgpu::Features,
    experimental_features: wgpu::ExperimentalFeatures,
) -> Result<Wgpu, Error> {
    let wanted = wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("siluette"),
        required_features: features | (adapter.features() & wanted),
        required_limits: adapter.limits(),
        experimental_features,
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
        .map_err(|error| device_error("opening the device", error))?;
    Wgpu::new(&device, &queue)
}

fn adapter() -> Result<wgpu::Adapter, Error> {
    let unavailable = |reason: String| {
        Error::Unavailable {
        backend: Backend::Wgpu,
        reason,
        remedy: "install a Vulkan driver, and see that WGPU_BACKEND and WGPU_ADAPTER_NAME, if set, fit it"
            .into(),
    }
    };
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    let backends = descriptor.backends;
    // The only panic of wgpu's constructor.
    if wgpu::Instance::enabled_backend_features().is_empty() {
        return Err(unavailable("wgpu was built without a backend for this platform".into()));
    }
    let instance = wgpu::Instance::new(descriptor);
    if let Ok(wanted) = std::env::var("WGPU_ADAPTER_NAME") {
        let adapters = pollster::block_on(instance.enumerate_adapters(backends));
        let names: Vec<_> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
        let wanted = wanted.to_lowercase();
        let found = names.iter().position(|name| name.to_lowercase().contains(&wanted));
        return found.and_then(|index| adapters.into_iter().nth(index)).ok_or_else(|| {
            unavailable(format!("no adapter's name contains `{wanted}`; there are {names:?}"))
        });
    }
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::from_env()
            .unwrap_or(wgpu::PowerPreference::HighPerformance),
        ..Default::default()
    };
    pollster::block_on(instance.request_adapter(&options))
        .map_err(|error| unavailable(error.to_string()))
}
