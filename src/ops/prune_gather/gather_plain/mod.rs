//! Copies of selected rows and columns, bit for bit: what `compact_weight` and a `gather_norm` without a norm
//! have in common.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "wgpu")]
mod wgpu;

pub(super) use cpu::gather_plain;
#[cfg(feature = "cuda")]
pub(super) use cuda::{enqueue, plan};
#[cfg(feature = "wgpu")]
pub(super) use wgpu::{Names, plan as plan_wgpu};

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use crate::dtype::DType;

/// `out[r, c] = x[rows[r], columns[c]]`; zeros from the end of `columns` on.
pub(super) struct GatherPlainTensors<In, Out> {
    /// `[R, C]`.
    pub x: In,
    /// `[r]`; absent: all rows.
    pub rows: Option<In>,
    /// `[c]`; absent: all columns.
    pub columns: Option<In>,
    /// `[r, c or more]`.
    pub out: Out,
}

/// Sizes that the tensors alone do not tell.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[derive(Clone, Copy, Debug)]
pub(super) struct GatherPlain {
    /// The operation, for messages.
    pub op: &'static str,
    /// Of `x`.
    pub dtype: DType,
    /// Columns of `out` that come from `x`.
    pub selected: usize,
}
