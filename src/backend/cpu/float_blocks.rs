//! Floating-point tensors of three dimensions, row by row, whose type is known at run time only.
#![allow(unsafe_code, reason = "vectors are loaded and stored through pointers")]

use std::marker::PhantomData;

use super::instructions::Vectors;
use crate::dtype::DType;
use crate::layout::{HasLayout as _, Layout};
use crate::tensor::{TensorMut, TensorRef};

/// Where the rows of a tensor `[blocks, rows, columns]` lie.
#[derive(Clone, Copy)]
struct Places {
    dtype: DType,
    shape: [usize; 3],
    /// Elements between blocks, and between rows.
    strides: [usize; 2],
}

impl Places {
    /// `layout` has three dimensions and a unit inner stride.
    fn new(layout: &Layout) -> Places {
        let (shape, strides) = (layout.shape(), layout.strides());
        Places {
            dtype: layout.dtype(),
            shape: [shape[0], shape[1], shape[2]],
            strides: [strides[0], strides[1]],
        }
    }

    /// The byte at which an element starts, `count` of which are inside the tensor.
    #[inline(always)]
    fn byte(&self, [block, row, column]: [usize; 3], count: usize) -> usize {
        let [blocks, rows, columns] = self.shape;
        assert!(block < blocks && row < rows && column + count <= columns, "outside the tensor");
        (block * self.strides[0] + row * self.strides[1] + column) * self.dtype.size()
    }
}

/// A tensor to read.
#[derive(Clone, Copy)]
pub(crate) struct FloatBlocks<'a> {
    bytes: &'a [u8],
    places: Places,
}

impl<'a> FloatBlocks<'a> {
    /// `tensor` is floating-point, has three dimensions and a unit inner stride.
    pub fn new(tensor: TensorRef<'a>) -> FloatBlocks<'a> {
        FloatBlocks { bytes: tensor.span_bytes(), places: Places::new(&tensor.layout()) }
    }

    /// The first `count` elements from `at` on, at most a vector; zeros behind them.
    #[inline(always)]
    pub fn load<V: Vectors>(&self, v: V, at: [usize; 3], count: usize) -> V::Vector {
        let (dtype, count) = (self.places.dtype, V::LANES.min(count));
        let elements = &self.bytes[self.places.byte(at, count)..][..count * dtype.size()];
        // SAFETY: the slice holds `count` elements.
        unsafe { v.load_part(dtype, elements.as_ptr(), count) }
    }

    /// A row as f32 numbers.
    #[inline(always)]
    pub fn widen_row<V: Vectors>(&self, v: V, block: usize, row: usize, to: &mut [f32]) {
        for (index, part) in to.chunks_mut(V::LANES).enumerate() {
            let at = [block, row, index * V::LANES];
            v.store_slice(self.load(v, at, part.len()), part);
        }
    }
}

/// A tensor that several threads write, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct FloatBlocksMut<'a> {
    start: *mut u8,
    places: Places,
    tensor: PhantomData<&'a mut [u8]>,
}

// SAFETY: access goes through methods whose callers promise not to overlap.
unsafe impl Send for FloatBlocksMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for FloatBlocksMut<'_> {}

impl<'a> FloatBlocksMut<'a> {
    /// `tensor` is floating-point, has three dimensions and a unit inner stride.
    pub fn new(tensor: &'a mut TensorMut<'_>) -> FloatBlocksMut<'a> {
        let places = Places::new(&tensor.layout());
        FloatBlocksMut { start: tensor.span_bytes_mut().as_mut_ptr(), places, tensor: PhantomData }
    }

    /// Rounds to the tensor's type and stores the first `count` lanes, at most a vector.
    ///
    /// # Safety
    /// Nobody else uses these elements at the same time.
    #[inline(always)]
    pub unsafe fn store<V: Vectors>(&self, v: V, vector: V::Vector, at: [usize; 3], count: usize) {
        let count = V::LANES.min(count);
        let byte = self.places.byte(at, count);
        // SAFETY: `count` elements inside the tensor, as `byte` has checked; exclusive by the caller's promise.
        unsafe { v.store_part(self.places.dtype, vector, self.start.add(byte), count) };
    }
}
