//! A weight matrix in its own type.

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
}

impl<'a, T: Element> Matrix<'a, T> {
    /// `tensor` is a matrix of `T`, its inner stride 1.
    pub fn new(tensor: TensorRef<'a>) -> Matrix<'a, T> {
        let layout = tensor.layout();
        let data = tensor.as_slice().unwrap_or_else(|| unreachable!("chosen by the tensor's type"));
        let (rows, columns) = (layout.shape()[0], layout.columns());
        Matrix { data, rows, columns, stride: layout.row_stride() }
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
        if self.columns == 0 {
            return &[];
        }
        &self.data[row * self.stride..][..self.columns]
    }
}
