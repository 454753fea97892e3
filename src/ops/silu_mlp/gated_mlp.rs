//! `gated_mlp`: the SwiGLU block, `residual + (silu(n Wg^T + bg) * (n Wu^T + bu)) Wd^T + bd`.

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
    /// Tensors of [`GatedMlp`]; `M` tokens, `H` hidden features, `F` neurons.
    pub struct GatedMlpArgs {
        /// Activations `[M, H]`.
        input x,
        /// `[F, H]`, `nn.Linear` layout.
        input gate_weight,
        /// `[F, H]`, `nn.Linear` layout.
        input up_weight,
        /// `[H, F]`, `nn.Linear` layout.
        input down_weight,
        /// `[F]`, in the weights' type.
        optional_input gate_bias,
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

/// Marks a [`GatedMlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gated;

/// The SwiGLU block of Shazeer 2020, eq. 6, as in Llama, Qwen and Mistral.
pub type GatedMlp = Mlp<Gated>;

impl MlpKind for Gated {
    type Args<In, Out> = GatedMlpArgs<In, Out>;
}

impl DenseKind for Gated {}
impl NeuronKind for Gated {}

impl mlp::sealed::Kind for Gated {
    const NAME: &'static str = "gated_mlp";
    const FAMILY: &'static str = "silu_mlp";
    const SUMMARY: &'static str =
        "residual + (silu(n Wg^T + bg) * (n Wu^T + bu)) Wd^T + bd, n = x or rms_norm(x)";
    const PARAMETERS: &'static [ParameterInfo] = mlp::DENSE_PARAMETERS;
    const FIRST: First = First::Gated;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<MlpConfig, Error> {
        MlpConfig::describe(Self::NAME, Self::FIRST, inputs, parameters)
    }

    fn tensors<In, Out>(args: GatedMlpArgs<In, Out>) -> MlpTensors<In, Out> {
        MlpTensors {
            x: args.x,
            gate_weight: Some(args.gate_weight),
            up_weight: Some(args.up_weight),
            down_weight: args.down_weight,
            gate_bias: args.gate_bias,
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

    fn copied<In: Copy, Out: Copy>(args: &GatedMlpArgs<In, Out>) -> MlpTensors<In, Out> {
        Self::tensors(*args)
    }
}

impl Cpu {
    /// [`GatedMlp`] on the CPU: the SwiGLU block, `residual + (silu(n Wg^T + bg) * (n Wu^T + bu)) Wd^T + bd`.
    ///
    /// `workspace` grows once to what this shape needs, and is reused.
    ///
    /// Weights may be packed, all of them: [`PackedWeight`](crate::PackedWeight).
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; `out` is then untouched.
    pub fn gated_mlp(
        &self,
        op: &GatedMlp,
        args: GatedMlpArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        mlp::cpu::mlp(self, &op.config, <Gated as mlp::sealed::Kind>::tensors(args), workspace)
    }
}

#[cfg(feature = "wgpu")]
impl Wgpu {
    /// Binds [`GatedMlp`] to buffers, to be recorded as often as wanted: the SwiGLU block, `residual + (silu(n Wg^T + bg) * (n Wu^T + bu)) Wd^T + bd`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_gated_mlp(
        &self,
        op: &GatedMlp,
        args: GatedMlpArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        mlp::wgpu::plan(self, &op.config, <Gated as mlp::sealed::Kind>::tensors(args), workspace)
    }
}

#[cfg(feature = "cuda")]
impl Cuda {
    /// Enqueues [`GatedMlp`] on the caller's stream: the SwiGLU block, `residual + (silu(n Wg^T + bg) * (n Wu^T + bu)) Wd^T + bd`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn gated_mlp(
        &self,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        op: &GatedMlp,
        args: GatedMlpArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let tensors = <Gated as mlp::sealed::Kind>::tensors(args);
        mlp::cuda::enqueue(self, stream, &op.config, tensors, workspace)
    }
}
