//! `pruned_gated_mlp`: the SwiGLU block of a model whose layers read and write their own features.

use crate::arguments::arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::operation::NamedLayouts;
use crate::ops::prune_gather::NormScope;
use crate::ops::silu_mlp::mlp::config::{self, First, MlpConfig, MlpTensors, input};
use crate::ops::silu_mlp::mlp::sealed::Kind;
use crate::ops::silu_mlp::mlp::{self, Mlp, MlpKind, NeuronKind};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

arguments! {
    /// Tensors of [`PrunedGatedMlp`]; `M` tokens of `d` features; S3 features are read, S4 neurons are left, S5
    /// features are written.
    pub struct PrunedGatedMlpArgs {
        /// Activations `[M, d]`.
        input x,
        /// S3, `[|S3|]`: the features that are read, strictly ascending.
        input in_indices: index,
        /// `[|S4|, |S3|]`, `nn.Linear` layout.
        input gate_weight,
        /// `[|S4|, |S3|]`, `nn.Linear` layout.
        input up_weight,
        /// `[|S5|, |S4|]`, `nn.Linear` layout.
        input down_weight,
        /// S5, `[|S5|]`: the features that are written, strictly ascending.
        input out_indices: index,
        /// `[d]`, in the weights' type; goes with a descriptor made `with_norm`.
        optional_input norm_weight,
        /// `[M, d]`, in the activations' type; what is added to. `x` if it is not given.
        optional_input residual,
        /// `[M, d]`, f32, f16 or bf16.
        output out,
    }
}

/// Marks a [`PrunedGatedMlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrunedGated;

/// The SwiGLU block on subsets of the features: `n = rms_norm(x)`, `h = silu(n[S3] Wg^T) * (n[S3] Wu^T)`, `out = residual`
/// with `h Wd^T` added to the features S5.
///
/// Empty sets are legal: whatever is empty, `out` is then the residual. Sets of every feature give what
/// [`GatedMlp`](crate::GatedMlp) gives, to the bit.
///
/// Source: DISP-LLM (arXiv 2410.11988), section 3.2.
///
/// ```
/// use siluette::{DType, NormScope, PrunedGatedMlp};
/// let op = PrunedGatedMlp::new(4096, 5504, DType::BF16)?
///     .with_inputs(2048)?
///     .with_outputs(2048)?
///     .with_norm(1e-5)?
///     .with_norm_scope(NormScope::Full);
/// assert_eq!((op.hidden(), op.inputs(), op.ffn(), op.outputs()), (4096, 2048, 5504, 2048));
/// # Ok::<(), siluette::Error>(())
/// ```
pub type PrunedGatedMlp = Mlp<PrunedGated>;

impl Mlp<PrunedGated> {
    /// A block of `ffn` neurons that reads and writes all of `hidden` features, activations and weights of type
    /// `dtype`, without norm.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for `hidden = 0`,
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1,
    /// [`Problem::DType`](crate::Problem::DType) for an integer type.
    pub fn new(hidden: usize, ffn: usize, dtype: DType) -> Result<Self, Error> {
        MlpConfig::new(PrunedGated::NAME, PrunedGated::FIRST, hidden, ffn, dtype)?
            .with_gather(hidden)?
            .with_scatter(hidden, hidden)
            .map(Mlp::from_config)
    }

    /// Reads so many features: `|S3|`.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for more than there are.
    pub fn with_inputs(self, inputs: usize) -> Result<Self, Error> {
        self.config.with_gather(inputs).map(Mlp::from_config)
    }

    /// Writes so many features: `|S5|`.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for more than there are.
    pub fn with_outputs(self, outputs: usize) -> Result<Self, Error> {
        self.config.with_scatter(outputs, self.config.hidden).map(Mlp::from_config)
    }

    /// Which features the norm's mean square is over; [`NormScope::Full`] unless set.
    #[must_use]
    pub fn with_norm_scope(mut self, scope: NormScope) -> Self {
        self.config.norm_scope = scope;
        self
    }

    /// Features that are read.
    pub fn inputs(&self) -> usize {
        self.config.inputs
    }

    /// Features that are written.
    pub fn outputs(&self) -> usize {
        self.config.outputs
    }
}

impl NeuronKind for PrunedGated {}

impl MlpKind for PrunedGated {
    type Args<In, Out> = PrunedGatedMlpArgs<In, Out>;
}

impl Kind for PrunedGated {
    const NAME: &'static str = "pruned_gated_mlp";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str =
        "out = residual; out[S5] += (silu(n[S3] Wg^T) * (n[S3] Wu^T)) Wd^T, n = x or rms_norm(x)";
    const PARAMETERS: &'static [ParameterInfo] = &[
        config::EPS,
        config::NORM_SCOPE,
        config::ROUNDING,
        config::BATCH_INVARIANT,
        config::OUT_DTYPE,
    ];
    const FIRST: First = First::Gated;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<MlpConfig, Error> {
        let x = input(Self::NAME, inputs, "x")?;
        let up_weight = input(Self::NAME, inputs, "up_weight")?;
        let down_weight = input(Self::NAME, inputs, "down_weight")?;
        let rows = |weight: &crate::Layout| weight.shape().first().copied().unwrap_or(1);
        MlpConfig::new(Self::NAME, Self::FIRST, x.columns(), rows(&up_weight), x.dtype())?
            .with_gather(up_weight.columns())?
            .with_scatter(rows(&down_weight), x.columns())?
            .with_parameters(inputs, parameters, &up_weight)
    }

    fn tensors<In, Out>(args: PrunedGatedMlpArgs<In, Out>) -> MlpTensors<In, Out> {
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
            in_indices: Some(args.in_indices),
            out_indices: Some(args.out_indices),
            in_mask: None,
            mid_mask: None,
            out_mask: None,
            out: args.out,
        }
    }

    fn copied<In: Copy, Out: Copy>(args: &PrunedGatedMlpArgs<In, Out>) -> MlpTensors<In, Out> {
        Self::tensors(*args)
    }
}

impl Cpu {
    /// [`PrunedGatedMlp`] on the CPU: the SwiGLU block on subsets of the features.
    ///
    /// `workspace` grows once to what this shape needs, and is reused.
    ///
    /// Weights may be packed, all of them: [`PackedWeight`](crate::PackedWeight).
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, or the first index that is out of range or out of order; `out` is then untouched.
    pub fn pruned_gated_mlp(
        &self,
        op: &PrunedGatedMlp,
        args: PrunedGatedMlpArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        mlp::cpu::mlp(self, &op.config, PrunedGated::tensors(args), workspace)
    }
}

#[cfg(feature = "wgpu")]
impl Wgpu {
    /// Binds [`PrunedGatedMlp`] to buffers, to be recorded as often as wanted: the SwiGLU block on subsets of the features.
    ///
    /// The indices' values are not looked at: those that [`Operation::validate_values`](crate::Operation::validate_values)
    /// would refuse give features that nobody specified, but nothing outside the tensors is touched.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_pruned_gated_mlp(
        &self,
        op: &PrunedGatedMlp,
        args: PrunedGatedMlpArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        mlp::wgpu::plan(self, &op.config, PrunedGated::tensors(args), workspace)
    }
}

#[cfg(feature = "cuda")]
impl Cuda {
    /// Enqueues [`PrunedGatedMlp`] on the caller's stream: the SwiGLU block on subsets of the features.
    ///
    /// The indices' values are not looked at: those that [`Operation::validate_values`](crate::Operation::validate_values)
    /// would refuse give features that nobody specified, but nothing outside the tensors is touched.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn pruned_gated_mlp(
        &self,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        op: &PrunedGatedMlp,
        args: PrunedGatedMlpArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        mlp::cuda::enqueue(self, stream, &op.config, PrunedGated::tensors(args), workspace)
    }
}
