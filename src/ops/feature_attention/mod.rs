//! Feature attention for text matching: which features of a text matter, not which tokens.
//!
//! FA and SFA ("Modeling Selective Feature Attention for Lightweight Text Matching", Zang and Liu, IJCAI 2024,
//! arXiv 2404.16776) weigh the embedding features of a text by the text itself; nothing here is softmax attention
//! between tokens. SFA stands on a bidirectional GRU, which is an operation of its own.
//!
//! | operation | equation |
//! |---|---|
//! | [`BiGru`] | a bidirectional GRU with PyTorch's gates, over texts of different lengths |
//!
//! # Padding
//!
//! Texts of a batch have `lengths`; without them all are as long as the tensor. What lies behind a text's end is never
//! looked at and comes out as 0: a padded batch gives, bit for bit, what its rows give alone, and more padding changes
//! nothing. Reverse directions start at a text's last token. A text of length 0 gives zeros.

pub mod bigru;
pub(crate) mod gru;
pub(crate) mod lengths;

pub use bigru::{BiGru, BiGruArgs};
