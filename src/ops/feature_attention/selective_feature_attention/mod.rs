//! `selective_feature_attention`: weights for the features of a text, from several views of it.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod operation;
mod reference;
mod validation;
#[cfg(feature = "safetensors")]
mod weights;
#[cfg(feature = "wgpu")]
mod wgpu;

#[cfg(feature = "safetensors")]
pub use weights::SelectiveFeatureAttentionWeights;
mod workspace;

use crate::arguments::{MAX_REPEATED, arguments};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::operation::Operation as _;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use crate::ops::feature_attention::gru::GruExtent;
use crate::ops::feature_attention::gru::validate_hidden;
use crate::validate::Validator;

arguments! {
    /// Tensors of [`SelectiveFeatureAttention`]; `B` texts of up to `L` tokens of `D` features, `d1` of them in the
    /// branches, which are GRUs of `h = d1 / 2` hidden units a direction, and `d2` after the squeeze.
    ///
    /// Weights and biases are in the weights' type. GRUs have `torch.nn.GRU`'s gates: three blocks of `h` rows in the
    /// order reset, update, new.
    pub struct SelectiveFeatureAttentionArgs {
        /// `[B, L, D]`.
        input x,
        /// `[3h, d1]`.
        repeated_input weight_ih as "branch" ".weight_ih",
        /// `[3h, h]`.
        repeated_input weight_hh as "branch" ".weight_hh",
        /// `[3h]`.
        repeated_input bias_ih as "branch" ".bias_ih",
        /// `[3h]`.
        repeated_input bias_hh as "branch" ".bias_hh",
        /// `[3h, d1]`.
        repeated_input weight_ih_reverse as "branch" ".weight_ih_reverse",
        /// `[3h, h]`.
        repeated_input weight_hh_reverse as "branch" ".weight_hh_reverse",
        /// `[3h]`.
        repeated_input bias_ih_reverse as "branch" ".bias_ih_reverse",
        /// `[3h]`.
        repeated_input bias_hh_reverse as "branch" ".bias_hh_reverse",
        /// `[d1, D]`, from a token to the branches.
        input reduce_weight,
        /// `[d1]`.
        optional_input reduce_bias,
        /// `[d2, d1]`, from the squeezed branches.
        input squeeze_weight,
        /// `[d2]`.
        optional_input squeeze_bias,
        /// `[d1, d2]`, to the weights of a branch; a batch norm behind it is folded in.
        repeated_input select_weight as "select" "_weight",
        /// `[d1]`.
        repeated_input select_bias as "select" "_bias",
        /// `[D, d1]`, from the selected branches to a token.
        input expand_weight,
        /// `[D]`.
        optional_input expand_bias,
        /// `[B]`: how many tokens of each text are valid; all unless given.
        optional_input lengths: integer,
        /// `[B, L, D]`, f32, f16 or bf16; 0 behind a text's end.
        output out,
    }
}

/// What each branch reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StackMode {
    /// The branch before it; the first one the reduced tokens. The paper's stacked BiGRUs.
    #[default]
    OutputChained,
    /// The reduced tokens, starting from the final states of the branch before it: what the authors' code does.
    StateChained,
}

/// Over what the weights of the branches add up to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Select {
    /// The branches, for each text and channel: the paper's softmax.
    #[default]
    BranchSoftmax,
    /// All branches, channels and texts of the batch that have tokens, `exp(g)` over the sum of all of them: what the
    /// authors' code does. A text's result then depends on its batch; only for weights that were trained like that.
    GlobalSum,
}

/// Selective feature attention: with `x'_t = Wa x_t + ba` and `N` bidirectional GRUs `o_i` over it,
///
/// `s = mean(o) + max(o)` over the branches and a text's tokens, `z = tanh(Wz s + bz)`, `g_i = sigmoid(Wi z + bi)`,
/// `w = softmax(g)` over the branches, `y_t = Wb (sum_i w_i o_i,t) + bb`.
///
/// Everything between `x` and `out` is f32; `out` is rounded once. What lies behind a text's end is never looked at and
/// comes out as 0; a text of length 0 gives zeros. Lengths that are negative or above `L` are refused on the host; a
/// device takes them for 0 and `L`.
///
/// Source: "Modeling Selective Feature Attention" (arXiv 2404.16776), section 3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SelectiveFeatureAttention {
    features: usize,
    reduced: usize,
    squeezed: usize,
    branches: usize,
    dtype: DType,
    weight_dtype: DType,
    stack_mode: StackMode,
    select: Select,
}

impl SelectiveFeatureAttention {
    /// `branches` GRUs over `reduced` of `features` features, `D`, `d1` and `d2 = squeezed` above, of type `dtype`.
    ///
    /// # Errors
    /// [`Problem::Value`] for 0 of anything or an odd `reduced`, which two directions share; [`Problem::Size`] for more
    /// than [`MAX_REPEATED`] branches or features beyond 31 bits; [`Problem::DType`] for an integer type.
    pub fn new(
        features: usize,
        reduced: usize,
        squeezed: usize,
        branches: usize,
        dtype: DType,
    ) -> Result<SelectiveFeatureAttention, Error> {
        let check = Validator::new(Self::NAME);
        check.dimension("features", features, 1)?;
        check.dimension("reduced", reduced, 2)?;
        check.dimension("squeezed", squeezed, 1)?;
        check.dimension("branches", branches, 1)?;
        check.float("dtype", dtype)?;
        let refuse = |argument, problem, expected: String, got: usize| {
            Err(Error::argument(Self::NAME, argument, problem, expected, got, ""))
        };
        if !reduced.is_multiple_of(2) {
            let expected = "an even number, for two directions".to_owned();
            return refuse("reduced", Problem::Value, expected, reduced);
        }
        if branches > MAX_REPEATED {
            return refuse("branches", Problem::Size, format!("at most {MAX_REPEATED}"), branches);
        }
        validate_hidden(Self::NAME, reduced / 2)?;
        Ok(SelectiveFeatureAttention {
            features,
            reduced,
            squeezed,
            branches,
            dtype,
            weight_dtype: dtype,
            stack_mode: StackMode::default(),
            select: Select::default(),
        })
    }

    /// Weights and biases of another type: f16 or bf16 under f32 activations.
    ///
    /// # Errors
    /// [`Problem::DType`] for any other mix.
    pub fn with_weight_dtype(self, dtype: DType) -> Result<SelectiveFeatureAttention, Error> {
        Validator::new(Self::NAME).weight_dtype(self.dtype, dtype)?;
        Ok(SelectiveFeatureAttention { weight_dtype: dtype, ..self })
    }

    /// What each branch reads; [`StackMode::OutputChained`] unless set.
    #[must_use]
    pub fn with_stack_mode(self, stack_mode: StackMode) -> SelectiveFeatureAttention {
        SelectiveFeatureAttention { stack_mode, ..self }
    }

    /// Over what weights add up to 1; [`Select::BranchSoftmax`] unless set.
    #[must_use]
    pub fn with_select(self, select: Select) -> SelectiveFeatureAttention {
        SelectiveFeatureAttention { select, ..self }
    }

    /// Features of a token, `D`.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Features in the branches, `d1`.
    pub fn reduced(&self) -> usize {
        self.reduced
    }

    /// Features after the squeeze, `d2`.
    pub fn squeezed(&self) -> usize {
        self.squeezed
    }

    /// Branches, `N`.
    pub fn branches(&self) -> usize {
        self.branches
    }

    /// Scratch memory for `batch` texts of `length` tokens, in bytes, on backends where the caller brings it.
    pub fn workspace_bytes(&self, batch: usize, length: usize) -> usize {
        self.workspace(batch, length).bytes
    }

    /// A branch's GRU, which reads and writes f32.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn gru_extent(&self, batch: usize, steps: usize) -> GruExtent {
        GruExtent {
            op: Self::NAME,
            batch,
            steps,
            features: self.reduced,
            hidden: self.hidden(),
            activation: DType::F32,
            weight: self.weight_dtype,
        }
    }

    /// Hidden units of a direction of a branch, `h`.
    fn hidden(&self) -> usize {
        self.reduced / 2
    }
}
