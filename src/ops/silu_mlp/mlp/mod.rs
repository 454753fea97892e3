//! What MLPs and projections share, dense, pruned or masked: descriptor, validation, cost and kernels.
//!
//! The plain MLP is the gated one without a gate: `silu` then applies to the only projection. A linear layer is
//! an MLP's second projection alone.

pub(crate) mod config;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod reference;
mod validation;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use config::{First, MlpConfig, MlpTensors};

use crate::arguments::Arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::silu_mlp::Rounding;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

/// Parameters of blocks that read and write every feature.
pub(crate) const DENSE_PARAMETERS: &[ParameterInfo] =
    &[config::EPS, config::ROUNDING, config::BATCH_INVARIANT, config::OUT_DTYPE];

/// The descriptor of an MLP or of one of its projections: [`GatedMlp`](super::GatedMlp),
/// [`SiluMlp`](super::SiluMlp) or their [pruned kin](crate::ops::prune_gather).
///
/// Biases and the residual are taken if their tensors are given; the norm is part of the descriptor.
///
/// ```
/// use siluette::{DType, GatedMlp};
/// let op = GatedMlp::new(4096, 11008, DType::BF16)?.with_norm(1e-5)?;
/// assert_eq!((op.hidden(), op.ffn()), (4096, 11008));
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mlp<K> {
    pub(crate) config: MlpConfig,
    kind: PhantomData<K>,
}

/// Which block a [`Mlp`] is. Sealed.
pub trait MlpKind: sealed::Kind + Copy + Eq + Hash + fmt::Debug + Send + Sync + 'static {
    /// The argument struct.
    type Args<In, Out>: Arguments<In, Out>;
}

/// Blocks that read and write every feature.
pub trait DenseKind: MlpKind {}

/// Blocks with neurons between two projections.
pub trait NeuronKind: MlpKind {}

pub(crate) mod sealed {
    use super::*;

    pub trait Kind {
        const NAME: &'static str;
        const FAMILY: &'static str;
        const SUMMARY: &'static str;
        const PARAMETERS: &'static [ParameterInfo];
        const FIRST: First;
        fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<MlpConfig, Error>;
        fn tensors<In, Out>(args: <Self as MlpKind>::Args<In, Out>) -> MlpTensors<In, Out>
        where
            Self: MlpKind;
        fn copied<In: Copy, Out: Copy>(
            args: &<Self as MlpKind>::Args<In, Out>,
        ) -> MlpTensors<In, Out>
        where
            Self: MlpKind;
    }
}

impl<K: DenseKind> Mlp<K> {
    /// An MLP from `hidden` features through `ffn` neurons and back, activations and weights of type
    /// `dtype`, without norm.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for `hidden = 0`,
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1,
    /// [`Problem::DType`](crate::Problem::DType) for an integer type.
    pub fn new(hidden: usize, ffn: usize, dtype: DType) -> Result<Self, Error> {
        MlpConfig::new(K::NAME, K::FIRST, hidden, ffn, dtype).map(Mlp::from_config)
    }
}

impl<K: NeuronKind> Mlp<K> {
    /// Where intermediate results are rounded; [`Rounding::KeepF32`] unless set.
    #[must_use]
    pub fn with_rounding(mut self, rounding: Rounding) -> Self {
        self.config.rounding = rounding;
        self
    }

    /// Neurons between the projections.
    pub fn ffn(&self) -> usize {
        self.config.ffn
    }
}

impl<K: MlpKind> Mlp<K> {
    /// Weights, biases and norm weight of another type: f16 or bf16 under f32 activations.
    ///
    /// # Errors
    /// [`Problem::DType`](crate::Problem::DType) for any other mix.
    pub fn with_weight_dtype(self, dtype: DType) -> Result<Self, Error> {
        self.config.with_weight_dtype(dtype).map(Mlp::from_config)
    }

    /// Starts with an RMS norm, `w_j x_j / sqrt(mean(x^2) + eps)`, rounded once to the activation type;
    /// `norm_weight` must then be given.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) if `eps` is negative or not finite.
    pub fn with_norm(self, eps: f32) -> Result<Self, Error> {
        self.config.with_norm(eps).map(Mlp::from_config)
    }

    /// Uses one kernel for up to 64 rows, so that a row's result does not depend on its batch.
    #[must_use]
    pub fn with_batch_invariance(mut self, batch_invariant: bool) -> Self {
        self.config.batch_invariant = batch_invariant;
        self
    }

    /// Features of a token.
    pub fn hidden(&self) -> usize {
        self.config.hidden
    }

    /// Scratch memory for `rows` tokens, in bytes, on backends where the caller brings it; the CPU's
    /// [`Workspace`] sizes itself.
    pub fn workspace_bytes(&self, rows: usize) -> usize {
        self.config.workspace_bytes(rows)
    }

    pub(crate) fn from_config(config: MlpConfig) -> Self {
        Mlp { config, kind: PhantomData }
    }
}

impl<K: MlpKind> Operation for Mlp<K> {
    const NAME: &'static str = K::NAME;
    const FAMILY: &'static str = K::FAMILY;
    const SUMMARY: &'static str = K::SUMMARY;
    const PARAMETERS: &'static [ParameterInfo] = K::PARAMETERS;

    type Args<In, Out> = K::Args<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        K::describe(inputs, parameters).map(Mlp::from_config)
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        self.config.outputs(inputs, parameters)
    }

    fn validate(&self, args: &K::Args<Layout, Layout>) -> Result<(), Error> {
        self.config.validate_weight_form(&K::copied(args)).map(drop)
    }

    fn validate_values(&self, args: &K::Args<TensorRef<'_>, Layout>) -> Result<(), Error> {
        self.config.validate_values(&K::copied(args))
    }

    fn cost(&self, args: &K::Args<Layout, Layout>) -> Cost {
        self.config.cost(&K::copied(args))
    }

    fn workspace_bytes(&self, args: &K::Args<Layout, Layout>) -> usize {
        let rows = K::copied(args).x.shape().first().copied().unwrap_or(0);
        self.config.workspace_bytes(rows)
    }

    fn run_reference(&self, args: K::Args<TensorRef<'_>, TensorMut<'_>>) -> Result<(), Error> {
        reference::mlp(&self.config, K::tensors(args))
    }

    fn magnitude(&self, args: &K::Args<TensorRef<'_>, Layout>, _name: &str) -> Vec<f64> {
        reference::magnitude(&self.config, &K::copied(args))
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: K::Args<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu::mlp(cpu, &self.config, K::tensors(args), workspace)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: K::Args<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu::plan(wgpu, &self.config, K::tensors(args), workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: K::Args<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda::enqueue(cuda, stream, &self.config, K::tensors(args), workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &K::Args<Layout, Layout>,
        aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, &self.config, &K::copied(args), aligned)
    }
}
