//! AArch64's 128-bit vectors, which every such machine has.

use std::arch::aarch64::*;
use std::arch::asm;

use super::Leaf;
use super::vectors::{Vectors, memory_operations, register_operations};
use crate::dtype::{bf16, f16};

/// The machine is an AArch64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Neon {
    /// # Safety
    /// The machine has these instruction sets.
    pub unsafe fn assume() -> Neon {
        Neon(())
    }
}

#[target_feature(enable = "neon")]
fn run_leaf(leaf: impl Leaf) {
    leaf.run();
}

impl Vectors for Neon {
    type Vector = float32x4_t;
    const LANES: usize = 4;
    const ACCUMULATORS: usize = 24;
    const TILE_VECTORS: usize = 4;
    const STREAM_ROWS: [usize; 2] = [6, 8];

    #[inline(always)]
    fn enter(self, leaf: impl Leaf) {
        // SAFETY: the token exists only where the instruction set does.
        unsafe { run_leaf(leaf) }
    }

    register_operations! {
        fn splat(self, value: f32) -> float32x4_t { vdupq_n_f32(value) }
        fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            vfmaq_f32(c, a, b)
        }
        fn abs(self, a: float32x4_t) -> float32x4_t { vabsq_f32(a) }
        fn select_less(
            self,
            a: float32x4_t,
            b: float32x4_t,
            yes: float32x4_t,
            no: float32x4_t
        ) -> float32x4_t {
            vbslq_f32(vcltq_f32(a, b), yes, no)
        }
        fn shift_to_exponent(self, a: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(a)))
        }
        fn sum_lanes(self, vectors: [float32x4_t; 4]) -> [f32; 4] {
            let [a, b, c, d] = vectors;
            let sums = vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
            let mut output = [0.0; 4];
            vst1q_f32(output.as_mut_ptr(), sums);
            output
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch reads nothing and faults on no address.
        unsafe {
            asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
        }
    }

    #[inline(always)]
    fn prefetch_second_level(self, address: *const u8) {
        // SAFETY: as above.
        unsafe {
            asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
        }
    }

    memory_operations! {
        unsafe fn load_f32(self, from: *const f32) -> float32x4_t { vld1q_f32(from) }
        unsafe fn load_f16(self, from: *const f16) -> float32x4_t {
            // The intrinsic is younger than the oldest Rust that the crate builds with.
            let (half, wide): (uint16x4_t, float32x4_t);
            half = vld1_u16(from.cast());
            asm!(
                "fcvtl {0:v}.4s, {1:v}.4h",
                out(vreg) wide,
                in(vreg) half,
                options(pure, nomem, nostack, preserves_flags)
            );
            wide
        }
        unsafe fn load_bf16(self, from: *const bf16) -> float32x4_t {
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast())))
        }
        unsafe fn load_bf16_of_pairs(self, from: *const bf16, member: usize) -> float32x4_t {
            let pairs = vld1q_u32(from.cast());
            vreinterpretq_f32_u32(match member {
                0 => vshlq_n_u32::<16>(pairs),
                _ => vandq_u32(pairs, vdupq_n_u32(0xFFFF_0000)),
            })
        }
        unsafe fn store_f32(self, vector: float32x4_t, to: *mut f32) { vst1q_f32(to, vector) }
        unsafe fn store_f16(self, vector: float32x4_t, to: *mut f16) {
            let half: uint16x4_t;
            asm!(
                "fcvtn {0:v}.4h, {1:v}.4s",
                out(vreg) half,
                in(vreg) vector,
                options(pure, nomem, nostack, preserves_flags)
            );
            vst1_u16(to.cast(), half)
        }
        unsafe fn store_bf16(self, vector: float32x4_t, to: *mut bf16) {
            let bits = vreinterpretq_u32_f32(vector);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x40_0000));
            let is_number = vceqq_f32(vector, vector);
            vst1_u16(to.cast(), vshrn_n_u32::<16>(vbslq_u32(is_number, rounded, quiet)))
        }
    }
}
