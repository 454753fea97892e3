//! Ways of multiplying stored weights with activations, always summed in f32.
#![allow(unsafe_code, reason = "unchecked loads and stores, and vector instructions")]

use std::fmt;
use std::marker::PhantomData;

use super::instructions::{InstructionSet, Leaf, Supported, VectorJob, Vectors};
use super::product::TileProduct;
use crate::dtype::{DType, Float};
use crate::tensor::with_float;

#[cfg(target_arch = "x86_64")]
pub(super) use pairs::Bf16Pairs;

/// How weights of one type are multiplied: as what they lie ready, and how many products a lane takes at
/// once.
///
/// An `Operand` is a weight or an activation made ready: f32, or bf16 in groups of two. As with
/// [`Vectors`], a value is proof that the machine has the instructions.
pub(crate) trait Products<V: Vectors>: Copy + fmt::Debug + Send + Sync + 'static {
    /// Weights as they are stored.
    type Weight: Float;
    /// Weights and activations as they are multiplied.
    type Operand: Float;
    /// `LANES * GROUP` operands.
    type Vector: Copy;
    /// Proof that this thread's registers hold tiles.
    type Tiles;
    /// Consecutive operands that one lane multiplies and adds up.
    const GROUP: usize;

    /// Whether weights are operands as they lie.
    const IN_PLACE: bool = false;

    /// Operands in a vector.
    const STEP: usize = V::LANES * Self::GROUP;

    /// Runs `leaf` compiled for the instructions.
    #[inline(always)]
    fn enter(self, vectors: V, leaf: impl Leaf) {
        vectors.enter(leaf);
    }

    /// # Safety
    /// `STEP` elements from `from` on can be read.
    unsafe fn load_weights(self, vectors: V, from: *const Self::Weight) -> Self::Vector;
    /// # Safety
    /// `STEP` elements from `from` on can be read.
    unsafe fn load(self, vectors: V, from: *const Self::Operand) -> Self::Vector;
    /// # Safety
    /// `STEP` elements from `to` on can be written.
    unsafe fn store(self, vectors: V, vector: Self::Vector, to: *mut Self::Operand);
    /// One group in every lane.
    ///
    /// # Safety
    /// `GROUP` elements from `from` on can be read.
    unsafe fn splat(self, vectors: V, from: *const Self::Operand) -> Self::Vector;
    /// `sums + a * b`, the products of a group added up in its lane.
    fn multiply_add(
        self,
        vectors: V,
        a: Self::Vector,
        b: Self::Vector,
        sums: V::Vector,
    ) -> V::Vector;
    /// Whether there are registers that hold tiles, of 16 rows of 16 groups, and products of them.
    #[inline(always)]
    fn has_tiles(self) -> bool {
        false
    }
    /// Registers that hold tiles, for this thread's [`Products::multiply_tiles`], if there are such.
    #[inline(always)]
    fn take_tiles(self) -> Option<Self::Tiles> {
        None
    }
    /// Multiplies tiles of `streams` times 16 rows of weights with those of `vectors` times 16 rows of activations: one
    /// with up to four, or two with up to two.
    ///
    /// # Safety
    /// `product` is as its fields say.
    #[inline(always)]
    unsafe fn multiply_tiles(
        _tiles: &Self::Tiles,
        _product: &mut TileProduct,
        _streams: usize,
        _vectors: usize,
    ) {
        unreachable!("no tiles");
    }
    /// A vector whose lane `i` holds lane `i` of each of the `GROUP` first `values`.
    ///
    /// # Safety
    /// `STEP` elements from `to` on can be written.
    unsafe fn store_groups(self, vectors: V, values: [V::Vector; 2], to: *mut Self::Operand);
}

/// Weights widened to f32 as they are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widened<W>(PhantomData<W>);

impl<V: Vectors, W: Float> Products<V> for Widened<W> {
    type Weight = W;
    type Operand = f32;
    type Vector = V::Vector;
    type Tiles = ();
    const GROUP: usize = 1;
    const IN_PLACE: bool = matches!(W::DTYPE, DType::F32);

    #[inline(always)]
    unsafe fn load_weights(self, vectors: V, from: *const W) -> V::Vector {
        // SAFETY: the caller's promise.
        unsafe { vectors.load(from) }
    }
    #[inline(always)]
    unsafe fn load(self, vectors: V, from: *const f32) -> V::Vector {
        // SAFETY: the caller's promise.
        unsafe { vectors.load_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, vectors: V, vector: V::Vector, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vectors.store_f32(vector, to) }
    }
    #[inline(always)]
    unsafe fn splat(self, vectors: V, from: *const f32) -> V::Vector {
        // SAFETY: the caller's promise.
        vectors.splat(unsafe { *from })
    }
    #[inline(always)]
    fn multiply_add(self, vectors: V, a: V::Vector, b: V::Vector, sums: V::Vector) -> V::Vector {
        vectors.mul_add(a, b, sums)
    }
    #[inline(always)]
    unsafe fn store_groups(self, vectors: V, values: [V::Vector; 2], to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vectors.store_f32(values[0], to) }
    }
}

/// Work that is compiled for every instruction set and type of weight.
pub(crate) trait ProductJob {
    type Output;
    fn run<V: Vectors, P: Products<V>>(self, vectors: V, products: P) -> Self::Output;
}

/// Runs `job` with the best products that the machine has for floating-point weights of type `weight`
/// under activations of type `activation`.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(unused_variables, reason = "only x86-64 has instructions for pairs of bf16 here")
)]
pub(crate) fn dispatch<J: ProductJob>(
    supported: Supported,
    activation: DType,
    weight: DType,
    job: J,
) -> J::Output {
    #[cfg(target_arch = "x86_64")]
    if let (DType::BF16, DType::BF16) = (activation, weight)
        && let Some((vectors, products)) = Bf16Pairs::new(supported)
    {
        return job.run(vectors, products);
    }
    dispatch_widened(supported, weight, job)
}

/// As [`dispatch`], one operand at a time whatever the machine has: for packed weights.
pub(crate) fn dispatch_widened<J: ProductJob>(
    supported: Supported,
    weight: DType,
    job: J,
) -> J::Output {
    with_float!(weight, W => {
        supported.dispatch(WithProducts(job, Widened::<W>(PhantomData)))
    })
}

/// Whether [`dispatch`] finds [`Products::has_tiles`] for these types.
pub(crate) fn has_tiles(supported: Supported, activation: DType, weight: DType) -> bool {
    supported.get() == InstructionSet::Amx && (activation, weight) == (DType::BF16, DType::BF16)
}

/// How weights meet many rows of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ManyRows {
    /// In registers that hold tiles.
    TileRegisters,
    /// In panels.
    Panels,
    /// In bands, widened.
    Bands,
    /// In bands, as they lie.
    BandsInPlace,
}

impl ManyRows {
    pub fn of(supported: Supported, activation: DType, weight: DType) -> ManyRows {
        struct HasFewRegisters;
        impl VectorJob for HasFewRegisters {
            type Output = bool;
            fn run<V: Vectors>(self, _: V) -> bool {
                V::HAS_FEW_REGISTERS
            }
        }
        match supported.dispatch(HasFewRegisters) {
            true if weight == DType::F32 => ManyRows::BandsInPlace,
            true => ManyRows::Bands,
            false if has_tiles(supported, activation, weight) => ManyRows::TileRegisters,
            false => ManyRows::Panels,
        }
    }
}

struct WithProducts<J, W>(J, Widened<W>);

impl<J: ProductJob, W: Float> VectorJob for WithProducts<J, W> {
    type Output = J::Output;
    fn run<V: Vectors>(self, vectors: V) -> J::Output {
        self.0.run(vectors, self.1)
    }
}

#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::*;

    use super::Products;
    use crate::backend::cpu::instructions::amx::{self, Amx, WholeTiles};
    use crate::backend::cpu::instructions::avx512::{Avx512, round_to_upper_half};
    use crate::backend::cpu::instructions::{InstructionSet, Leaf, Supported};
    use crate::backend::cpu::product::TileProduct;
    use crate::dtype::bf16;

    /// Pairs of bf16, whose two products are added to an f32 lane by one instruction.
    ///
    /// The products are exact; the instruction treats denormals as zero.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Bf16Pairs {
        tiles: Option<Amx>,
    }

    impl Bf16Pairs {
        pub fn new(supported: Supported) -> Option<(Avx512, Bf16Pairs)> {
            let tiles = match supported.get() {
                InstructionSet::Avx512Bf16 => None,
                // SAFETY: `Supported` says what the machine has.
                InstructionSet::Amx => Some(unsafe { Amx::assume() }),
                _ => return None,
            };
            // SAFETY: likewise; both sets include it.
            Some((unsafe { Avx512::assume() }, Bf16Pairs { tiles }))
        }
    }

    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
    fn run_leaf(leaf: impl Leaf) {
        leaf.run();
    }

    impl Products<Avx512> for Bf16Pairs {
        type Weight = bf16;
        type Operand = bf16;
        type Vector = __m512i;
        type Tiles = WholeTiles;
        const GROUP: usize = 2;

        #[inline(always)]
        fn enter(self, _vectors: Avx512, leaf: impl Leaf) {
            // SAFETY: the token exists only where the instruction set does.
            unsafe { run_leaf(leaf) }
        }
        #[inline(always)]
        unsafe fn load_weights(self, _vectors: Avx512, from: *const bf16) -> __m512i {
            // SAFETY: the caller's promise.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        unsafe fn load(self, _vectors: Avx512, from: *const bf16) -> __m512i {
            // SAFETY: the caller's promise.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store(self, _vectors: Avx512, vector: __m512i, to: *mut bf16) {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_si512(to.cast(), vector) }
        }
        #[inline(always)]
        unsafe fn splat(self, _vectors: Avx512, from: *const bf16) -> __m512i {
            // SAFETY: two elements by the caller's promise, read without regard to alignment.
            unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        fn multiply_add(self, _vectors: Avx512, a: __m512i, b: __m512i, sums: __m512) -> __m512 {
            // SAFETY: the token exists only where the instruction set does; `__m512bh` is 32 bf16 numbers in
            // the same bits.
            unsafe {
                let pairs = |bits| std::mem::transmute::<__m512i, __m512bh>(bits);
                _mm512_dpbf16_ps(sums, pairs(a), pairs(b))
            }
        }
        #[inline(always)]
        fn has_tiles(self) -> bool {
            self.tiles.is_some()
        }
        #[inline(always)]
        fn take_tiles(self) -> Option<WholeTiles> {
            self.tiles.map(WholeTiles::new)
        }
        #[inline(always)]
        unsafe fn multiply_tiles(
            tiles: &WholeTiles,
            product: &mut TileProduct,
            streams: usize,
            vectors: usize,
        ) {
            // SAFETY: the caller's promise.
            unsafe { amx::multiply(tiles, product, streams, vectors) };
        }
        #[inline(always)]
        unsafe fn store_groups(self, _vectors: Avx512, values: [__m512; 2], to: *mut bf16) {
            // SAFETY: the caller's promise.
            unsafe {
                let even = _mm512_srli_epi32::<16>(round_to_upper_half(values[0]));
                let upper = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
                let odd = _mm512_and_si512(round_to_upper_half(values[1]), upper);
                _mm512_storeu_si512(to.cast(), _mm512_or_si512(even, odd));
            }
        }
    }
}
