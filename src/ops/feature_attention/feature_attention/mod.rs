//! `feature_attention`: a weight between 0 and 1 for each feature of a text.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod operation;
mod reference;
#[cfg(feature = "safetensors")]
mod weights;
#[cfg(feature = "wgpu")]
mod wgpu;

#[cfg(feature = "safetensors")]
pub use weights::FeatureAttentionWeights;

use crate::arguments::arguments;
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::validate::Validator;

arguments! {
    /// Tensors of [`FeatureAttention`]; `B` texts of `L` tokens of `D` features, `d` of them after the squeeze.
    pub struct FeatureAttentionArgs {
        /// `[B, L, D]`.
        input x,
        /// `[d, D]`, the reduction.
        input w1,
        /// `[D, d]`, the excitation; a batch norm behind it is folded in.
        input w2,
        /// `[d]`, added to the reduction.
        optional_input b1,
        /// `[D]`, added to the excitation.
        optional_input b2,
        /// `[B]`, valid tokens of each text; absent: `L`.
        optional_input lengths: integer,
        /// `[B, L, D]`, f32, f16 or bf16; not `x` itself.
        output out,
    }
}

/// `out = x * e` with `s = mean(x)` over a text's tokens, `a = tanh(W1 s + b1)` and `e = sigmoid(W2 a + b2)`.
///
/// Everything between `x` and `out` is f32; `out` is rounded once. Padded positions of `x` are not looked at, those of
/// `out` are 0. A row's result depends on nothing but its own tokens and the weights.
///
/// On a GPU, where lengths cannot be checked, one below 0 is taken as 0 and one above `L` as `L`. Each row of the batch
/// is the work of one block or workgroup: one long text keeps little of a GPU busy.
///
/// Source: "Modeling Selective Feature Attention" (arXiv 2404.16776), section 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeatureAttention {
    features: usize,
    reduced: usize,
    dtype: DType,
    weight_dtype: DType,
    tanh: bool,
}

const X: &str = "one row of `D` features for each token of each text";
const W1: &str = "one row of `D` weights for each of `d` outputs, in the weights' type";
const W2: &str = "one row of `d` weights for each of `D` features, in the weights' type";
const B1: &str = "one value for each row of w1, in the weights' type";
const B2: &str = "one value for each row of w2, in the weights' type";

impl FeatureAttention {
    /// `features` of `x`, `reduced` to so many between the two products.
    ///
    /// # Errors
    /// [`Problem::Value`] for 0, [`Problem::Size`] above 2^31 - 1, [`Problem::DType`] for an integer type.
    pub fn new(features: usize, reduced: usize, dtype: DType) -> Result<FeatureAttention, Error> {
        let check = Validator::new(FeatureAttention::NAME);
        check.dimension("features", features, 1)?;
        check.dimension("reduced", reduced, 1)?;
        check.float("dtype", dtype)?;
        Ok(FeatureAttention { features, reduced, dtype, weight_dtype: dtype, tanh: true })
    }

    /// Another type of weights and biases than the activations', which are then f32.
    ///
    /// # Errors
    /// [`Problem::DType`] for other pairs than [`MLP_DTYPES`](crate::ops::silu_mlp::MLP_DTYPES).
    pub fn with_weight_dtype(self, dtype: DType) -> Result<FeatureAttention, Error> {
        Validator::new(Self::NAME).weight_dtype(self.dtype, dtype)?;
        Ok(FeatureAttention { weight_dtype: dtype, ..self })
    }

    /// Whether `a` goes through tanh, as in the paper; the authors' later code leaves it out.
    #[must_use]
    pub fn with_tanh(self, tanh: bool) -> FeatureAttention {
        FeatureAttention { tanh, ..self }
    }

    /// Features of a token.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Features between the two products.
    pub fn reduced(&self) -> usize {
        self.reduced
    }

    /// Type of weights and biases.
    pub fn weight_dtype(&self) -> DType {
        self.weight_dtype
    }

    /// Whether `a` goes through tanh.
    pub fn has_tanh(&self) -> bool {
        self.tanh
    }

    /// Texts and tokens of `x`.
    fn texts(&self, x: &Layout) -> Result<[usize; 2], Error> {
        let check = Validator::new(Self::NAME);
        match *x.shape() {
            [batch, length, features] if features == self.features => {
                check.dimension("texts", batch, 0)?;
                check.dimension("tokens", length, 0)?;
                Ok([batch, length])
            }
            ref got => {
                let (expected, got) = (format!("[B, L, {}]", self.features), format!("{got:?}"));
                Err(Error::argument(Self::NAME, "x", Problem::Shape, expected, got, X))
            }
        }
    }

    /// Numbers of f32 that a GPU keeps of a text: sums, of several groups of tokens apart, and `a`.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn state_elements(&self, groups: usize) -> usize {
        groups * self.features + self.reduced
    }
}

/// States of up to so many f32 numbers lie in the memory of a block or workgroup, on every device; only larger ones need
/// a workspace. (Of the 16 KiB that WebGPU promises a workgroup, sums over 128 invocations take half.)
const LOCAL_STATE: usize = 2_000;
