//! Early exit and self-speculation: the head of a language model without logits in memory, and what decides on the
//! tokens.
//!
//! LayerSkip (arXiv 2404.16710) drafts tokens with a model's first layers and its only head, and verifies them with the
//! remaining layers. The head is most of what a draft costs; here it is one pass over its weight that leaves a few
//! numbers a row.
//!
//! | operation | equation |
//! |---|---|
//! | [`ExitHead`] | token, margin, log-sum-exp, entropy, best tokens and a sampled token of `n W^T + b` |
//! | [`ExitHeadStates`] | the same of a part of the vocabulary, as mergeable states |
//! | [`MergeExitStates`] | [`ExitHead`]'s results from the states of every part |
//! | [`VerifyGreedy`] | the prefix of each draft that equals the target, and the target's next token |
//! | [`VerifyTree`] | the path of each tree of drafts that the target takes, and the target's next token |
//! | [`VerifySampled`] | drafts accepted as if the target had sampled them, and one token more |
//! | [`ExitGate`] | which sequences go on to the deeper layers, and an order with these first |
//! | [`CompactRows`] | the rows of those sequences, one behind the other |
//! | [`ScatterRows`] | rows back to where they belong, in place |
//! | [`CommitCache`] | lengths, accepted rows and freed pages of a cache after a verification |
//!
//! [`SelfSpeculation`] drives drafting, verification and commitment for a batch, given an engine's layers.
//!
//! # States
//!
//! The vocabulary is cut into tiles of [`VOCABULARY_TILE`] ids, counted from id 0, whatever the number of rows, the
//! device or the sharding. Of each tile and row a state is kept, and states are merged in the order of the tiles. Results
//! therefore neither depend on the batch nor on how a vocabulary was spread over devices.
//!
//! # Rows without a token
//!
//! A row that was not selected (`rows[m]` is -1 or out of range), a row with a logit that is NaN or `+inf`, and a row all
//! of whose logits are `-inf`, has the token -1 in every output of tokens: never an id that somebody might take for a
//! result. Its statistics are NaN in the first two cases; in the third its logits are `-inf` and its entropy NaN.

#[cfg(feature = "wgpu")]
pub(crate) mod binding;
pub mod commit_cache;
pub mod compact_rows;
mod config;
#[cfg(feature = "cuda")]
pub(crate) mod cuda_parameters;
pub mod exit_gate;
pub mod exit_head;
#[cfg(feature = "cuda")]
pub(crate) mod gate_parameters;
pub mod merge_exit_states;
mod moved_rows;
mod philox;
pub mod scatter_rows;
pub mod self_speculation;
pub(crate) mod state;
mod verification;
pub mod verify_greedy;
pub mod verify_sampled;
pub mod verify_tree;

pub use commit_cache::{CommitCache, CommitCacheArgs, CommitStatus};
pub use compact_rows::{CompactRows, CompactRowsArgs};
pub use exit_gate::{ExitGate, ExitGateArgs, ExitThresholds, Require};
pub use exit_head::{ExitHead, ExitHeadArgs, ExitHeadStates, ExitHeadStatesArgs};
pub use merge_exit_states::{MergeExitStates, MergeExitStatesArgs};
pub use scatter_rows::{ScatterRows, ScatterRowsArgs};
pub use self_speculation::{
    DualLengthCache, ExitRing, LayerRow, Layers, SelfSpeculation, SequenceProgress,
    SpeculationSettings, SpeculationStatistics,
};
pub use verification::Finish;
pub use verify_greedy::{VerifyGreedy, VerifyGreedyArgs};
pub use verify_sampled::{
    FilterOrder, SampledMode, SampledValues, VerifySampled, VerifySampledArgs,
};
pub use verify_tree::{VerifyTree, VerifyTreeArgs};

/// Ids of the vocabulary that one state summarises.
pub const VOCABULARY_TILE: usize = 128;

/// The longest list of best tokens.
pub const MAX_TOP_K: usize = 64;
