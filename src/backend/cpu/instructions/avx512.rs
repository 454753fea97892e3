//! AVX-512 F, BW and VL.

use std::arch::x86_64::*;

use super::Leaf;
use super::vectors::{Vectors, memory_operations, register_operations};
use crate::dtype::{bf16, f16};

/// The machine has AVX-512 F, BW, VL and AVX2, FMA, F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine has these instruction sets.
    pub unsafe fn assume() -> Avx512 {
        Avx512(())
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn run_leaf(leaf: impl Leaf) {
    leaf.run();
}

impl Vectors for Avx512 {
    type Vector = __m512;
    const LANES: usize = 16;
    const ACCUMULATORS: usize = 24;
    const TILE_VECTORS: usize = 4;
    const STREAM_ROWS: [usize; 2] = [6, 8];

    #[inline(always)]
    fn enter(self, leaf: impl Leaf) {
        // SAFETY: the token exists only where the instruction set does.
        unsafe { run_leaf(leaf) }
    }

    register_operations! {
        fn splat(self, value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn add(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(self, a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(self, a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn abs(self, a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn select_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
        }
        fn shift_to_exponent(self, a: __m512) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a)))
        }
        fn sum_lanes(self, vectors: [__m512; 4]) -> [f32; 4] {
            let [a, b, c, d] = vectors;
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            let low = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
            let high = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
            // Each quarter now holds one partial sum of a, b, c and d.
            let quarters = _mm512_add_ps(low, high);
            let halves = _mm256_add_ps(
                _mm512_castps512_ps256(quarters),
                _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(quarters))),
            );
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

    memory_operations! {
        unsafe fn transpose(self, from: *const f32, to: *mut f32, stride: usize) {
            let mut rows = [_mm512_setzero_ps(); 16];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(from.add(16 * i));
            }
            for (j, column) in transposed(rows).into_iter().enumerate() {
                _mm512_storeu_ps(to.add(j * stride), column);
            }
        }
        unsafe fn load_f32(self, from: *const f32) -> __m512 { _mm512_loadu_ps(from) }
        unsafe fn load_f16(self, from: *const f16) -> __m512 {
            _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
        }
        unsafe fn load_bf16(self, from: *const bf16) -> __m512 {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        unsafe fn load_bf16_of_pairs(self, from: *const bf16, member: usize) -> __m512 {
            let pairs = _mm512_loadu_si512(from.cast());
            _mm512_castsi512_ps(match member {
                0 => _mm512_slli_epi32::<16>(pairs),
                _ => _mm512_and_si512(pairs, _mm512_set1_epi32(0xFFFF_0000_u32 as i32)),
            })
        }
        unsafe fn store_f32(self, vector: __m512, to: *mut f32) { _mm512_storeu_ps(to, vector) }
        unsafe fn store_f16(self, vector: __m512, to: *mut f16) {
            _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector))
        }
        unsafe fn store_bf16(self, vector: __m512, to: *mut bf16) {
            let upper = _mm512_srli_epi32::<16>(round_to_upper_half(vector));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(upper))
        }
    }
}

/// Columns of 16 rows.
#[inline(always)]
unsafe fn transposed(rows: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: called with an `Avx512` at hand only.
    unsafe {
        // Of two rows each, pairs of elements.
        let mut pairs = [_mm512_setzero_pd(); 16];
        for i in (0..16).step_by(2) {
            pairs[i] = _mm512_castps_pd(_mm512_unpacklo_ps(rows[i], rows[i + 1]));
            pairs[i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(rows[i], rows[i + 1]));
        }
        // Vector i + j: of the rows i to i + 3, the columns j, j + 4, j + 8 and j + 12.
        let mut quarters = rows;
        for i in (0..16).step_by(4) {
            for half in 0..2 {
                let (upper, lower) = (pairs[i + half], pairs[i + half + 2]);
                quarters[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(upper, lower));
                quarters[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(upper, lower));
            }
        }
        let mut columns = quarters;
        for j in 0..4 {
            let [a, b] = [quarters[j], quarters[j + 4]];
            let [c, d] = [quarters[j + 8], quarters[j + 12]];
            let low = [_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0x44>(c, d)];
            let high = [_mm512_shuffle_f32x4::<0xEE>(a, b), _mm512_shuffle_f32x4::<0xEE>(c, d)];
            columns[j] = _mm512_shuffle_f32x4::<0x88>(low[0], low[1]);
            columns[j + 4] = _mm512_shuffle_f32x4::<0xDD>(low[0], low[1]);
            columns[j + 8] = _mm512_shuffle_f32x4::<0x88>(high[0], high[1]);
            columns[j + 12] = _mm512_shuffle_f32x4::<0xDD>(high[0], high[1]);
        }
        columns
    }
}

/// The bf16 nearest to each lane in its upper 16 bits; rubbish in the lower.
///
/// In integers, since `vcvtneps2bf16` is not in every AVX-512.
#[inline(always)]
pub(crate) unsafe fn round_to_upper_half(vector: __m512) -> __m512i {
    // SAFETY: called with an `Avx512` at hand only.
    unsafe {
        let bits = _mm512_castps_si512(vector);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
        let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(vector, vector);
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
        _mm512_mask_blend_epi32(is_nan, _mm512_add_epi32(bits, half), quiet)
    }
}
