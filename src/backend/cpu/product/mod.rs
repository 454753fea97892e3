//! Matrix products with weights in the layout of `nn.Linear`, used as they lie.

pub(crate) mod activations;
mod bands;
mod matrix;
mod panel;
pub(crate) mod stream;
pub(crate) mod stream_panels;
mod stream_tiles;
mod tile_product;
pub(crate) mod tiles;

pub(crate) use matrix::Matrix;
pub(crate) use tile_product::{AHEAD_STEPS, TILE_BYTES, TILE_ROWS, TileProduct};
