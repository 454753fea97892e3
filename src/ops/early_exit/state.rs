//! Where a state's numbers lie.

use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;

/// Columns of `state_values`, in f32; the best logits follow.
pub(crate) mod value {
    /// The largest logit, `m1`; `-inf` if there is none, NaN if the row has no token.
    pub const MAX: usize = 0;
    /// The second largest, `m2`; equal to the largest if that occurs twice.
    pub const SECOND: usize = 1;
    /// `s = sum exp(x - m1)`.
    pub const SUM: usize = 2;
    /// `t = sum (x - m1) exp(x - m1)`.
    pub const WEIGHTED: usize = 3;
    /// The logit of the row's gather token; `-inf` if the tile does not have it.
    pub const GATHERED: usize = 4;
    /// The largest `logit * inv_temperature + noise`.
    pub const SCORE: usize = 5;
    /// How many there are.
    pub const COUNT: usize = 6;
}

/// Columns of `state_tokens`, ids; those of the best logits follow.
pub(crate) mod token {
    /// The lowest id with the largest logit.
    pub const MAX: usize = 0;
    /// The lowest id with the largest score.
    pub const SAMPLED: usize = 1;
    /// How many there are.
    pub const COUNT: usize = 2;
}

/// Shapes of `state_values` and `state_tokens`.
pub(crate) fn shapes(tiles: usize, rows: usize, top_k: usize) -> [[usize; 3]; 2] {
    [[tiles, rows, value::COUNT + top_k], [tiles, rows, token::COUNT + top_k]]
}

/// Layouts of `state_values` and `state_tokens` without gaps.
pub(crate) fn layouts(tiles: usize, rows: usize, top_k: usize) -> Result<[Layout; 2], Error> {
    let [values, tokens] = shapes(tiles, rows, top_k);
    Ok([Layout::contiguous(DType::F32, &values)?, Layout::contiguous(DType::I32, &tokens)?])
}

pub(crate) const VALUES: &str = "[tiles, M, 6 + top_k]";
pub(crate) const TOKENS: &str = "[tiles, M, 2 + top_k]";
