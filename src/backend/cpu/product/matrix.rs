//! A weight matrix in its own type.

use std::ops::Range;

use crate::backend::cpu::packed_weight::{PANEL_ROWS, group};
use crate::dtype::Element;
use crate::layout::HasLayout;
use crate::tensor::TensorRef;

/// Rows of weights, one for each output feature.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    stride: usize,
    is_packed: bool,
}

impl<'a, T: Element> Matrix<'a, T> {
    /// `tensor` is a matrix of `T`, its inner stride 1.
    pub fn new(tensor: TensorRef<'a>) -> Matrix<'a, T> {
        let layout = tensor.layout();
        let data = tensor.as_slice().unwrap_or_else(|| unreachable!("chosen by the tensor's type"));
        let (rows, columns) = (layout.shape()[0], layout.columns());
        Matrix { data, rows, columns, stride: layout.row_stride(), is_packed: false }
    }

    /// `tensor` is of `T`, of so many output and input features, packed or not.
    pub fn packable(tensor: TensorRef<'a>, [rows, columns]: [usize; 2]) -> Matrix<'a, T> {
        match *tensor.layout().shape() {
            [_, _, PANEL_ROWS] | [_, _, PANEL_ROWS, _] => {
                let data = tensor.as_slice();
                let data = data.unwrap_or_else(|| unreachable!("chosen by the tensor's type"));
                Matrix { data, rows, columns, stride: 0, is_packed: true }
            }
            _ => Matrix::new(tensor),
        }
    }

    /// The same rows without their columns: products with it are 0, and nothing is read for them.
    pub fn without_columns(self) -> Matrix<'a, T> {
        Matrix { columns: 0, ..self }
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements between rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes between rows.
    pub fn stride_bytes(&self) -> usize {
        self.stride * size_of::<T>()
    }

    /// The weights of one output feature.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [T] {
        debug_assert!(!self.is_packed, "rows of a packed matrix do not lie in one piece");
        if self.columns == 0 {
            return &[];
        }
        &self.data[row * self.stride..][..self.columns]
    }

    /// The weights of some input features, whole groups of them up to the last, for [`PANEL_ROWS`] output features from `row`, a multiple of them, on, if the matrix
    /// is packed.
    #[inline(always)]
    pub fn panel(&self, row: usize, columns: Range<usize>) -> &'a [T] {
        assert!(self.is_packed && row.is_multiple_of(PANEL_ROWS) && columns.end <= self.columns);
        let group = group(T::DTYPE);
        let start = row * self.columns.next_multiple_of(group);
        let end = columns.end.next_multiple_of(group);
        &self.data[start + columns.start * PANEL_ROWS..start + end * PANEL_ROWS]
    }
}
