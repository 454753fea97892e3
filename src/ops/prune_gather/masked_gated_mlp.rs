//! `masked_gated_mlp`: the dense SwiGLU block under masks, as search and calibration run it.

use crate::arguments::arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::operation::NamedLayouts;
use crate::ops::silu_mlp::mlp::config::{First, MlpConfig, MlpTensors};
use crate::ops::silu_mlp::mlp::sealed::Kind;
use crate::ops::silu_mlp::mlp::{self, Mlp, MlpKind, NeuronKind};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

arguments! {
    /// Tensors of [`MaskedGatedMlp`]; `M` tokens, `d` features, `F` neurons.
    pub struct MaskedGatedMlpArgs {
        /// Activations `[M, d]`.
        input x,
        /// `[F, d]`, `nn.Linear` layout.
        input gate_weight,
        /// `[F, d]`, `nn.Linear` layout.
        input up_weight,
        /// `[d, F]`, `nn.Linear` layout.
        input down_weight,
        /// `[d]`, f32: S3, what is read.
        input in_mask,
        /// `[F]`, f32: S4, the neurons.
        input mid_mask,
        /// `[d]`, f32: S5, what is written.
        input out_mask,
        /// `[d]`, in the weights' type; goes with a descriptor made `with_norm`.
        optional_input norm_weight,
        /// `[M, d]`, in the activations' type; added to the result.
        optional_input residual,
        /// `[M, d]`, f32, f16 or bf16.
        output out,
    }
}

/// Marks a [`MaskedGatedMlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskedGated;

/// The SwiGLU block on dense weights under masks, hard (0 or 1) or soft (anything between): `n = in_mask * rms_norm(x)`,
/// `h = mid_mask^2 * silu(n Wg^T) * (n Wu^T)`, `out = residual + out_mask * (h Wd^T)`.
///
/// A neuron's mask multiplies both branches, so it enters squared. With hard masks the result is that of
/// [`PrunedGatedMlp`](super::PrunedGatedMlp) on compacted weights, but not to the bit, since zeros take part in sums of
/// another length; and where a masked weight or activation is infinite, 0 times infinity is NaN in this mode only.
/// The norm is over all features.
///
/// Source: DISP-LLM (arXiv 2410.11988), section 3.3.
///
/// ```
/// use siluette::{DType, MaskedGatedMlp};
/// let op = MaskedGatedMlp::new(4096, 11008, DType::BF16)?.with_norm(1e-5)?;
/// assert_eq!((op.hidden(), op.ffn()), (4096, 11008));
/// # Ok::<(), siluette::Error>(())
/// ```
pub type MaskedGatedMlp = Mlp<MaskedGated>;

impl Mlp<MaskedGated> {
    /// A block from `hidden` features through `ffn` neurons and back, activations and weights of type `dtype`, without
    /// norm.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for `hidden = 0`,
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1,
    /// [`Problem::DType`](crate::Problem::DType) for an integer type.
    pub fn new(hidden: usize, ffn: usize, dtype: DType) -> Result<Self, Error> {
        let config = MlpConfig::new(MaskedGated::NAME, MaskedGated::FIRST, hidden, ffn, dtype)?;
        Ok(Mlp::from_config(config.with_masks()))
    }
}

impl NeuronKind for MaskedGated {}

impl MlpKind for MaskedGated {
    type Args<In, Out> = MaskedGatedMlpArgs<In, Out>;
}

impl Kind for MaskedGated {
    const NAME: &'static str = "masked_gated_mlp";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str = "residual + out_mask * ((mid_mask^2 * silu(n Wg^T) * (n Wu^T)) Wd^T), \
         n = in_mask * x or in_mask * rms_norm(x)";
    const PARAMETERS: &'static [ParameterInfo] = mlp::DENSE_PARAMETERS;
    const FIRST: First = First::Gated;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<MlpConfig, Error> {
        let config = MlpConfig::describe(Self::NAME, Self::FIRST, inputs, parameters)?;
        Ok(config.with_masks())
    }

    fn tensors<In, Out>(args: MaskedGatedMlpArgs<In, Out>) -> MlpTensors<In, Out> {
        MlpTensors {
            x: args.x,
            gate_weight: Some(args.gate_weight),
            up_weight: Some(args.up_weight),
            down_weight: args.down_weight,
            gate_bias: None,
            up_bias: None,
            down_bias: None,
            norm_weight: args.norm_weight,
            residual: args.residual,
            in_indices: None,
            out_indices: None,
            in_mask: Some(args.in_mask),
            mid_mask: Some(args.mid_mask),
            out_mask: Some(args.out_mask),
            out: args.out,
        }
    }

    fn copied<In: Copy, Out: Copy>(args: &MaskedGatedMlpArgs<In, Out>) -> MlpTensors<In, Out> {
        Self::tensors(*args)
    }
}

impl Cpu {
    /// [`MaskedGatedMlp`] on the CPU: the SwiGLU block under masks.
    ///
    /// `workspace` grows once to what this shape needs, and is reused.
    ///
    /// Weights may be packed, all of them: [`PackedWeight`](crate::PackedWeight).
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; `out` is then untouched.
    pub fn masked_gated_mlp(
        &self,
        op: &MaskedGatedMlp,
        args: MaskedGatedMlpArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        mlp::cpu::mlp(self, &op.config, MaskedGated::tensors(args), workspace)
    }
}

#[cfg(feature = "wgpu")]
impl Wgpu {
    /// Binds [`MaskedGatedMlp`] to buffers, to be recorded as often as wanted: the SwiGLU block under masks.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_masked_gated_mlp(
        &self,
        op: &MaskedGatedMlp,
        args: MaskedGatedMlpArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        mlp::wgpu::plan(self, &op.config, MaskedGated::tensors(args), workspace)
    }
}

#[cfg(feature = "cuda")]
impl Cuda {
    /// Enqueues [`MaskedGatedMlp`] on the caller's stream: the SwiGLU block under masks.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn masked_gated_mlp(
        &self,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        op: &MaskedGatedMlp,
        args: MaskedGatedMlpArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        mlp::cuda::enqueue(self, stream, &op.config, MaskedGated::tensors(args), workspace)
    }
}
