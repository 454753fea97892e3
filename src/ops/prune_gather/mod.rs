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
//! | [`SparseGatedMlp`] | the dense block on the neurons that each token selects, by threshold or by list |
//! | [`GatherNorm`] | `n[:, indices]`, `n = x` or `rms_norm(x)`: what a block reads |
//! | [`ScatterAdd`] | `residual`, with `y` added to its columns `indices`: what a block writes |
//! | [`ScatterNormGather`] | both, from one block to the next, in one launch |
//! | [`CompactWeight`] | `weight[rows][:, columns]`, padded with zeros |
//! | [`CompactMask`] | a mask's index set, or those of all layers |
//! | [`InvertIndices`] | the place of every feature in an index set, and whether it is one |
//! | [`SelectTop`] | the positions of the `k` largest scores |
//! | [`CoupledNeurons`] | the weights that matter to two tasks, and not in general |
//! | [`ZeroEntries`] | a weight with some entries zeroed |
//!
//! An [`IndexSet`] is checked once, where it is made; operations take its tensors.

pub mod compact_mask;
pub mod compact_weight;
pub mod coupled_neurons;
mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda_parameters;
pub mod gather_norm;
mod gather_plain;
pub mod index_set;
pub mod invert_indices;
pub mod layer_index_sets;
pub mod masked_gated_mlp;
mod norm;
mod norm_scope;
pub mod pruned_gated_mlp;
pub mod pruned_linear;
pub mod scatter_add;
pub mod scatter_norm_gather;
pub mod select_top;
pub(crate) mod selection;
#[cfg(feature = "cuda")]
pub(crate) mod selection_parameters;
pub mod sparse_gated_mlp;
pub mod zero_entries;

pub use compact_mask::{CompactMask, CompactMaskArgs};
pub use compact_weight::{CompactWeight, CompactWeightArgs};
pub use coupled_neurons::{CoupledNeurons, CoupledNeuronsArgs, DeanMode};
pub use gather_norm::{GatherNorm, GatherNormArgs};
#[cfg(feature = "cuda")]
pub use index_set::CudaIndexSet;
pub use index_set::IndexSet;
#[cfg(feature = "wgpu")]
pub use index_set::WgpuIndexSet;
pub use invert_indices::{InvertIndices, InvertIndicesArgs};
pub use layer_index_sets::{LayerIndexSets, ModelIndexSets};
pub use masked_gated_mlp::{MaskedGatedMlp, MaskedGatedMlpArgs};
pub use norm_scope::NormScope;
pub use pruned_gated_mlp::{PrunedGatedMlp, PrunedGatedMlpArgs};
pub use pruned_linear::{PrunedLinear, PrunedLinearArgs};
pub use scatter_add::{ScatterAdd, ScatterAddArgs};
pub use scatter_norm_gather::{ScatterNormGather, ScatterNormGatherArgs};
pub use select_top::{SelectTop, SelectTopArgs};
pub use sparse_gated_mlp::{SparseGatedMlp, SparseGatedMlpArgs};
pub use zero_entries::{ZeroEntries, ZeroEntriesArgs};
