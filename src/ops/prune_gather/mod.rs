//! Masked structural pruning: models whose blocks read and write subsets of the features, without paying for
//! the gathers.
//!
//! DISP-LLM (arXiv 2410.11988) gives each layer five index sets: what attention reads (S1) and writes (S2), what
//! the MLP reads (S3), its neurons (S4) and what it writes (S5). DEAN (arXiv 2410.16672) zeroes the weights that
//! two tasks share.
//!
//! | operation | equation |
//! |---|---|
//! | [`PrunedGatedMlp`] | `out = residual; out[S5] += (silu(n[S3] Wg^T) * (n[S3] Wu^T)) Wd^T` |
//! | [`PrunedLinear`] | `residual + n[in] W^T + b`, or that added to `residual[out]` |
//! | [`MaskedGatedMlp`] | `residual + out_mask * ((mid_mask^2 * silu(n Wg^T) * (n Wu^T)) Wd^T)` |
//!
//! An [`IndexSet`] is checked once, where it is made; operations take its tensors.

pub mod index_set;
pub mod masked_gated_mlp;
mod norm_scope;
pub mod pruned_gated_mlp;
pub mod pruned_linear;

pub use index_set::IndexSet;
pub use masked_gated_mlp::{MaskedGatedMlp, MaskedGatedMlpArgs};
pub use norm_scope::NormScope;
pub use pruned_gated_mlp::{PrunedGatedMlp, PrunedGatedMlpArgs};
pub use pruned_linear::{PrunedLinear, PrunedLinearArgs};
