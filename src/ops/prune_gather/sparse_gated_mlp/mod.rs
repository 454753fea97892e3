//! `sparse_gated_mlp`: the SwiGLU block whose tokens each use some of the neurons only.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod lists;
mod operation;
mod reference;
#[cfg(feature = "wgpu")]
mod wgpu;

use lists::NeuronLists;

use crate::arguments::arguments;
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::operation::Operation as _;
use crate::ops::silu_mlp::Rounding;
use crate::ops::silu_mlp::mlp::config::{
    First, MlpConfig, MlpTensors, NormEpsilon, scratch_stride,
};
use crate::parameters::ParameterInfo;

arguments! {
    /// Tensors of [`SparseGatedMlp`]; `M` tokens, `d` features, `F` neurons.
    pub struct SparseGatedMlpArgs {
        /// Activations `[M, d]`.
        input x,
        /// `[F, d]`, `nn.Linear` layout.
        input gate_weight,
        /// `[F, d]`, `nn.Linear` layout.
        input up_weight,
        /// `[d, F]`, `nn.Linear` layout; `[F, d]`, a row for each neuron, with `transposed_down`.
        input down_weight,
        /// `[total]`: the tokens' lists of neurons one after another, each strictly ascending; goes with `neuron_offsets`.
        optional_input neurons: index,
        /// `[M + 1]`: where each token's list starts in `neurons`, and where the last ends; from 0 to `total`.
        optional_input neuron_offsets: index,
        /// `[d]`, in the weights' type; goes with a descriptor made `with_norm`.
        optional_input norm_weight,
        /// `[M, d]`, in the activations' type; added to the result.
        optional_input residual,
        /// `[M, d]`, f32, f16 or bf16.
        output out,
    }
}

/// Which neurons of a token take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Selection {
    /// Those whose activation is larger than this.
    Threshold(NormEpsilon),
    /// Those of its list.
    Lists,
}

/// The SwiGLU block on the neurons that each token selects: `n = rms_norm(x)` or `x`,
/// `h_j = silu(n . Wg_j) * (n . Wu_j)` where neuron `j` is selected and 0 elsewhere, `out = residual + h Wd^T`.
///
/// A token's neurons are selected in one of two ways:
/// - by threshold: those with `|silu(n . Wg_j)| > threshold`, the comparison in f32, before any rounding to the
///   activations' type and whatever [`Rounding`] says. `>` is strict, so that a threshold of 0 gives the dense block but
///   for products that are 0. NaN is selected: what is not a number reaches the token's result.
/// - by lists, one for each token: neuron `j` is computed if the token's list has it. Tokens' lists are never merged; a
///   token's result does not depend on those of others.
///
/// For up to 8 tokens, weights of neurons that no token of a step selects are not read: with a threshold the rows of
/// `up_weight`, with lists those of `gate_weight` too, and with [`SparseGatedMlp::with_transposed_down`] those of
/// `down_weight`. In the layout of `nn.Linear`, a neuron's down weights are a column, and leaving out columns saves
/// nothing: neurons that are not selected then enter the last product as zeros, and an infinite weight of theirs gives NaN.
/// GPU backends compute more tokens densely, and zero what is not selected. Sums may then be made in another order, and a
/// neuron within rounding of the threshold may change sides, unless the descriptor is
/// [batch-invariant](SparseGatedMlp::with_batch_invariance).
///
/// Lists out of order or range are errors where values lie in host memory; on a GPU, members out of range are skipped, and
/// lists out of order select neurons that nobody specified.
///
/// Source: CATS (arXiv 2404.08763), section 3.2, for the threshold; Deja Vu (arXiv 2310.17157) for lists that a predictor
/// makes.
///
/// ```
/// use siluette::{DType, SparseGatedMlp};
/// let op = SparseGatedMlp::by_threshold(4096, 11008, DType::BF16, 0.1)?
///     .with_transposed_down(true)
///     .with_norm(1e-5)?;
/// assert_eq!((op.hidden(), op.ffn(), op.threshold()), (4096, 11008, Some(0.1)));
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SparseGatedMlp {
    config: MlpConfig,
    selection: Selection,
    transposed_down: bool,
}

const THRESHOLD: ParameterInfo = ParameterInfo {
    name: "threshold",
    values: "a finite number of at least 0",
    default: "",
    description: "neurons with |silu(gate)| above it take part; not together with `neurons`",
};
const TRANSPOSED_DOWN: ParameterInfo = ParameterInfo {
    name: "transposed_down",
    values: "true or false",
    default: "false",
    description: "whether `down_weight` is `[F, d]`, a row for each neuron",
};
const SELECTED_ONCE: &str = "neurons are selected by `threshold` or by lists, not by both";
const LISTED: &str = "it goes with a descriptor made `by_lists`";

/// Most tokens that GPUs take without computing what is not selected.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
const SPARSE_ROWS: usize = 8;
/// Likewise where a token's result must not depend on how many there are.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
const INVARIANT_ROWS: usize = 64;

impl SparseGatedMlp {
    /// A block from `hidden` features through `ffn` neurons and back, activations and weights of type `dtype`, without
    /// norm, of the neurons with `|silu(gate)| > threshold`.
    ///
    /// # Errors
    /// [`Problem::Value`] for `hidden = 0` and for a threshold that is negative or not finite,
    /// [`Problem::Size`] above 2^31 - 1, [`Problem::DType`] for an integer
    /// type.
    pub fn by_threshold(
        hidden: usize,
        ffn: usize,
        dtype: DType,
        threshold: f32,
    ) -> Result<SparseGatedMlp, Error> {
        if !(threshold.is_finite() && threshold >= 0.0) {
            let (name, expected) = (THRESHOLD.name, THRESHOLD.values);
            return Err(Error::argument(Self::NAME, name, Problem::Value, expected, threshold, ""));
        }
        // Of the two zeros, one: descriptors are compared by bits.
        let selection = Selection::Threshold(NormEpsilon(threshold + 0.0));
        SparseGatedMlp::new(hidden, ffn, dtype, selection)
    }

    /// As [`SparseGatedMlp::by_threshold`], of the neurons that `neurons` and `neuron_offsets` list for each token.
    ///
    /// # Errors
    /// As [`SparseGatedMlp::by_threshold`].
    pub fn by_lists(hidden: usize, ffn: usize, dtype: DType) -> Result<SparseGatedMlp, Error> {
        SparseGatedMlp::new(hidden, ffn, dtype, Selection::Lists)
    }

    fn new(
        hidden: usize,
        ffn: usize,
        dtype: DType,
        selection: Selection,
    ) -> Result<SparseGatedMlp, Error> {
        let config = MlpConfig::new(Self::NAME, First::Gated, hidden, ffn, dtype)?;
        Ok(SparseGatedMlp { config, selection, transposed_down: false })
    }

    /// Takes `down_weight` as `[F, d]`, so that the weights of a neuron that is not selected need not be read.
    #[must_use]
    pub fn with_transposed_down(mut self, transposed_down: bool) -> Self {
        self.transposed_down = transposed_down;
        self
    }

    /// Weights and norm weight of another type: f16 or bf16 under f32 activations.
    ///
    /// # Errors
    /// [`Problem::DType`] for any other mix.
    pub fn with_weight_dtype(self, dtype: DType) -> Result<Self, Error> {
        Ok(SparseGatedMlp { config: self.config.with_weight_dtype(dtype)?, ..self })
    }

    /// Starts with an RMS norm, as [`GatedMlp`](crate::GatedMlp)'s; `norm_weight` must then be given.
    ///
    /// # Errors
    /// [`Problem::Value`] if `eps` is negative or not finite.
    pub fn with_norm(self, eps: f32) -> Result<Self, Error> {
        Ok(SparseGatedMlp { config: self.config.with_norm(eps)?, ..self })
    }

    /// Where intermediate results are rounded; [`Rounding::KeepF32`] unless set.
    #[must_use]
    pub fn with_rounding(mut self, rounding: Rounding) -> Self {
        self.config.rounding = rounding;
        self
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

    /// Neurons between the projections.
    pub fn ffn(&self) -> usize {
        self.config.ffn
    }

    /// What a neuron's activation must exceed; `None` where lists say which take part.
    pub fn threshold(&self) -> Option<f32> {
        match self.selection {
            Selection::Threshold(threshold) => Some(threshold.0),
            Selection::Lists => None,
        }
    }

    /// Whether `down_weight` has a row for each neuron.
    pub fn transposed_down(&self) -> bool {
        self.transposed_down
    }

    /// Scratch memory for `rows` tokens, in bytes, on backends where the caller brings it; the CPU's
    /// [`Workspace`](crate::Workspace) sizes itself.
    pub fn workspace_bytes(&self, rows: usize) -> usize {
        let part = (rows * scratch_stride(self.ffn()) * size_of::<f32>()).next_multiple_of(256);
        let linear = [self.projection(), self.last()].map(|linear| linear.workspace_bytes(rows));
        3 * part + linear[0].max(linear[1])
    }

    /// One of the first two projections, as the linear layer that it is.
    fn projection(&self) -> MlpConfig {
        let ffn = self.ffn();
        MlpConfig { first: First::Absent, ffn: 0, outputs: ffn, width: ffn, ..self.config }
    }

    /// The last projection, likewise.
    fn last(&self) -> MlpConfig {
        let [hidden, ffn] = [self.hidden(), self.ffn()];
        MlpConfig {
            first: First::Absent,
            hidden: ffn,
            inputs: ffn,
            ffn: 0,
            outputs: hidden,
            width: hidden,
            norm: None,
            ..self.config
        }
    }

    fn shape_of_down(&self) -> [usize; 2] {
        let [hidden, ffn] = [self.hidden(), self.ffn()];
        if self.transposed_down { [ffn, hidden] } else { [hidden, ffn] }
    }

    /// Whether a GPU looks at each token's neurons by themselves.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn is_sparse(&self, rows: usize) -> bool {
        rows <= SPARSE_ROWS || (self.config.batch_invariant && rows <= INVARIANT_ROWS)
    }
}

/// What dense blocks have too; `down_weight` is passed on as it is.
fn dense_tensors<In, Out>(args: SparseGatedMlpArgs<In, Out>) -> MlpTensors<In, Out> {
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
        in_mask: None,
        mid_mask: None,
        out_mask: None,
        out: args.out,
    }
}
