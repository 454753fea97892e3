//! `pruned_linear`: a projection that reads and writes a subset of the features.

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
use crate::ops::silu_mlp::mlp::{self, Mlp, MlpKind};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

arguments! {
    /// Tensors of [`PrunedLinear`]; `M` tokens of `d` features, of which `k` are read; `o` rows of the weight, written
    /// to as many features, or to `o` of `d_out`.
    pub struct PrunedLinearArgs {
        /// Activations `[M, d]`.
        input x,
        /// `[o, k]`, `nn.Linear` layout.
        input weight,
        /// `[k]`: the features that are read, strictly ascending; every one (`k = d`) if it is not given. Goes with
        /// a descriptor made `with_gather`.
        optional_input in_indices: index,
        /// `[o]`, in the weights' type.
        optional_input bias,
        /// `[d]`, in the weights' type; goes with a descriptor made `with_norm`.
        optional_input norm_weight,
        /// `[o]`: the features that are written, strictly ascending. Goes with a descriptor made `with_scatter`, and
        /// with `residual`.
        optional_input out_indices: index,
        /// As `out`, in the activations' type; what is added to.
        optional_input residual,
        /// `[M, o]`, or `[M, d_out]` with `out_indices`; f32, f16 or bf16.
        output out,
    }
}

/// Marks a [`PrunedLinear`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Linear;

/// `residual + n W^T + b` with any of: `n` an RMS norm of `x`, only some features of it, and the result added to some
/// features of the residual only. Without selections it is a plain linear layer.
///
/// No features to read give the bias, or 0; no features to write the residual.
///
/// Source: DISP-LLM (arXiv 2410.11988), section 3.2: the projections of attention.
///
/// ```
/// use siluette::{DType, PrunedLinear};
/// // The output projection of attention: every head is read, 2048 of 4096 features are written.
/// let op = PrunedLinear::new(4096, 2048, DType::BF16)?.with_scatter(4096)?;
/// assert_eq!((op.hidden(), op.outputs(), op.width()), (4096, 2048, 4096));
/// # Ok::<(), siluette::Error>(())
/// ```
pub type PrunedLinear = Mlp<Linear>;

impl Mlp<Linear> {
    /// A linear layer from `hidden` to `outputs` features, activations and weights of type `dtype`, without norm.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for `hidden = 0`,
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1,
    /// [`Problem::DType`](crate::Problem::DType) for an integer type.
    pub fn new(hidden: usize, outputs: usize, dtype: DType) -> Result<Self, Error> {
        MlpConfig::new(Linear::NAME, Linear::FIRST, hidden, 0, dtype)?
            .with_outputs(outputs)
            .map(Mlp::from_config)
    }

    /// Reads only so many features, those that `in_indices` name.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for more than there are.
    pub fn with_gather(self, inputs: usize) -> Result<Self, Error> {
        self.config.with_gather(inputs).map(Mlp::from_config)
    }

    /// Adds the result to those of `width` features that `out_indices` name.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for fewer than there are outputs.
    pub fn with_scatter(self, width: usize) -> Result<Self, Error> {
        self.config.with_scatter(self.config.outputs, width).map(Mlp::from_config)
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

    /// Rows of the weight.
    pub fn outputs(&self) -> usize {
        self.config.outputs
    }

    /// Features of a row of `out`.
    pub fn width(&self) -> usize {
        self.config.width
    }
}

impl MlpKind for Linear {
    type Args<In, Out> = PrunedLinearArgs<In, Out>;
}

impl Kind for Linear {
    const NAME: &'static str = "pruned_linear";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str =
        "residual + n[in] W^T + b, or that added to residual[out]; n = x or rms_norm(x)";
    const PARAMETERS: &'static [ParameterInfo] =
        &[config::EPS, config::NORM_SCOPE, config::BATCH_INVARIANT, config::OUT_DTYPE];
    const FIRST: First = First::Absent;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<MlpConfig, Error> {
        let x = input(Self::NAME, inputs, "x")?;
        let weight = input(Self::NAME, inputs, "weight")?;
        let outputs = weight.shape().first().copied().unwrap_or(1);
        let mut linear = MlpConfig::new(Self::NAME, Self::FIRST, x.columns(), 0, x.dtype())?
            .with_outputs(outputs)?;
        if inputs.contains_key("in_indices") {
            linear = linear.with_gather(weight.columns())?;
        }
        if inputs.contains_key("out_indices") {
            linear =
                linear.with_scatter(outputs, input(Self::NAME, inputs, "residual")?.columns())?;
        }
        linear.with_parameters(inputs, parameters, &weight)
    }

    fn tensors<In, Out>(args: PrunedLinearArgs<In, Out>) -> MlpTensors<In, Out> {
        MlpTensors {
            x: args.x,
            gate_weight: None,
            up_weight: None,
            down_weight: args.weight,
            gate_bias: None,
            up_bias: None,
            down_bias: args.bias,
            norm_weight: args.norm_weight,
            residual: args.residual,
            in_indices: args.in_indices,
            out_indices: args.out_indices,
            in_mask: None,
            mid_mask: None,
            out_mask: None,
            out: args.out,
        }
    }

    fn copied<In: Copy, Out: Copy>(args: &PrunedLinearArgs<In, Out>) -> MlpTensors<In, Out> {
        Self::tensors(*args)
    }
}

impl Cpu {
    /// [`PrunedLinear`] on the CPU: a projection on subsets of the features.
    ///
    /// `workspace` grows once to what this shape needs, and is reused.
    ///
    /// Weights may be packed, all of them: [`PackedWeight`](crate::PackedWeight).
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, or the first index that is out of range or out of order; `out` is then untouched.
    pub fn pruned_linear(
        &self,
        op: &PrunedLinear,
        args: PrunedLinearArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        mlp::cpu::mlp(self, &op.config, Linear::tensors(args), workspace)
    }
}

#[cfg(feature = "wgpu")]
impl Wgpu {
    /// Binds [`PrunedLinear`] to buffers, to be recorded as often as wanted: a projection on subsets of the features.
    ///
    /// The indices' values are not looked at: those that [`Operation::validate_values`](crate::Operation::validate_values)
    /// would refuse give features that nobody specified, but nothing outside the tensors is touched.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_pruned_linear(
        &self,
        op: &PrunedLinear,
        args: PrunedLinearArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        mlp::wgpu::plan(self, &op.config, Linear::tensors(args), workspace)
    }
}

#[cfg(feature = "cuda")]
impl Cuda {
    /// Enqueues [`PrunedLinear`] on the caller's stream: a projection on subsets of the features.
    ///
    /// The indices' values are not looked at: those that [`Operation::validate_values`](crate::Operation::validate_values)
    /// would refuse give features that nobody specified, but nothing outside the tensors is touched.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn pruned_linear(
        &self,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        op: &PrunedLinear,
        args: PrunedLinearArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        mlp::cuda::enqueue(self, stream, &op.config, Linear::tensors(args), workspace)
    }
}
