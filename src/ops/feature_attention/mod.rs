//! Feature attention for text matching: which features of a text matter, not which tokens.
//!
//! FA and SFA ("Modeling Selective Feature Attention for Lightweight Text Matching", Zang and Liu, IJCAI 2024,
//! arXiv 2404.16776) weigh the embedding features of a text by the text itself; nothing here is softmax attention
//! between tokens. SFA stands on a bidirectional GRU, which is an operation of its own.
//!
//! | operation | equation |
//! |---|---|
//! | [`FeatureAttention`] | `x * sigmoid(W2 tanh(W1 mean(x) + b1) + b2)`: a weight for each feature of a text |
//! | [`BiGru`] | a bidirectional GRU with PyTorch's gates, over texts of different lengths |
//! | [`SelectiveFeatureAttention`] | several GRUs in a row, weighed for each feature of a text by the text |
//!
//! # Padding
//!
//! Texts of a batch have `lengths`; without them all are as long as the tensor. What lies behind a text's end is never
//! looked at and comes out as 0: a padded batch gives, bit for bit, what its rows give alone, and more padding changes
//! nothing. Reverse directions start at a text's last token. A text of length 0 gives zeros.

pub mod batch_norm;
pub mod bigru;
#[cfg(feature = "cuda")]
pub(crate) mod cuda_parameters;
#[allow(clippy::module_inception, reason = "the family's first operation has its name")]
pub mod feature_attention;
pub(crate) mod gru;
pub(crate) mod lengths;
pub(crate) mod products;
pub mod selective_feature_attention;

pub use batch_norm::BatchNorm;
pub use bigru::{BiGru, BiGruArgs};
#[cfg(feature = "safetensors")]
pub use feature_attention::FeatureAttentionWeights;
pub use feature_attention::{FeatureAttention, FeatureAttentionArgs};
pub use selective_feature_attention::{
    Select, SelectiveFeatureAttention, SelectiveFeatureAttentionArgs, StackMode,
};
