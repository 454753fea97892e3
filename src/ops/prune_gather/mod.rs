//! Masked structural pruning: models whose blocks read and write subsets of the features, without paying for
//! the gathers.
//!
//! DISP-LLM (arXiv 2410.11988) gives each layer five index sets: what attention reads (S1) and writes (S2), what
//! the MLP reads (S3), its neurons (S4) and what it writes (S5). DEAN (arXiv 2410.16672) zeroes the weights that
//! two tasks share.
//!
//! | operation | equation |
//! |---|---|
//! | [`GatherNorm`] | `n[:, indices]`, `n = x` or `rms_norm(x)`: what a block reads |
//! | [`ScatterAdd`] | `residual`, with `y` added to its columns `indices`: what a block writes |
//! | [`ScatterNormGather`] | both, from one block to the next, in one launch |
//! | [`CompactWeight`] | `weight[rows][:, columns]`, padded with zeros |
//!
//! An [`IndexSet`] is checked once, where it is made; operations take its tensors.

pub mod compact_weight;
mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda_parameters;
pub mod gather_norm;
mod gather_plain;
pub mod index_set;
pub mod layer_index_sets;
mod norm;
pub mod scatter_add;
pub mod scatter_norm_gather;

pub use compact_weight::{CompactWeight, CompactWeightArgs};
pub use gather_norm::{GatherNorm, GatherNormArgs};
pub use index_set::IndexSet;
pub use layer_index_sets::{LayerIndexSets, ModelIndexSets};
pub use scatter_add::{ScatterAdd, ScatterAddArgs};
pub use scatter_norm_gather::{ScatterNormGather, ScatterNormGatherArgs};

/// The features that the mean square of a norm is over, where only some features are selected.
///
/// With `d` features, of which `k` are selected:
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NormScope {
    /// The mean over all `d`, then select: the released code of DISP-LLM, and what pruned checkpoints expect.
    #[default]
    Full,
    /// The mean over the `k` selected ones: the figure in DISP-LLM's paper.
    Selected,
    /// The sum over the `k` selected ones, divided by `d`: SliceGPT (arXiv 2401.15024).
    SelectedSumOverD,
}

impl NormScope {
    pub(crate) const CHOICES: [(&'static str, NormScope); 3] = [
        ("full", NormScope::Full),
        ("selected", NormScope::Selected),
        ("selected_sum_over_d", NormScope::SelectedSumOverD),
    ];
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl NormScope {
    /// Its number in `kernels/prune_gather/norm_scope.wgsl` and `norm_scope.cuh`.
    pub(crate) fn code(self) -> u32 {
        match self {
            NormScope::Full => 0,
            NormScope::Selected => 1,
            NormScope::SelectedSumOverD => 2,
        }
    }
}
