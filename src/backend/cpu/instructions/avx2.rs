//! AVX2, FMA and F16C.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Leaf;
use super::vectors::{Vectors, memory_operations, register_operations};
use crate::dtype::{bf16, f16};

/// The machine has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine has these instruction sets.
    pub unsafe fn assume() -> Avx2 {
        Avx2(())
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn run_leaf(leaf: impl Leaf) {
    leaf.run();
}

#[inline]
#[target_feature(enable = "avx2")]
fn settle(mut sum: __m256) -> __m256 {
    // SAFETY: no instruction; the compiler has to assume that it changes the sum, and memory.
    unsafe { asm!("/* {} */", inout(ymm_reg) sum, options(nostack, preserves_flags)) };
    sum
}

impl Vectors for Avx2 {
    type Vector = __m256;
    const LANES: usize = 8;
    const ACCUMULATORS: usize = 12;
    const TILE_VECTORS: usize = 2;
    const STREAM_ROWS: [usize; 2] = [2, 4];

    #[inline(always)]
    fn enter(self, leaf: impl Leaf) {
        // SAFETY: the token exists only where the instruction set does.
        unsafe { run_leaf(leaf) }
    }

    register_operations! {
        fn splat(self, value: f32) -> __m256 { _mm256_set1_ps(value) }
        fn add(self, a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(self, a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(self, a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(self, a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn abs(self, a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn select_less(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        }
        fn shift_to_exponent(self, a: __m256) -> __m256 {
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a)))
        }
        fn sum_lanes(self, vectors: [__m256; 4]) -> [f32; 4] {
            let [a, b, c, d] = vectors;
            let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let sums =
                _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            let mut output = [0.0; 4];
            _mm_storeu_ps(output.as_mut_ptr(), sums);
            output
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch reads nothing and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }

    #[inline(always)]
    fn prefetch_second_level(self, address: *const u8) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
    }

    #[inline(always)]
    fn settle(self, sum: __m256) -> __m256 {
        // SAFETY: the token exists only where the instruction set does.
        unsafe { settle(sum) }
    }

    memory_operations! {
        unsafe fn transpose(self, from: *const f32, to: *mut f32, stride: usize) {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm256_loadu_ps(from.add(8 * i));
            }
            for half in 0..2 {
                // Columns 2 half and 2 half + 1, and 4 behind each, of four rows.
                for (quarter, rows) in [&rows[..4], &rows[4..]].into_iter().enumerate() {
                    let (a, b) = match half {
                        0 => (_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpacklo_ps(rows[2], rows[3])),
                        _ => (_mm256_unpackhi_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[2], rows[3])),
                    };
                    let both = [_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xEE>(a, b)];
                    for (odd, columns) in both.into_iter().enumerate() {
                        let to = to.add((2 * half + odd) * stride + 4 * quarter);
                        _mm_storeu_ps(to, _mm256_castps256_ps128(columns));
                        _mm_storeu_ps(to.add(4 * stride), _mm256_extractf128_ps::<1>(columns));
                    }
                }
            }
        }
        unsafe fn load_f32(self, from: *const f32) -> __m256 { _mm256_loadu_ps(from) }
        unsafe fn load_f16(self, from: *const f16) -> __m256 {
            _mm256_cvtph_ps(_mm_loadu_si128(from.cast()))
        }
        unsafe fn load_bf16(self, from: *const bf16) -> __m256 {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
        unsafe fn load_bf16_of_pairs(self, from: *const bf16, member: usize) -> __m256 {
            let pairs = _mm256_loadu_si256(from.cast());
            _mm256_castsi256_ps(match member {
                0 => _mm256_slli_epi32::<16>(pairs),
                _ => _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF_0000_u32 as i32)),
            })
        }
        unsafe fn store_f32(self, vector: __m256, to: *mut f32) { _mm256_storeu_ps(to, vector) }
        unsafe fn store_f16(self, vector: __m256, to: *mut f16) {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector))
        }
        unsafe fn store_bf16(self, vector: __m256, to: *mut bf16) {
            let bits = _mm256_castps_si256(vector);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
            let rounded = _mm256_castsi256_ps(_mm256_add_epi32(bits, half));
            let quiet = _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000)));
            let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(vector, vector);
            let chosen = _mm256_castps_si256(_mm256_blendv_ps(rounded, quiet, is_nan));
            let upper = _mm256_srli_epi32::<16>(chosen);
            let packed = _mm_packus_epi32(
                _mm256_castsi256_si128(upper),
                _mm256_extracti128_si256::<1>(upper),
            );
            _mm_storeu_si128(to.cast(), packed)
        }
    }
}
