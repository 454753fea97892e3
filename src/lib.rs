//! Hand-written CUDA and WGSL inference kernels behind a safe API, with a CPU backend and a scalar
//! reference for every operation.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

pub mod arguments;
pub mod backend;
pub mod device;
mod dtype;
mod error;
mod layout;
mod operation;
pub mod ops;
mod parameters;
pub mod registry;
mod tensor;
mod validate;

pub use backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
pub use backend::cuda::{Cuda, CudaOptions, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
pub use backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
pub use device::Device;
pub use dtype::{DType, Element, Float, bf16, f16};
pub use error::{Backend, Error, Problem};
pub use layout::{HasLayout, Layout, MAX_RANK};
pub use operation::{Cost, NamedLayouts, Operation};
pub use ops::silu_mlp::{
    GatedMlp, GatedMlpArgs, Rounding, SiluMlp, SiluMlpArgs, SiluMul, SiluMulArgs,
};
pub use parameters::{ParameterInfo, Parameters};
pub use tensor::{Tensor, TensorMut, TensorRef};

#[cfg(feature = "wgpu")]
pub use ::wgpu;
#[cfg(feature = "cuda")]
pub use cudarc;
