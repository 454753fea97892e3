//! Masked structural pruning: models whose blocks read and write subsets of the features, without paying for
//! the gathers.
//!
//! DISP-LLM (arXiv 2410.11988) gives each layer five index sets: what attention reads (S1) and writes (S2), what
//! the MLP reads (S3), its neurons (S4) and what it writes (S5). DEAN (arXiv 2410.16672) zeroes the weights that
//! two tasks share.
//!
//! An [`IndexSet`] is checked once, where it is made; operations take its tensors.

pub mod compact_mask;
pub mod coupled_neurons;
pub mod index_set;
pub mod select_top;
pub(crate) mod selection;
#[cfg(feature = "cuda")]
pub(crate) mod selection_parameters;
pub mod zero_entries;

pub use compact_mask::{CompactMask, CompactMaskArgs};
pub use coupled_neurons::{CoupledNeurons, CoupledNeuronsArgs, DeanMode};
pub use index_set::IndexSet;
pub use select_top::{SelectTop, SelectTopArgs};
pub use zero_entries::{ZeroEntries, ZeroEntriesArgs};
