//! Hand-written CUDA and WGSL inference kernels behind a safe API, with a CPU backend and a scalar
//! reference for every operation.
//!
//! # The pattern
//!
//! Every operation is made of the same parts, whatever the backend:
//!
//! 1. A **descriptor** ([`GatedMlp`], [`SiluMlp`], [`SiluMul`]) says what to compute. It is `Copy`, validated
//!    when it is made, and knows nothing of devices.
//! 2. An **argument struct** ([`GatedMlpArgs`], ...) says on which tensors. It is generic over where they
//!    live: [`TensorRef`] and [`TensorMut`] in host memory, `CudaTensor` and `CudaTensorMut` on an NVIDIA
//!    GPU, `WgpuTensor` in a wgpu buffer.
//! 3. A **context** ([`Cpu`], `Cuda`, `Wgpu`) runs it: on a thread pool, on the caller's CUDA stream, in the
//!    caller's compute pass.
//!
//! Validation happens once, before anything is launched, and is the same for every backend. Whatever is
//! wrong comes back as an [`Error`] that names the argument, what was expected, what came and what to do;
//! outputs are then untouched.
//!
//! ```
//! use siluette::{Cpu, DType, SiluMul, SiluMulArgs, TensorMut, TensorRef};
//!
//! let (gate, up) = ([0.0f32, 1.0, -1.0, 2.0], [1.0f32, 2.0, 3.0, 4.0]);
//! let mut out = [0.0f32; 4];
//! let op = SiluMul::new(2, DType::F32)?;
//! let args = SiluMulArgs::new(
//!     TensorRef::new(&gate, &[2, 2])?,
//!     TensorRef::new(&up, &[2, 2])?,
//!     TensorMut::new(&mut out, &[2, 2])?,
//! );
//! Cpu::new().silu_mul(&op, args)?;
//! assert!((out[1] - 2.0 * 0.731_058_6).abs() < 1e-6);
//! # Ok::<(), siluette::Error>(())
//! ```
//!
//! # Layers
//!
//! | layer | for |
//! |---|---|
//! | [`Cpu`], `Cuda`, `Wgpu` | engines: own memory, own stream or pass, nothing allocated on the way |
//! | [`Device`] | first steps and tools: takes host tensors, gives host tensors back |
//! | [`registry`] | any operation by name: command line, test cases, tables |
//!
//! # Features
//!
//! | feature | adds | needs at build time | needs at run time |
//! |---|---|---|---|
//! | (none) | the CPU backend and the reference | | |
//! | `cuda` | the CUDA backend | | an NVIDIA driver; NVRTC, unless kernels were compiled ahead of time |
//! | `wgpu` | the WebGPU backend | | a Vulkan, Metal or DX12 adapter |
//! | `candle` | any operation on `candle_core::Tensor`s | | |
//! | `candle-cuda` | the same on a GPU | CUDA toolkit, for candle | NVIDIA driver |
//! | `safetensors` | files of index sets and of trained modules | | |
//! | `cli` | the tool `siluette`, with every backend | | |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

pub mod arguments;
pub mod backend;
#[cfg(feature = "candle")]
pub mod candle;
#[doc(hidden)]
pub mod conformance;
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

pub use backend::cpu::{Cpu, InstructionSet, PackedWeight, Workspace};
#[cfg(feature = "cuda")]
pub use backend::cuda::{Cuda, CudaOptions, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
pub use backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
pub use device::Device;
pub use dtype::{DType, Element, Float, bf16, f16};
pub use error::{Backend, Error, Problem};
pub use layout::{HasLayout, Layout, MAX_RANK};
pub use operation::{Cost, NamedLayouts, Operation};
pub use ops::early_exit::{
    CommitCache, CommitCacheArgs, CommitStatus, CompactRows, CompactRowsArgs, DualLengthCache,
    ExitGate, ExitGateArgs, ExitHead, ExitHeadArgs, ExitHeadStates, ExitHeadStatesArgs, ExitRing,
    ExitThresholds, FilterOrder, Finish, LayerRow, Layers, MergeExitStates, MergeExitStatesArgs,
    Require, SampledMode, SampledValues, ScatterRows, ScatterRowsArgs, SelfSpeculation,
    SequenceProgress, SpeculationSettings, SpeculationStatistics, VerifyGreedy, VerifyGreedyArgs,
    VerifySampled, VerifySampledArgs, VerifyTree, VerifyTreeArgs,
};
pub use ops::feature_attention::{
    BatchNorm, BiGru, BiGruArgs, FeatureAttention, FeatureAttentionArgs, Select,
    SelectiveFeatureAttention, SelectiveFeatureAttentionArgs, StackMode,
};
#[cfg(feature = "safetensors")]
pub use ops::feature_attention::{
    BiGruWeights, FeatureAttentionWeights, SelectiveFeatureAttentionWeights,
};
#[cfg(feature = "cuda")]
pub use ops::prune_gather::CudaIndexSet;
#[cfg(feature = "wgpu")]
pub use ops::prune_gather::WgpuIndexSet;
pub use ops::prune_gather::{
    CompactMask, CompactMaskArgs, CompactWeight, CompactWeightArgs, CoupledNeurons,
    CoupledNeuronsArgs, DeanMode, GatherNorm, GatherNormArgs, IndexSet, InvertIndices,
    InvertIndicesArgs, LayerIndexSets, MaskedGatedMlp, MaskedGatedMlpArgs, ModelIndexSets,
    NormScope, PrunedGatedMlp, PrunedGatedMlpArgs, PrunedLinear, PrunedLinearArgs, ScatterAdd,
    ScatterAddArgs, ScatterNormGather, ScatterNormGatherArgs, SelectTop, SelectTopArgs,
    SparseGatedMlp, SparseGatedMlpArgs, ZeroEntries, ZeroEntriesArgs,
};
pub use ops::silu_mlp::{
    GatedMlp, GatedMlpArgs, Rounding, SiluMlp, SiluMlpArgs, SiluMul, SiluMulArgs,
};
pub use parameters::{ParameterInfo, Parameters};
pub use tensor::{Tensor, TensorMut, TensorRef};

#[cfg(feature = "wgpu")]
pub use ::wgpu;
#[cfg(feature = "cuda")]
pub use cudarc;

/// The README's code, compiled and run; some of it reads files.
#[cfg(all(doctest, feature = "candle", feature = "safetensors"))]
#[doc = include_str!("../README.md")]
struct Readme;
