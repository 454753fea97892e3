//! The owning layer: a device that takes host tensors and gives host tensors back.
//!
//! Engines bring their own memory and call the backends' methods. This layer is for everything else:
//! first steps, tests, the command-line tool and the benches. It allocates, copies and waits.

mod details;
pub(crate) mod guard;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::CudaDevice;
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::WgpuDevice;
use crate::error::{Backend, Error};
use crate::layout::HasLayout;
use crate::operation::{NamedLayouts, Operation};
use crate::tensor::{Tensor, TensorMut, TensorRef};
use guard::Guarded;

/// Tensors by argument name.
pub type NamedTensors = BTreeMap<String, Tensor>;

/// A backend together with the memory that it computes in.
#[derive(Debug)]
#[non_exhaustive]
pub enum Device {
    /// The scalar oracle.
    Reference,
    /// The CPU backend.
    Cpu(Cpu),
    /// A wgpu adapter.
    #[cfg(feature = "wgpu")]
    Wgpu(WgpuDevice),
    /// A CUDA device.
    #[cfg(feature = "cuda")]
    Cuda(CudaDevice),
}

/// An operation whose tensors lie in a device's memory, ready to run as often as wanted.
pub trait Loaded {
    /// Runs `iterations` times, waits, and returns the time that the device took for all of them.
    ///
    /// # Errors
    /// [`Error::Device`] if the device reports a failure.
    fn run(&mut self, iterations: u32) -> Result<Duration, Error>;

    /// Puts one run behind what the device has to do, and does not wait; in host memory, runs.
    ///
    /// # Errors
    /// As [`Loaded::run`].
    fn enqueue(&mut self) -> Result<(), Error>;

    /// Copies of the outputs, gaps between rows included.
    ///
    /// # Errors
    /// [`Error::Device`] if the device reports a failure.
    fn outputs(&mut self) -> Result<NamedTensors, Error>;

    /// Kernel launches, or dispatches, that a run takes; `None` in host memory.
    fn launches(&self) -> Option<usize>;
}

/// Runs of loaded operations that were put together once, to be started as often as wanted.
pub trait Recorded {
    /// Starts all of them, waits, and returns the time that the device took.
    ///
    /// # Errors
    /// [`Error::Device`] if the device reports a failure.
    fn run(&mut self) -> Result<Duration, Error>;
}

impl Device {
    /// The best device of a backend on this machine.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the backend was not built in, or the machine has no driver, library or
    /// device for it.
    pub fn open(backend: Backend) -> Result<Device, Error> {
        match backend {
            Backend::Reference => Ok(Device::Reference),
            Backend::Cpu => Ok(Device::Cpu(Cpu::new())),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => WgpuDevice::open().map(Device::Wgpu),
            #[cfg(feature = "cuda")]
            Backend::Cuda => CudaDevice::open(0).map(Device::Cuda),
            #[cfg(not(all(feature = "wgpu", feature = "cuda")))]
            backend => Err(Error::Unavailable {
                backend,
                reason: "not built in".into(),
                remedy: format!("build with the feature `{backend}`").into(),
            }),
        }
    }

    /// The backend.
    pub fn backend(&self) -> Backend {
        match self {
            Device::Reference => Backend::Reference,
            Device::Cpu(_) => Backend::Cpu,
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => Backend::Wgpu,
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Backend::Cuda,
        }
    }

    /// The device's name, as its driver tells it.
    pub fn name(&self) -> String {
        match self {
            Device::Reference => "scalar reference".to_owned(),
            Device::Cpu(cpu) => cpu.name(),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => device.name(),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.name(),
        }
    }

    /// What else there is to know about the device: pairs of a snake-case name and a value.
    pub fn details(&self) -> Vec<(&'static str, String)> {
        match self {
            Device::Reference => vec![("arithmetic", "f64, one thread".to_owned())],
            Device::Cpu(_) => details::processor(),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => device.details(),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.details(),
        }
    }

    /// Bytes of the largest cache between the device and its memory, if it is known: what a benchmark must
    /// exceed to measure memory.
    pub fn cache_bytes(&self) -> Option<u64> {
        match self {
            Device::Reference | Device::Cpu(_) => details::last_level_cache(),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => None,
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.cache_bytes(),
        }
    }

    /// Runs an operation once on host tensors.
    ///
    /// # Errors
    /// Those of the operation; the outputs are then untouched.
    pub fn run<O: Operation>(
        &self,
        op: &O,
        args: O::Args<&Tensor, &mut Tensor>,
    ) -> Result<(), Error> {
        let mut inputs = NamedTensors::new();
        let mut outputs = BTreeMap::new();
        args.visit(
            |info, tensor| {
                inputs.insert(info.name.to_owned(), tensor.clone());
            },
            |info, tensor| {
                outputs.insert(info.name, tensor);
            },
        );
        let mut copies = NamedTensors::new();
        for (name, tensor) in &outputs {
            copies.insert((*name).to_owned(), Tensor::clone(tensor));
        }
        let mut loaded = self.load(op, inputs, copies)?;
        loaded.run(1)?;
        for (name, result) in loaded.outputs()? {
            if let Some(output) = outputs.get_mut(name.as_str()) {
                **output = result;
            }
        }
        Ok(())
    }

    /// Copies tensors to the device's memory. Outputs start with the contents that they come with.
    ///
    /// # Errors
    /// Those of the operation, and [`Error::Device`].
    pub fn load<O: Operation>(
        &self,
        op: &O,
        inputs: NamedTensors,
        outputs: NamedTensors,
    ) -> Result<Box<dyn Loaded>, Error> {
        validate(op, &inputs, &outputs)?;
        let cpu = match self {
            Device::Reference => None,
            Device::Cpu(cpu) => Some(cpu.clone()),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => return device.load(op, inputs, outputs),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => return device.load(op, inputs, outputs),
        };
        let outputs = guarded(&outputs);
        Ok(Box::new(HostLoaded { op: *op, cpu, inputs, outputs, workspace: Workspace::default() }))
    }

    /// Records runs of operations that this device has loaded, one behind the other as the layers of a model are, and
    /// all of them `rounds` times; nothing is run yet. On CUDA they become one graph, whose kernels start without
    /// waiting for the host. `None` on backends that have nothing of the kind.
    ///
    /// # Errors
    /// [`Error::Device`] if the device reports a failure.
    pub fn record<'a>(
        &self,
        loaded: &'a mut [Box<dyn Loaded>],
        rounds: u32,
    ) -> Result<Option<Box<dyn Recorded + 'a>>, Error> {
        match self {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Some(Box::new(device.record(loaded, rounds)?))),
            _ => {
                let _ = (loaded, rounds);
                Ok(None)
            }
        }
    }
}

/// Layouts and values, before anything is copied.
fn validate<O: Operation>(
    op: &O,
    inputs: &NamedTensors,
    outputs: &NamedTensors,
) -> Result<(), Error> {
    op.validate(&O::Args::collect(
        O::NAME,
        |info| Ok(inputs.get(info.name).map(HasLayout::layout)),
        |info| Ok(outputs.get(info.name).map(HasLayout::layout)),
    )?)?;
    op.validate_values(&O::Args::collect(
        O::NAME,
        |info| Ok(inputs.get(info.name).map(Tensor::view)),
        |info| Ok(outputs.get(info.name).map(HasLayout::layout)),
    )?)
}

/// An operation in host memory: on the CPU backend, or on the oracle.
struct HostLoaded<O> {
    op: O,
    cpu: Option<Cpu>,
    inputs: NamedTensors,
    outputs: BTreeMap<String, Guarded>,
    workspace: Workspace,
}

impl<O: Operation> Loaded for HostLoaded<O> {
    fn run(&mut self, iterations: u32) -> Result<Duration, Error> {
        let start = Instant::now();
        (0..iterations).try_for_each(|_| self.enqueue())?;
        Ok(start.elapsed())
    }

    fn enqueue(&mut self) -> Result<(), Error> {
        let args = borrow_arguments::<O>(&self.inputs, &mut self.outputs)?;
        match &self.cpu {
            Some(cpu) => self.op.run_cpu(cpu, args, &mut self.workspace),
            None => self.op.run_reference(args),
        }
    }

    fn outputs(&mut self) -> Result<NamedTensors, Error> {
        let backend = if self.cpu.is_some() { Backend::Cpu } else { Backend::Reference };
        contents(&self.outputs, backend)
    }

    fn launches(&self) -> Option<usize> {
        None
    }
}

// What follows is apart from the generic code around it since collecting a map compiles a sort each time.

fn guarded(outputs: &NamedTensors) -> BTreeMap<String, Guarded> {
    outputs.iter().map(|(name, tensor)| (name.clone(), Guarded::new(tensor))).collect()
}

fn contents(outputs: &BTreeMap<String, Guarded>, backend: Backend) -> Result<NamedTensors, Error> {
    let outputs = outputs.iter();
    outputs.map(|(name, output)| Ok((name.clone(), output.tensor(backend)?))).collect()
}

fn borrowed(
    outputs: &mut BTreeMap<String, Guarded>,
) -> Result<BTreeMap<&str, TensorMut<'_>>, Error> {
    outputs
        .iter_mut()
        .map(|(name, output)| {
            let layout = output.layout();
            Ok((name.as_str(), TensorMut::from_bytes(output.span_mut(), layout)?))
        })
        .collect()
}

/// The layout of each tensor.
pub(crate) fn layouts(tensors: &NamedTensors) -> NamedLayouts {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.layout())).collect()
}

/// The argument struct over named host memory.
fn borrow_arguments<'a, O: Operation>(
    inputs: &'a NamedTensors,
    outputs: &'a mut BTreeMap<String, Guarded>,
) -> Result<O::Args<TensorRef<'a>, TensorMut<'a>>, Error> {
    let mut outputs = borrowed(outputs)?;
    O::Args::collect(
        O::NAME,
        |info| Ok(inputs.get(info.name).map(Tensor::view)),
        |info| Ok(outputs.remove(info.name)),
    )
}
