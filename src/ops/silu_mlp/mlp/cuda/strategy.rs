//! Which kernels an MLP takes: a pure function of its shape, its dtypes and the device.

use crate::backend::cuda::CudaCapabilities;
use crate::dtype::DType;

/// The kernels of the MLPs, as `kernels/silu_mlp/README.md` describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MlpKernel {
    /// Decode: streams the weights once for each two rows.
    Gemv,
    /// 3 to 64 rows on tensor cores: streams the weights once.
    Skinny,
    /// Prefill on tensor cores, by `mma.sync`.
    Tile,
    /// Prefill on sm_90a, by TMA and `wgmma`.
    Wgmma,
    /// f32 FMAs: every dtype, shape, alignment and device.
    Plain,
}

/// When the MLPs take which kernel. Change it to tune, or to compare kernels.
///
/// Tensor-core kernels need f16 or bf16 throughout, sm_80, and rows that start on multiples of 16 bytes; what does not
/// fulfil that goes to [`MlpKernel::Plain`]. [`MlpKernel::Wgmma`] also needs [`CudaCapabilities::wgmma`], and more tiles
/// of 128 rows by 256 rows of weights than half the multiprocessors; what has fewer goes to [`MlpKernel::Tile`], whose
/// tiles are half as large. The borders are derived from what kernels and devices should do at best, not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MlpDispatch {
    /// Up to so many rows, [`MlpKernel::Gemv`].
    pub gemv_rows: usize,
    /// The same for f32 activations, which have no tensor-core kernel to go to.
    pub gemv_rows_f32: usize,
    /// Above that and up to so many rows, [`MlpKernel::Skinny`]; beyond, [`MlpKernel::Tile`].
    pub skinny_rows: usize,
    /// From so many rows on, [`MlpKernel::Wgmma`] where it can be had: one tile of it.
    pub wgmma_rows: usize,
    /// Takes this kernel always; calls that it cannot do are refused.
    pub forced: Option<MlpKernel>,
}

impl Default for MlpDispatch {
    fn default() -> MlpDispatch {
        MlpDispatch {
            gemv_rows: 2,
            gemv_rows_f32: 3,
            skinny_rows: 64,
            wgmma_rows: 128,
            forced: None,
        }
    }
}

/// What one half of an MLP's kernels depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half {
    pub rows: usize,
    /// The dimension that is summed over.
    pub depth: usize,
    pub activation: DType,
    pub weight: DType,
    /// Tiles that [`MlpKernel::Wgmma`] would cut the work into.
    pub wgmma_tiles: usize,
    pub batch_invariant: bool,
    /// Whether everything that is read starts its rows on multiples of 16 bytes.
    pub vectorised: bool,
}

/// One half's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Gemv,
    /// For tiles of so many rows.
    Skinny(SkinnyRows),
    Tile,
    Wgmma,
    Plain,
}

/// The tiles of rows that skinny kernels are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SkinnyRows {
    Eight,
    Sixteen,
    ThirtyTwo,
    SixtyFour,
}

impl SkinnyRows {
    /// The smallest that holds all rows, or the largest there is.
    fn holding(rows: usize) -> SkinnyRows {
        match rows {
            0..=8 => SkinnyRows::Eight,
            9..=16 => SkinnyRows::Sixteen,
            17..=32 => SkinnyRows::ThirtyTwo,
            _ => SkinnyRows::SixtyFour,
        }
    }
}

/// Up to so many rows, a batch-invariant descriptor promises one kernel.
const BATCH_INVARIANT_ROWS: usize = 64;

impl Half {
    /// What tensor-core kernels lack here, if anything.
    fn missing_for_tensor_cores(&self, device: &CudaCapabilities) -> Option<&'static str> {
        if self.activation != self.weight || self.activation == DType::F32 {
            Some("f16 or bf16 for activations and weights")
        } else if !device.has_tensor_cores() {
            Some("sm_80 or later")
        } else if !self.vectorised {
            Some("rows that start on multiples of 16 bytes")
        } else {
            None
        }
    }

    fn missing_for_wgmma(&self, device: &CudaCapabilities) -> Option<&'static str> {
        const NEEDS: &str = "sm_90, a driver for CUDA 12.0 and kernels for sm_90a";
        self.missing_for_tensor_cores(device).or((!device.wgmma).then_some(NEEDS))
    }

    /// Whether `wgmma` should win, if it can run.
    ///
    /// A tile of [`MlpKernel::Tile`] is half as large, and `mma.sync` reaches about 65 % of what `wgmma` does. Where
    /// every multiprocessor gets at most one such tile, that is done after half a `wgmma` tile's work at 65 % of the
    /// speed: 1.5 against 2. With more, two tiles at 65 % stand against one of double size: 3.1 against 2.
    fn suits_wgmma(&self, device: &CudaCapabilities, dispatch: &MlpDispatch) -> bool {
        let fills_the_device = self.wgmma_tiles > device.multiprocessors as usize / 2;
        self.rows >= dispatch.wgmma_rows && fills_the_device
    }

    /// The kernel for this half; `Err` says what a forced kernel lacks.
    pub fn choose(
        &self,
        device: &CudaCapabilities,
        dispatch: &MlpDispatch,
    ) -> Result<Choice, &'static str> {
        let missing = self.missing_for_tensor_cores(device);
        let needs_tensor_cores = |choice| missing.map_or(Ok(choice), Err);
        // One tile of rows for all batches: the work of a warp must not depend on how many there are.
        let skinny_rows = if self.batch_invariant {
            SkinnyRows::SixtyFour
        } else {
            SkinnyRows::holding(self.rows)
        };
        match dispatch.forced {
            // Nothing to sum: the kernels that stream need at least one column.
            _ if self.depth == 0 => return Ok(Choice::Plain),
            Some(MlpKernel::Gemv) => return Ok(Choice::Gemv),
            Some(MlpKernel::Plain) => return Ok(Choice::Plain),
            Some(MlpKernel::Skinny) => return needs_tensor_cores(Choice::Skinny(skinny_rows)),
            Some(MlpKernel::Tile) => return needs_tensor_cores(Choice::Tile),
            Some(MlpKernel::Wgmma) => {
                return self.missing_for_wgmma(device).map_or(Ok(Choice::Wgmma), Err);
            }
            None => {}
        }
        let gemv_rows = match self.activation {
            DType::F32 => dispatch.gemv_rows_f32,
            _ => dispatch.gemv_rows,
        };
        let invariant = self.batch_invariant && self.rows <= BATCH_INVARIANT_ROWS;
        if !invariant && self.rows <= gemv_rows {
            Ok(Choice::Gemv)
        } else if missing.is_some() {
            Ok(Choice::Plain)
        } else if invariant || self.rows <= dispatch.skinny_rows {
            Ok(Choice::Skinny(skinny_rows))
        } else if self.suits_wgmma(device, dispatch) && self.missing_for_wgmma(device).is_none() {
            Ok(Choice::Wgmma)
        } else {
            Ok(Choice::Tile)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SkinnyRows::*;

    const HALF: Half = Half {
        rows: 1,
        depth: 64,
        activation: DType::BF16,
        weight: DType::BF16,
        wgmma_tiles: 1000,
        batch_invariant: false,
        vectorised: true,
    };

    fn choose(device: (u32, u32), half: Half) -> Choice {
        let device = CudaCapabilities::test_device(device.0, device.1);
        half.choose(&device, &MlpDispatch::default()).unwrap()
    }

    #[test]
    fn rows_decide_on_a_device_with_tensor_cores() {
        for (rows, choice) in [
            (1, Choice::Gemv),
            (2, Choice::Gemv),
            (3, Choice::Skinny(Eight)),
            (8, Choice::Skinny(Eight)),
            (9, Choice::Skinny(Sixteen)),
            (16, Choice::Skinny(Sixteen)),
            (17, Choice::Skinny(ThirtyTwo)),
            (33, Choice::Skinny(SixtyFour)),
            (64, Choice::Skinny(SixtyFour)),
            (65, Choice::Tile),
            (127, Choice::Tile),
        ] {
            for device in [(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)] {
                assert_eq!(choose(device, Half { rows, ..HALF }), choice, "{rows} rows");
            }
        }
    }

    #[test]
    fn whole_tiles_for_half_of_a_hopper_go_to_wgmma() {
        let tiles = |wgmma_tiles| Half { rows: 128, wgmma_tiles, ..HALF };
        // The device of the tests has 100 multiprocessors.
        for (half, choice) in [
            (tiles(51), Choice::Wgmma),
            (tiles(50), Choice::Tile),
            (Half { rows: 127, ..HALF }, Choice::Tile),
            (Half { rows: 4096, ..HALF }, Choice::Wgmma),
            (
                Half { rows: 4096, activation: DType::F16, weight: DType::F16, ..HALF },
                Choice::Wgmma,
            ),
            (Half { rows: 4096, batch_invariant: true, ..HALF }, Choice::Wgmma),
            (Half { rows: 4096, vectorised: false, ..HALF }, Choice::Plain),
        ] {
            assert_eq!(choose((9, 0), half), choice, "{half:?}");
        }
        for device in [(8, 0), (8, 9), (10, 0), (12, 0)] {
            assert_eq!(choose(device, Half { rows: 4096, ..HALF }), Choice::Tile);
        }
        let mut without_maps = CudaCapabilities::test_device(9, 0);
        without_maps.wgmma = false;
        let dispatch = MlpDispatch::default();
        let half = Half { rows: 4096, ..HALF };
        assert_eq!(half.choose(&without_maps, &dispatch), Ok(Choice::Tile));
        let never = MlpDispatch { wgmma_rows: usize::MAX, ..dispatch };
        assert_eq!(half.choose(&CudaCapabilities::test_device(9, 0), &never), Ok(Choice::Tile));
    }

    #[test]
    fn what_tensor_cores_cannot_do_goes_to_plain() {
        let f32_weights = Half { activation: DType::F32, weight: DType::F32, ..HALF };
        let mixed = Half { activation: DType::F32, ..HALF };
        for half in [f32_weights, mixed, Half { vectorised: false, ..HALF }] {
            for rows in [4, 64, 65] {
                assert_eq!(choose((9, 0), Half { rows, ..half }), Choice::Plain, "{half:?}");
            }
            assert_eq!(choose((9, 0), half), Choice::Gemv, "{half:?}");
        }
        assert_eq!(choose((7, 5), Half { rows: 3, ..HALF }), Choice::Plain);
        assert_eq!(choose((9, 0), Half { rows: 3, ..f32_weights }), Choice::Gemv);
        assert_eq!(choose((9, 0), Half { depth: 0, ..HALF }), Choice::Plain);
    }

    #[test]
    fn batch_invariance_pins_one_kernel_up_to_64_rows() {
        for half in [HALF, Half { activation: DType::F32, weight: DType::F32, ..HALF }] {
            let half = Half { batch_invariant: true, ..half };
            let pinned = choose((8, 0), half);
            for rows in 1..=64 {
                assert_eq!(choose((8, 0), Half { rows, ..half }), pinned, "{rows} rows");
            }
        }
        let many = Half { batch_invariant: true, rows: 65, ..HALF };
        assert_eq!(choose((8, 0), many), Choice::Tile);
    }

    #[test]
    fn callers_override_the_table_and_are_told_what_is_missing() {
        let ampere = CudaCapabilities::test_device(8, 0);
        let turing = CudaCapabilities::test_device(7, 5);
        let mut dispatch = MlpDispatch { gemv_rows: 4, skinny_rows: 16, ..MlpDispatch::default() };
        assert_eq!(Half { rows: 4, ..HALF }.choose(&ampere, &dispatch), Ok(Choice::Gemv));
        assert_eq!(Half { rows: 17, ..HALF }.choose(&ampere, &dispatch), Ok(Choice::Tile));
        for (forced, on_ampere, on_turing) in [
            (MlpKernel::Gemv, Ok(Choice::Gemv), Ok(Choice::Gemv)),
            (MlpKernel::Plain, Ok(Choice::Plain), Ok(Choice::Plain)),
            (MlpKernel::Skinny, Ok(Choice::Skinny(Eight)), Err("sm_80 or later")),
            (MlpKernel::Tile, Ok(Choice::Tile), Err("sm_80 or later")),
        ] {
            dispatch.forced = Some(forced);
            assert_eq!(HALF.choose(&ampere, &dispatch), on_ampere);
            assert_eq!(HALF.choose(&turing, &dispatch), on_turing);
        }
        dispatch.forced = Some(MlpKernel::Wgmma);
        let hopper = CudaCapabilities::test_device(9, 0);
        assert_eq!(Half { wgmma_tiles: 1, ..HALF }.choose(&hopper, &dispatch), Ok(Choice::Wgmma));
        assert!(HALF.choose(&ampere, &dispatch).is_err_and(|missing| missing.contains("sm_90")));
        assert_eq!(HALF.choose(&turing, &dispatch), Err("sm_80 or later"));
        assert!(Half { vectorised: false, ..HALF }.choose(&hopper, &dispatch).is_err());
        dispatch.forced = Some(MlpKernel::Tile);
        assert!(Half { vectorised: false, ..HALF }.choose(&ampere, &dispatch).is_err());
        assert_eq!(Half { depth: 13, ..HALF }.choose(&ampere, &dispatch), Ok(Choice::Tile));
    }
}
