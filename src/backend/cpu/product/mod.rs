//! Matrix products with weights in the layout of `nn.Linear`, used as they lie.

mod matrix;
pub(crate) mod stream;
pub(crate) mod tiles;

pub(crate) use matrix::Matrix;
