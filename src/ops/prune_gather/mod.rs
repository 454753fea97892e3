//! Masked structural pruning: models whose blocks read and write subsets of the features, without paying for
//! the gathers.
//!
//! DISP-LLM (arXiv 2410.11988) gives each layer five index sets: what attention reads (S1) and writes (S2), what
//! the MLP reads (S3), its neurons (S4) and what it writes (S5). DEAN (arXiv 2410.16672) zeroes the weights that
//! two tasks share.
//!
//! An [`IndexSet`] is checked once, where it is made; operations take its tensors.

pub mod index_set;
pub mod layer_index_sets;

pub use index_set::IndexSet;
pub use layer_index_sets::{LayerIndexSets, ModelIndexSets};
