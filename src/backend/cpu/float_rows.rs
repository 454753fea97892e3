//! Rows of a floating-point tensor whose type is known at run time only: biases, residuals, outputs.
#![allow(unsafe_code, reason = "vectors are loaded and stored through pointers")]

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::Pod;

use super::instructions::{MAX_LANES, Vectors};
use crate::dtype::DType;
use crate::layout::HasLayout;
use crate::tensor::{TensorMut, TensorRef, with_float};

/// A matrix to read; a vector is one row.
#[derive(Clone, Copy)]
pub(crate) struct FloatRows<'a> {
    bytes: &'a [u8],
    dtype: DType,
    stride: usize,
    columns: usize,
}

impl<'a> FloatRows<'a> {
    /// `tensor` is floating-point, its inner stride 1.
    pub fn new(tensor: TensorRef<'a>) -> FloatRows<'a> {
        let layout = tensor.layout();
        FloatRows {
            bytes: tensor.span_bytes(),
            dtype: layout.dtype(),
            stride: layout.row_stride(),
            columns: layout.columns(),
        }
    }

    /// The elements from `column` on, at most a vector; zeros behind the last column.
    #[inline(always)]
    pub fn load<V: Vectors>(&self, v: V, row: usize, column: usize) -> V::Vector {
        let count = V::LANES.min(self.columns - column);
        let start = (row * self.stride + column) * self.dtype.size();
        let elements = &self.bytes[start..start + count * self.dtype.size()];
        // SAFETY: the slice holds `count` elements.
        unsafe { v.load_part(self.dtype, elements.as_ptr(), count) }
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// A row as the unsigned integers of its elements' size, which `E` must be.
    #[inline(always)]
    pub fn bits<E: Pod>(&self, row: usize) -> &'a [E] {
        let size = self.dtype.size();
        bytemuck::cast_slice(&self.bytes[row * self.stride * size..][..self.columns * size])
    }

    /// The elements at the first of these columns, at most a vector; zeros behind the last.
    #[inline(always)]
    pub fn gather<V: Vectors>(&self, v: V, row: usize, columns: &[u32]) -> V::Vector {
        let start = row * self.stride * self.dtype.size();
        let elements = &self.bytes[start..start + self.columns * self.dtype.size()];
        let mut lanes = [0f32; MAX_LANES];
        with_float!(self.dtype, T => {
            for (lane, &column) in lanes[..V::LANES].iter_mut().zip(columns) {
                let at = column as usize * size_of::<T>();
                let element: T = bytemuck::pod_read_unaligned(&elements[at..at + size_of::<T>()]);
                *lane = crate::dtype::Float::to_f32(element);
            }
        });
        v.load_slice(&lanes[..V::LANES])
    }

    /// One element.
    #[inline(always)]
    pub fn get(&self, row: usize, column: usize) -> f32 {
        let index = row * self.stride + column;
        with_float!(self.dtype, T => {
            let size = size_of::<T>();
            let element: T = bytemuck::pod_read_unaligned(&self.bytes[index * size..][..size]);
            crate::dtype::Float::to_f32(element)
        })
    }
}

/// Matrices of a `[B, L, D]` tensor to read.
#[derive(Clone, Copy)]
pub(crate) struct FloatMatrices<'a> {
    bytes: &'a [u8],
    first: FloatRows<'a>,
    stride: usize,
}

impl<'a> FloatMatrices<'a> {
    /// `tensor` is floating-point and of rank 3, its inner stride 1.
    pub fn new(tensor: TensorRef<'a>) -> FloatMatrices<'a> {
        let stride = tensor.layout().strides()[0];
        FloatMatrices { bytes: tensor.span_bytes(), first: FloatRows::new(tensor), stride }
    }

    /// One of the matrices.
    pub fn matrix(&self, index: usize) -> FloatRows<'a> {
        // Empty tensors have strides that lead nowhere.
        let start = (index * self.stride * self.first.dtype.size()).min(self.bytes.len());
        FloatRows { bytes: &self.bytes[start..], ..self.first }
    }
}

/// A matrix that several threads write, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct FloatRowsMut<'a> {
    start: *mut u8,
    rows: usize,
    dtype: DType,
    stride: usize,
    columns: usize,
    tensor: PhantomData<&'a mut [u8]>,
}

// SAFETY: access goes through `store`, whose callers promise not to overlap.
unsafe impl Send for FloatRowsMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for FloatRowsMut<'_> {}

impl<'a> FloatRowsMut<'a> {
    /// `tensor` is a floating-point matrix, its inner stride 1.
    pub fn new(tensor: &'a mut TensorMut<'_>) -> FloatRowsMut<'a> {
        let layout = tensor.layout();
        FloatRowsMut {
            start: tensor.span_bytes_mut().as_mut_ptr(),
            rows: layout.shape()[0],
            dtype: layout.dtype(),
            stride: layout.row_stride(),
            columns: layout.columns(),
            tensor: PhantomData,
        }
    }

    /// Rounds to the tensor's type and stores the first `count` lanes, at most a vector.
    ///
    /// # Safety
    /// Nobody else uses these elements at the same time.
    #[inline(always)]
    pub unsafe fn store<V: Vectors>(
        &self,
        v: V,
        vector: V::Vector,
        row: usize,
        column: usize,
        count: usize,
    ) {
        let count = V::LANES.min(count);
        assert!(row < self.rows && column + count <= self.columns, "outside the tensor");
        // SAFETY: `count` elements of the row by the assertion; exclusive by the caller's promise.
        unsafe {
            let to = self.start.add((row * self.stride + column) * self.dtype.size());
            v.store_part(self.dtype, vector, to, count);
        }
    }

    /// A row as unsigned integers of its elements' size, which `E` must be.
    ///
    /// # Safety
    /// While the slice lives, nobody else uses these columns of the row.
    #[allow(clippy::mut_from_ref, reason = "exclusive by the caller's promise")]
    #[inline(always)]
    pub unsafe fn bits<E: Pod>(&self, row: usize, columns: Range<usize>) -> &'a mut [E] {
        assert!(row < self.rows && columns.end <= self.columns, "outside the tensor");
        assert!(columns.start <= columns.end && size_of::<E>() == self.dtype.size(), "as promised");
        // SAFETY: inside the row by the assertions, aligned as the tensor's elements are; exclusive by the
        // caller's promise.
        unsafe {
            let start = self.start.cast::<E>().add(row * self.stride + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        }
    }

    /// One row, to be read again.
    ///
    /// # Safety
    /// While the view lives, nobody writes the row.
    #[inline(always)]
    pub unsafe fn row(&self, row: usize) -> FloatRows<'a> {
        assert!(row < self.rows, "outside the tensor");
        let size = self.dtype.size();
        // SAFETY: inside the tensor by the assertion; not written by the caller's promise.
        let bytes = unsafe {
            let start = self.start.add(row * self.stride * size);
            std::slice::from_raw_parts(start, self.columns * size)
        };
        FloatRows { bytes, dtype: self.dtype, stride: self.columns, columns: self.columns }
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rounds to the tensor's type and stores as many lanes as there are columns, each to its own; at most a
    /// vector.
    ///
    /// # Safety
    /// Nobody else uses these elements at the same time.
    #[inline(always)]
    pub unsafe fn scatter<V: Vectors>(&self, v: V, vector: V::Vector, row: usize, columns: &[u32]) {
        assert!(row < self.rows, "outside the tensor");
        let size = self.dtype.size();
        let mut lanes = [0u8; MAX_LANES * size_of::<f32>()];
        // SAFETY: the buffer holds `MAX_LANES` elements of any floating-point type.
        unsafe { v.store_any(self.dtype, vector, lanes.as_mut_ptr()) };
        for (lane, &column) in lanes[..V::LANES * size].chunks_exact(size).zip(columns) {
            assert!((column as usize) < self.columns, "outside the tensor");
            // SAFETY: an element of the row by the assertions; exclusive by the caller's promise.
            unsafe {
                let to = self.start.add((row * self.stride + column as usize) * size);
                std::ptr::copy_nonoverlapping(lane.as_ptr(), to, size);
            }
        }
    }
}

/// Matrices of a `[B, L, D]` tensor that several threads write, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct FloatMatricesMut<'a> {
    first: FloatRowsMut<'a>,
    matrices: usize,
    stride: usize,
}

impl<'a> FloatMatricesMut<'a> {
    /// `tensor` is floating-point and of rank 3, its inner stride 1.
    pub fn new(tensor: &'a mut TensorMut<'_>) -> FloatMatricesMut<'a> {
        let layout = tensor.layout();
        let first = FloatRowsMut { rows: layout.shape()[1], ..FloatRowsMut::new(tensor) };
        FloatMatricesMut { first, matrices: layout.shape()[0], stride: layout.strides()[0] }
    }

    /// One of the matrices.
    pub fn matrix(&self, index: usize) -> FloatRowsMut<'a> {
        assert!(index < self.matrices, "outside the tensor");
        // Inside the tensor, unless there is no row to look at.
        let start = self.first.start.wrapping_add(index * self.stride * self.first.dtype.size());
        FloatRowsMut { start, ..self.first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::instructions::{InstructionSet, Supported, VectorJob};
    use crate::dtype::{Float, bf16, f16};

    /// Copies a strided matrix vector by vector.
    struct Copy<'a>(FloatRows<'a>, FloatRowsMut<'a>);

    impl VectorJob for Copy<'_> {
        type Output = ();

        fn run<V: Vectors>(self, v: V) {
            for row in 0..2 {
                for column in (0..self.0.columns).step_by(V::LANES) {
                    let vector = self.0.load(v, row, column);
                    // SAFETY: nobody else uses the output.
                    unsafe { self.1.store(v, vector, row, column, self.0.columns - column) };
                }
            }
        }
    }

    fn copies<T: Float + PartialEq>(set: InstructionSet, value: impl Fn(usize) -> f32) {
        for columns in [1, 3, 16, 33] {
            let stride = columns + 1;
            let data: Vec<T> = (0..2 * stride).map(|index| T::from_f32(value(index))).collect();
            let mut copy = vec![T::from_f32(-1.0); 2 * stride];
            let input = TensorRef::strided(&data, &[2, columns], &[stride, 1]).unwrap();
            let mut output = TensorMut::strided(&mut copy, &[2, columns], &[stride, 1]).unwrap();
            let (input, output) = (FloatRows::new(input), FloatRowsMut::new(&mut output));
            assert_eq!(input.get(1, columns - 1), data[stride + columns - 1].to_f32());
            Supported::new(set).unwrap().dispatch(Copy(input, output));
            for index in 0..2 * stride {
                let gap = index % stride == columns;
                let want = if gap { T::from_f32(-1.0) } else { data[index] };
                assert_eq!(copy[index], want, "{set}: element {index} of rows of {columns}");
            }
        }
    }

    #[test]
    fn vectors_keep_values_of_every_type_and_leave_gaps_alone() {
        for set in InstructionSet::available() {
            copies::<f32>(set, |index| index as f32 * 1.1 - 20.0);
            copies::<bf16>(set, |index| index as f32 * 1.1 - 20.0);
            copies::<f16>(set, |index| index as f32 * 1e-7);
        }
    }
}
