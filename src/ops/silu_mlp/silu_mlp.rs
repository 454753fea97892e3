//! `silu_mlp`: the plain MLP, `residual + silu(n W1^T + b1) W2^T + b2`.

use super::mlp::config::{First, MlpConfig, MlpTensors};
use super::mlp::{self, DenseKind, Mlp, MlpKind, NeuronKind};
use crate::arguments::arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::error::Error;
use crate::operation::NamedLayouts;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

arguments! {
    /// Tensors of [`SiluMlp`]; `M` tokens, `H` hidden features, `F` neurons.
    pub struct SiluMlpArgs {
        /// Activations `[M, H]`.
        input x,
        /// `[F, H]`, `nn.Linear` layout.
        input up_weight,
        /// `[H, F]`, `nn.Linear` layout.
        input down_weight,
        /// `[F]`, in the weights' type.
        optional_input up_bias,
        /// `[H]`, in the weights' type.
        optional_input down_bias,
        /// `[H]`, in the weights' type; goes with a descriptor made `with_norm`.
        optional_input norm_weight,
        /// `[M, H]`, in the activations' type; added to the result.
        optional_input residual,
        /// `[M, H]`, f32, f16 or bf16.
        output out,
    }
}

/// Marks a [`SiluMlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plain;

/// The two-layer MLP with SiLU between (Elfwing et al. 2017).
pub type SiluMlp = Mlp<Plain>;

impl MlpKind for Plain {
    type Args<In, Out> = SiluMlpArgs<In, Out>;
}

impl DenseKind for Plain {}
impl NeuronKind for Plain {}

impl mlp::sealed::Kind for Plain {
    const NAME: &'static str = "silu_mlp";
    const FAMILY: &'static str = "silu_mlp";
    const SUMMARY: &'static str = "residual + silu(n W1^T + b1) W2^T + b2, n = x or rms_norm(x)";
    const PARAMETERS: &'static [ParameterInfo] = mlp::DENSE_PARAMETERS;
    const FIRST: First = First::Plain;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<MlpConfig, Error> {
        MlpConfig::describe(Self::NAME, Self::FIRST, inputs, parameters)
    }

    fn tensors<In, Out>(args: SiluMlpArgs<In, Out>) -> MlpTensors<In, Out> {
        MlpTensors {
            x: args.x,
            gate_weight: None,
            up_weight: Some(args.up_weight),
            down_weight: args.down_weight,
            gate_bias: None,
            up_bias: args.up_bias,
            down_bias: args.down_bias,
            norm_weight: args.norm_weight,
            residual: args.residual,
            in_indices: None,
            out_indices: None,
            in_mask: None,
            mid_mask: None,
            out_mask: None,
            out: args.out,
        }
    }

    fn copied<In: Copy, Out: Copy>(args: &SiluMlpArgs<In, Out>) -> MlpTensors<In, Out> {
        Self::tensors(*args)
    }
}

impl Cpu {
    /// [`SiluMlp`] on the CPU: the plain MLP, `residual + silu(n W1^T + b1) W2^T + b2`.
    ///
    /// `workspace` grows once to what this shape needs, and is reused.
    ///
    /// Weights may be packed, all of them: [`PackedWeight`](crate::PackedWeight).
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; `out` is then untouched.
    pub fn silu_mlp(
        &self,
        op: &SiluMlp,
        args: SiluMlpArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        mlp::cpu::mlp(self, &op.config, <Plain as mlp::sealed::Kind>::tensors(args), workspace)
    }
}

#[cfg(feature = "wgpu")]
impl Wgpu {
    /// Binds [`SiluMlp`] to buffers, to be recorded as often as wanted: the plain MLP, `residual + silu(n W1^T + b1) W2^T + b2`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_silu_mlp(
        &self,
        op: &SiluMlp,
        args: SiluMlpArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        mlp::wgpu::plan(self, &op.config, <Plain as mlp::sealed::Kind>::tensors(args), workspace)
    }
}

#[cfg(feature = "cuda")]
impl Cuda {
    /// Enqueues [`SiluMlp`] on the caller's stream: the plain MLP, `residual + silu(n W1^T + b1) W2^T + b2`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn silu_mlp(
        &self,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        op: &SiluMlp,
        args: SiluMlpArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let tensors = <Plain as mlp::sealed::Kind>::tensors(args);
        mlp::cuda::enqueue(self, stream, &op.config, tensors, workspace)
    }
}
