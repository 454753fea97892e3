//! Fused SiLU MLPs: the feed-forward block of Llama, Qwen, Mistral and their kin.
//!
//! `silu(x) = x / (1 + exp(-x))`. With `n = x` or `n = rms_norm(x)`:
//!
//! | operation | equation | source |
//! |---|---|---|
//! | [`SiluMul`] | `silu(gate) * up`, elementwise | Shazeer 2020, eq. 6, between the projections |
//! | [`GatedMlp`] | `residual + (silu(n Wg^T + bg) * (n Wu^T + bu)) Wd^T + bd` | Shazeer 2020, eq. 6 (SwiGLU) |
//! | [`SiluMlp`] | `residual + silu(n W1^T + b1) W2^T + b2` | Elfwing et al. 2017 |
//!
//! Weights keep the layout of PyTorch's `nn.Linear`, `[out_features, in_features]`, so that a checkpoint
//! is used as it lies; each is a view with its own row stride, so that `gate_weight` and `up_weight` may be
//! two tensors or the halves of one stacked `[2F, H]` tensor.

#[cfg(feature = "cuda")]
pub(crate) mod cuda_parameters;
pub mod gated_mlp;
pub mod mlp;
#[allow(clippy::module_inception, reason = "the operation gave the family its name")]
pub mod silu_mlp;
pub mod silu_mul;

pub use gated_mlp::{GatedMlp, GatedMlpArgs};
pub use mlp::Mlp;
pub use silu_mlp::{SiluMlp, SiluMlpArgs};
pub use silu_mul::{SiluMul, SiluMulArgs};

use crate::dtype::DType;

/// Where intermediate results are rounded to the activation type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Projections stay in f32 until `h` is rounded, once.
    #[default]
    KeepF32,
    /// Projections, the SiLU and the product are each rounded, as frameworks without fusion do.
    RoundGateUp,
}

impl Rounding {
    pub(crate) const CHOICES: [(&'static str, Rounding); 2] =
        [("keep_f32", Rounding::KeepF32), ("round_gate_up", Rounding::RoundGateUp)];
}

/// Pairs of activation and weight type that the MLPs take. Accumulation is always in f32.
pub const MLP_DTYPES: [(DType, DType); 5] = [
    (DType::F32, DType::F32),
    (DType::F16, DType::F16),
    (DType::BF16, DType::BF16),
    (DType::F32, DType::F16),
    (DType::F32, DType::BF16),
];
