//! The vector operations that every instruction set offers.

use std::fmt;

use super::Leaf;
use crate::dtype::{DType, Float, bf16, f16};

/// Lanes of the widest set.
pub(crate) const MAX_LANES: usize = 16;

/// Vectors of `LANES` f32 numbers.
///
/// A value of an implementing type is proof that the machine has the instruction set. Operations on
/// registers are therefore safe; loads and stores rely on the caller for their addresses.
pub(crate) trait Vectors: Copy + fmt::Debug + Send + Sync + 'static {
    type Vector: Copy;
    const LANES: usize;
    /// Sums that a matrix product keeps in registers.
    const ACCUMULATORS: usize;
    /// Whether there are 16 registers, not 32.
    const HAS_FEW_REGISTERS: bool = Self::ACCUMULATORS < 24;
    /// Vectors side by side in a tile of sums.
    const TILE_VECTORS: usize;
    /// Likewise, in the last tile, so that none of a single vector is left, with a load for each product. (Zen 4, AVX2,
    /// 2048/8192, f32: 24 rows take 16.0 ms with a tile of three, 18.2 with two and one.)
    const WIDEST_TILE: usize = if Self::HAS_FEW_REGISTERS { 3 } else { Self::TILE_VECTORS };
    /// Most rows of activations, 8 at most, that four streams of weights meet at once, and that three do.
    const STREAM_ROWS: [usize; 2];

    /// Runs `leaf` compiled for this instruction set.
    fn enter(self, leaf: impl Leaf);

    fn splat(self, value: f32) -> Self::Vector;
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`; rounded once where the set has such an instruction.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    fn abs(self, a: Self::Vector) -> Self::Vector;
    /// `if a < b { yes } else { no }`, lane by lane; NaN is not less.
    fn select_less(
        self,
        a: Self::Vector,
        b: Self::Vector,
        yes: Self::Vector,
        no: Self::Vector,
    ) -> Self::Vector;
    /// The bits of each lane moved up by 23: an integer becomes an exponent.
    fn shift_to_exponent(self, a: Self::Vector) -> Self::Vector;
    /// The sum over the lanes of each of four vectors, all in the same order.
    fn sum_lanes(self, vectors: [Self::Vector; 4]) -> [f32; 4];

    /// Asks for the cache line at `address`, which need not be valid.
    fn prefetch(self, address: *const u8);
    /// Likewise, but not into the first-level cache.
    fn prefetch_second_level(self, address: *const u8);

    /// `sum`, which the compiler makes before it loads what is loaded behind this: where registers are short, it would
    /// else load early and keep a sum in memory.
    #[inline(always)]
    fn settle(self, sum: Self::Vector) -> Self::Vector {
        sum
    }

    /// Rows become columns: element `j` of row `i` of the `LANES` rows of `LANES` elements from `from` on goes to
    /// `to[j * stride + i]`.
    ///
    /// # Safety
    /// These elements can be read and written.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, to: *mut f32, stride: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller's promise.
                unsafe { *to.add(j * stride + i) = *from.add(i * Self::LANES + j) };
            }
        }
    }

    /// # Safety
    /// `LANES` elements from `from` on can be read.
    unsafe fn load_f32(self, from: *const f32) -> Self::Vector;
    /// # Safety
    /// `LANES` elements from `from` on can be read.
    unsafe fn load_f16(self, from: *const f16) -> Self::Vector;
    /// # Safety
    /// `LANES` elements from `from` on can be read.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::Vector;
    /// The first (0) or second (1) of each of `LANES` pairs.
    ///
    /// # Safety
    /// `2 * LANES` elements from `from` on can be read.
    #[inline(always)]
    unsafe fn load_bf16_of_pairs(self, from: *const bf16, member: usize) -> Self::Vector {
        let mut lanes = [0f32; MAX_LANES];
        for (lane, value) in lanes[..Self::LANES].iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *value = unsafe { *from.add(2 * lane + member) }.to_f32();
        }
        self.load_slice(&lanes)
    }
    /// # Safety
    /// `LANES` elements from `to` on can be written.
    unsafe fn store_f32(self, vector: Self::Vector, to: *mut f32);
    /// Rounds to nearest, ties to even.
    ///
    /// # Safety
    /// `LANES` elements from `to` on can be written.
    unsafe fn store_f16(self, vector: Self::Vector, to: *mut f16);
    /// Rounds to nearest, ties to even.
    ///
    /// # Safety
    /// `LANES` elements from `to` on can be written.
    unsafe fn store_bf16(self, vector: Self::Vector, to: *mut bf16);

    /// # Safety
    /// `LANES` elements of the floating-point type `dtype` from `from` on can be read.
    #[inline(always)]
    unsafe fn load_any(self, dtype: DType, from: *const u8) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe {
            match dtype {
                DType::F16 => self.load_f16(from.cast()),
                DType::BF16 => self.load_bf16(from.cast()),
                _ => self.load_f32(from.cast()),
            }
        }
    }

    /// # Safety
    /// `LANES` elements of the floating-point type `dtype` from `to` on can be written.
    #[inline(always)]
    unsafe fn store_any(self, dtype: DType, vector: Self::Vector, to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match dtype {
                DType::F16 => self.store_f16(vector, to.cast()),
                DType::BF16 => self.store_bf16(vector, to.cast()),
                _ => self.store_f32(vector, to.cast()),
            }
        }
    }

    /// The first `count` lanes, zeros behind.
    ///
    /// # Safety
    /// `min(count, LANES)` elements of the floating-point type `dtype` from `from` on can be read.
    #[inline(always)]
    unsafe fn load_part(self, dtype: DType, from: *const u8, count: usize) -> Self::Vector {
        // SAFETY: whole vectors by the caller's promise; parts from a buffer of `MAX_LANES` elements.
        unsafe {
            if count >= Self::LANES {
                return self.load_any(dtype, from);
            }
            let mut buffer = [0f32; MAX_LANES];
            std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr().cast(), count * dtype.size());
            self.load_any(dtype, buffer.as_ptr().cast())
        }
    }

    /// Stores the first `count` lanes.
    ///
    /// # Safety
    /// `min(count, LANES)` elements of the floating-point type `dtype` from `to` on can be written.
    #[inline(always)]
    unsafe fn store_part(self, dtype: DType, vector: Self::Vector, to: *mut u8, count: usize) {
        // SAFETY: whole vectors by the caller's promise; parts through a buffer of `MAX_LANES` elements.
        unsafe {
            if count >= Self::LANES {
                return self.store_any(dtype, vector, to);
            }
            let mut buffer = [0f32; MAX_LANES];
            self.store_any(dtype, vector, buffer.as_mut_ptr().cast());
            std::ptr::copy_nonoverlapping(buffer.as_ptr().cast(), to, count * dtype.size());
        }
    }

    /// # Safety
    /// `LANES` elements from `from` on can be read.
    #[inline(always)]
    unsafe fn load<T: Float>(self, from: *const T) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe { self.load_any(T::DTYPE, from.cast()) }
    }

    /// The first elements of a slice, at most a vector; zeros behind its end.
    #[inline(always)]
    fn load_slice<T: Float>(self, from: &[T]) -> Self::Vector {
        // SAFETY: the slice holds as many elements as are read.
        unsafe { self.load_part(T::DTYPE, from.as_ptr().cast(), from.len()) }
    }

    /// A vector of the floating-point type `dtype` from its elements' bits.
    #[inline(always)]
    fn load_bits<E: bytemuck::Pod>(self, dtype: DType, from: &[E; MAX_LANES]) -> Self::Vector {
        assert_eq!(size_of::<E>(), dtype.size(), "bits of this type");
        // SAFETY: `MAX_LANES` elements of the type's size.
        unsafe { self.load_any(dtype, from.as_ptr().cast()) }
    }

    /// Fills the start of a slice, at most a vector long.
    #[inline(always)]
    fn store_slice<T: Float>(self, vector: Self::Vector, to: &mut [T]) {
        // SAFETY: the slice holds as many elements as are written.
        unsafe { self.store_part(T::DTYPE, vector, to.as_mut_ptr().cast(), to.len()) }
    }

    /// Rounds to a floating-point type and back.
    #[inline(always)]
    fn round_to(self, dtype: DType, vector: Self::Vector) -> Self::Vector {
        if dtype == DType::F32 {
            return vector;
        }
        let mut buffer = [0f32; MAX_LANES];
        // SAFETY: the buffer holds `MAX_LANES` elements of any floating-point type.
        unsafe {
            self.store_any(dtype, vector, buffer.as_mut_ptr().cast());
            self.load_any(dtype, buffer.as_ptr().cast())
        }
    }
}

/// Methods whose bodies are intrinsics of the token's instruction set.
macro_rules! register_operations {
    ($( fn $name:ident($self:ident $(, $argument:ident: $type:ty)*) -> $output:ty $body:block )*) => {$(
        #[inline(always)]
        fn $name($self $(, $argument: $type)*) -> $output {
            // SAFETY: the token exists only where the instruction set does; nothing here touches memory
            // other than locals.
            unsafe { $body }
        }
    )*};
}

/// Loads and stores, likewise.
macro_rules! memory_operations {
    ($( unsafe fn $name:ident($self:ident $(, $argument:ident: $type:ty)*) $(-> $output:ty)? $body:block )*) => {$(
        #[inline(always)]
        unsafe fn $name($self $(, $argument: $type)*) $(-> $output)? {
            // SAFETY: the token exists only where the instruction set does; the address is the caller's
            // promise, and unaligned access is allowed.
            unsafe { $body }
        }
    )*};
}

pub(super) use {memory_operations, register_operations};

#[cfg(test)]
#[allow(unsafe_code, reason = "blocks are transposed through pointers")]
mod tests {
    use super::*;
    use crate::backend::cpu::instructions::{InstructionSet, Supported, VectorJob};

    struct Transpose;

    impl VectorJob for Transpose {
        type Output = ();

        fn run<V: Vectors>(self, v: V) {
            let (lanes, stride) = (V::LANES, V::LANES + 3);
            let from: Vec<f32> = (0..lanes * lanes).map(|at| at as f32).collect();
            let mut to = vec![-1.0; lanes * stride];
            // SAFETY: as many rows and columns as there are lanes.
            unsafe { v.transpose(from.as_ptr(), to.as_mut_ptr(), stride) };
            for (at, value) in to.into_iter().enumerate() {
                let (row, column) = (at / stride, at % stride);
                let expected = if column < lanes { from[column * lanes + row] } else { -1.0 };
                assert_eq!(value, expected, "{v:?}, row {row}, column {column}");
            }
        }
    }

    #[test]
    fn rows_become_columns() {
        InstructionSet::available()
            .for_each(|set| Supported::new(set).unwrap().dispatch(Transpose));
    }
}
