//! Masked structural pruning: models whose blocks read and write subsets of the features, without paying for
//! the gathers.
//!
//! DISP-LLM (arXiv 2410.11988) gives each layer five index sets: what attention reads (S1) and writes (S2), what
//! the MLP reads (S3), its neurons (S4) and what it writes (S5). DEAN (arXiv 2410.16672) zeroes the weights that
//! two tasks share.
//!
//! An [`IndexSet`] is checked once, where it is made; operations take its tensors.

pub mod compact_mask;
pub mod index_set;
pub(crate) mod selection;
#[cfg(feature = "cuda")]
pub(crate) mod selection_parameters;

pub use compact_mask::{CompactMask, CompactMaskArgs};
pub use index_set::IndexSet;
