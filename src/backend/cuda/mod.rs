//! The CUDA backend: kernels on the caller's streams and memory.
//!
//! [`Cuda`] belongs to one [`CudaContext`]. Its methods take the caller's stream and tensors and enqueue kernels (one of
//! them a memset, too), nothing else: they allocate nothing, wait for nothing, read no environment, and can be captured
//! into a CUDA graph.
//!
//! # Loading kernels
//! A kernel is loaded when it is first used: from images compiled into the crate (`SILUETTE_CUDA_ARCHS` at build
//! time), else from the cache on disk, else through NVRTC. [`Cuda::prepare`] does so beforehand, which a captured
//! graph needs: nothing can be loaded while a stream is capturing.
//!
//! # Memory and streams of others
//! Tensors are made from cudarc's slices and views, whose events keep uses on several streams in order, or by
//! [`CudaTensor::from_raw`] from any device pointer. The CUDA runtime (PyTorch, for one) works in the device's
//! primary context, which [`open_context`] opens too; its `cudaStream_t` is a `CUstream`, to be wrapped by
//! [`CudaContext::wrap_borrowed_stream`].
//!
//! # Graphs
//! cudarc's events cannot be waited for across the border of a captured graph. Allocate tensors that a graph uses
//! after `CudaContext::disable_event_tracking`, or pass them by `from_raw`; otherwise the call is refused and the
//! capture stays intact.

// Every call below goes to a C library; each block names what makes it sound.
#![allow(unsafe_code, reason = "the driver, NVRTC and kernel launches are foreign code")]

mod architecture;
pub(crate) mod binder;
mod cache;
mod capabilities;
mod compiler;
mod device;
mod driver;
pub(crate) mod launch;
mod modules;
mod options;
pub(crate) mod parameters;
mod region;
mod sources;
mod tensor;
pub(crate) mod tensor_map;
pub(crate) mod wgmma;

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, result, sys};

pub use architecture::Architecture;
pub use capabilities::CudaCapabilities;
pub use compiler::{Compiler, Image, source_names};
pub use device::CudaDevice;
pub(crate) use driver::device_error;
pub use driver::open_context;
pub use launch::CudaPlan;
pub use options::{CudaOptions, KernelCache};
pub use tensor::{CudaTensor, CudaTensorMut, CudaWorkspace, DeviceElement};

pub use crate::ops::early_exit::exit_head::cuda::strategy::HeadDispatch;
pub use crate::ops::silu_mlp::mlp::cuda::strategy::{MlpDispatch, MlpKernel};

use crate::error::{Backend, Error};
use crate::layout::Layout;
use crate::operation::Operation;
use launch::{Kernel, Launch};
use modules::Modules;
use parameters::KernelParameters;
use tensor_map::{MappedMatrix, TensorMap, TensorMapEncoder};

/// A context, its device's capabilities, and the kernels loaded into it.
///
/// Made once and shared: it is `Send` and `Sync`.
#[derive(Debug)]
pub struct Cuda {
    context: Arc<CudaContext>,
    modules: Modules,
    tensor_maps: TensorMapEncoder,
}

impl Cuda {
    /// Asks for the device's capabilities; loads nothing yet.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver does not answer.
    pub fn new(context: &Arc<CudaContext>) -> Result<Cuda, Error> {
        Cuda::with_options(context, CudaOptions::default())
    }

    /// As [`Cuda::new`], with options.
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn with_options(context: &Arc<CudaContext>, options: CudaOptions) -> Result<Cuda, Error> {
        let tensor_maps = TensorMapEncoder::find();
        let device = CudaCapabilities::of(context, tensor_maps.is_present())?;
        let modules = Modules::new(device, options);
        Ok(Cuda { context: context.clone(), modules, tensor_maps })
    }

    /// The context that the kernels are loaded into.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// What the choice of kernels depends on.
    pub fn capabilities(&self) -> &CudaCapabilities {
        self.modules.device()
    }

    /// What this was made with.
    pub fn options(&self) -> &CudaOptions {
        self.modules.options()
    }

    /// The kernels that a call with these tensors takes, if they all start on multiples of 16 bytes.
    ///
    /// # Errors
    /// Those that the call would return for these layouts.
    pub fn plan<O: Operation>(
        &self,
        op: &O,
        args: &O::Args<Layout, Layout>,
    ) -> Result<CudaPlan, Error> {
        op.plan_cuda(self, args, true)
    }

    /// Whether a call with these tensors would be accepted.
    ///
    /// # Errors
    /// Those that the call would return for these layouts.
    pub fn supports<O: Operation>(
        &self,
        op: &O,
        args: &O::Args<Layout, Layout>,
    ) -> Result<(), Error> {
        self.plan(op, args).map(drop)
    }

    /// Loads the kernels that a call with these layouts takes, wherever the tensors start, so that the call itself
    /// neither compiles nor reads files.
    ///
    /// # Errors
    /// Those that the call would return for these layouts; [`Error::Unavailable`] and [`Error::Device`] if kernels
    /// cannot be compiled or loaded.
    pub fn prepare<O: Operation>(
        &self,
        op: &O,
        args: &O::Args<Layout, Layout>,
    ) -> Result<(), Error> {
        let load = |plan: &CudaPlan| {
            plan.launches()
                .try_for_each(|launch| self.modules.load(&self.context, launch).map(drop))
        };
        load(&op.plan_cuda(self, args, true)?)?;
        match op.plan_cuda(self, args, false) {
            Ok(plan) => load(&plan),
            // A forced kernel that needs alignment: calls without it will be refused, and need no kernel.
            Err(_) => Ok(()),
        }
    }

    /// The kernel of a launch; loaded now if it is not yet, unless the stream is capturing.
    pub(crate) fn function(
        &self,
        op: &'static str,
        stream: &CudaStream,
        launch: &Launch,
    ) -> Result<CudaFunction, Error> {
        if let Some(function) = self.modules.get(&launch.kernel) {
            return Ok(function);
        }
        if binder::is_capturing(stream)? {
            return Err(not_prepared(op, launch.kernel));
        }
        self.modules.load(&self.context, launch)
    }

    /// Enqueues zeros for `bytes` bytes; a memset node of a graph that is being captured.
    ///
    /// # Safety
    /// The bytes must be of validated memory that is written, in the stream's context.
    pub(crate) unsafe fn clear(
        &self,
        stream: &CudaStream,
        address: sys::CUdeviceptr,
        bytes: usize,
    ) -> Result<(), Error> {
        // SAFETY: the caller vouches for the memory.
        unsafe { result::memset_d8_async(address, 0, bytes, stream.cu_stream()) }
            .map_err(|error| device_error("clearing a part of the workspace", error))
    }

    /// Makes a tensor map, on the host alone.
    pub(crate) fn tensor_map(&self, matrix: &MappedMatrix) -> Result<TensorMap, Error> {
        self.tensor_maps.encode(matrix)
    }

    /// Enqueues one kernel.
    ///
    /// `follows` says that the previous kernel on the stream is of the same call, so that this one may start while it
    /// ends.
    ///
    /// # Safety
    /// `P` must be the kernel's parameter struct; its pointers and sizes must be those of validated tensors, in the
    /// stream's context, and the launch must be the one that the kernel's contract asks for.
    pub(crate) unsafe fn launch<P: KernelParameters>(
        &self,
        stream: &CudaStream,
        function: &CudaFunction,
        launch: &Launch,
        parameters: &P,
        follows: bool,
    ) -> Result<(), Error> {
        let dependent = follows
            && self.options().dependent_launches
            && self.capabilities().has_dependent_launches();
        let mut parameters = [std::ptr::from_ref(parameters).cast_mut().cast::<c_void>()];
        let result = if dependent {
            // SAFETY: the caller vouches for kernel, parameters and grid.
            unsafe { launch_dependent(stream, function, launch, &mut parameters) }
        } else {
            let [x, y, z] = launch.grid;
            let block = (launch.block, 1, 1);
            // SAFETY: as above.
            unsafe {
                result::launch_kernel(
                    function.cu_function(),
                    (x, y, z),
                    block,
                    launch.shared_bytes,
                    stream.cu_stream(),
                    &mut parameters,
                )
            }
        };
        let kernel = launch.kernel;
        result.map_err(|error| driver::device_error(format!("launching {kernel}"), error))
    }
}

/// As `launch_kernel`, with programmatic stream serialization.
///
/// # Safety
/// As [`Cuda::launch`].
unsafe fn launch_dependent(
    stream: &CudaStream,
    function: &CudaFunction,
    launch: &Launch,
    parameters: &mut [*mut c_void; 1],
) -> Result<(), DriverError> {
    let mut attribute = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    };
    let [x, y, z] = launch.grid;
    let config = sys::CUlaunchConfig {
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: launch.block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.shared_bytes,
        hStream: stream.cu_stream(),
        attrs: &mut attribute,
        numAttrs: 1,
    };
    // SAFETY: the caller vouches for kernel, parameters and grid; the attribute outlives the call.
    unsafe {
        sys::cuLaunchKernelEx(
            &config,
            function.cu_function(),
            parameters.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    }
    .result()
}

fn not_prepared(op: &'static str, kernel: Kernel) -> Error {
    Error::Unsupported {
        op,
        backend: Backend::Cuda,
        reason: format!("the stream is capturing and {kernel} is not loaded"),
        remedy: "call Cuda::prepare for these tensors before the capture".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Cuda>();
        shared::<CudaDevice>();
        shared::<Compiler>();
    }
}
