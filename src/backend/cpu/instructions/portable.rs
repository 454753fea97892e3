//! Plain Rust, which the compiler turns into whatever vectors the target has at least.

use super::Leaf;
use super::vectors::Vectors;
use crate::dtype::{Float, bf16, f16};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

const LANES: usize = 4;
type Lanes = [f32; LANES];

#[inline(always)]
fn lanewise(a: Lanes, b: Lanes, operation: impl Fn(f32, f32) -> f32) -> Lanes {
    [operation(a[0], b[0]), operation(a[1], b[1]), operation(a[2], b[2]), operation(a[3], b[3])]
}

/// # Safety
/// `LANES` elements from `from` on can be read.
#[inline(always)]
unsafe fn load<T: Float>(from: *const T) -> Lanes {
    // SAFETY: the caller's promise; an array has the alignment of its elements.
    unsafe { from.cast::<[T; LANES]>().read() }.map(T::to_f32)
}

/// # Safety
/// `LANES` elements from `to` on can be written.
#[inline(always)]
unsafe fn store<T: Float>(vector: Lanes, to: *mut T) {
    // SAFETY: the caller's promise; an array has the alignment of its elements.
    unsafe { to.cast::<[T; LANES]>().write(vector.map(T::from_f32)) }
}

impl Vectors for Portable {
    type Vector = Lanes;
    const LANES: usize = LANES;
    const ACCUMULATORS: usize = 12;
    const TILE_VECTORS: usize = 2;
    const STREAM_ROWS: [usize; 2] = [2, 4];

    #[inline(always)]
    fn enter(self, leaf: impl Leaf) {
        leaf.run();
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; LANES]
    }
    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        // Not `f32::mul_add`, which is a call into a library where no such instruction is certain.
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn abs(self, a: Lanes) -> Lanes {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn select_less(self, a: Lanes, b: Lanes, yes: Lanes, no: Lanes) -> Lanes {
        let mut chosen = no;
        for lane in 0..LANES {
            if a[lane] < b[lane] {
                chosen[lane] = yes[lane];
            }
        }
        chosen
    }
    #[inline(always)]
    fn shift_to_exponent(self, a: Lanes) -> Lanes {
        a.map(|lane| f32::from_bits(lane.to_bits() << 23))
    }
    #[inline(always)]
    fn sum_lanes(self, vectors: [Lanes; 4]) -> [f32; 4] {
        vectors.map(|[a, b, c, d]| (a + b) + (c + d))
    }

    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}
    #[inline(always)]
    fn prefetch_second_level(self, _address: *const u8) {}

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> Lanes {
        // SAFETY: the caller's promise.
        unsafe { load(from) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Lanes {
        // SAFETY: the caller's promise.
        unsafe { load(from) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Lanes {
        // SAFETY: the caller's promise; an array has the alignment of its elements.
        let bits = unsafe { from.cast::<[u16; LANES]>().read() };
        bits.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    unsafe fn store_f32(self, vector: Lanes, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { store(vector, to) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, vector: Lanes, to: *mut f16) {
        // SAFETY: the caller's promise.
        unsafe { store(vector, to) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, vector: Lanes, to: *mut bf16) {
        // SAFETY: the caller's promise.
        unsafe { store(vector, to) }
    }
}
