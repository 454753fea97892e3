//! The operations, one folder a family.
//!
//! Each operation has a descriptor (what to compute), an argument struct (on which tensors), a scalar
//! reference and one implementation per backend, all in its own folder.

pub mod early_exit;
pub mod feature_attention;
pub mod prune_gather;
pub mod silu_mlp;
pub(crate) mod traffic;
