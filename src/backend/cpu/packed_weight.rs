//! Weights packed for products on a CPU.

use crate::dtype::{DType, Element};
use crate::error::{Error, Problem};
use crate::layout::{HasLayout, Layout};
use crate::tensor::{Tensor, TensorMut, TensorRef, with_float};
use crate::validate::Validator;

/// Output features in a panel: those whose weights for one input feature lie side by side.
pub(crate) const PANEL_ROWS: usize = 16;

/// Input features whose weights for one output feature lie side by side: bf16 is widened fastest in pairs.
pub(crate) const fn group(dtype: DType) -> usize {
    match dtype {
        DType::BF16 => 2,
        _ => 1,
    }
}

/// Input features that are copied at a time, whole groups.
const STRIP: usize = 64;

const NAME: &str = "PackedWeight";

/// How an operation's weights lie in host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightForm {
    /// Row by row.
    AsTheyLie,
    /// As [`PackedWeight`] makes them.
    Packed,
}

/// A weight of `nn.Linear`, `[out_features, in_features]`, packed into panels: `[out_features / 16, in_features, 16]`, in
/// bf16 `[out_features / 16, in_features / 2, 16, 2]`, rounded up, with zeros behind the last output and input feature.
///
/// For engines that keep their weights. On the [`Cpu`](crate::Cpu), the weights of [`GatedMlp`](crate::GatedMlp),
/// [`SiluMlp`](crate::SiluMlp), [`PrunedLinear`](crate::PrunedLinear), [`PrunedGatedMlp`](crate::PrunedGatedMlp),
/// [`MaskedGatedMlp`](crate::MaskedGatedMlp), [`ExitHead`](crate::ExitHead) and [`ExitHeadStates`](crate::ExitHeadStates)
/// may be packed, all of an operation's or none: a packed weight is given as any tensor, its rank tells it apart. Panels are the same on every machine: what was packed once can be written to a file and
/// mapped again, with [`PackedWeight::layout`]. Other backends, and the reference, refuse it as a shape that is not the weight's.
///
/// A row's result does not depend on the rows beside it, however many.
///
/// # When to pack
/// Where processors have AVX2 and no AVX-512, above all for 4 to 16 tokens at a time: verification of drafts, small batches.
/// (Zen 4, 2 threads, 2048/8192, times as fast as with weights as they lie: f32 1.2 with 6 tokens, 1.3 with 8, 1.5 with 12,
/// 1.0 with 64; bf16 1.1 with 4, 1.3 with 6, 1.1 with 8, 1.2 with 12, 1.1 with 64.) A single token takes the time of reading the
/// weights, packed or not; hundreds of tokens take up to a tenth longer if packed. With AVX-512 or AMX, leave weights as they
/// lie: their instructions for pairs and tiles of bf16 are not used on panels, and nothing was measured.
///
/// ```
/// use siluette::{Cpu, DType, GatedMlp, GatedMlpArgs, PackedWeight, TensorMut, TensorRef, Workspace};
///
/// let (rows, hidden, ffn) = (4, 64, 96);
/// let x = vec![0.5f32; rows * hidden];
/// let weights = vec![0.25f32; ffn * hidden];
/// let first = PackedWeight::new(TensorRef::new(&weights, &[ffn, hidden])?)?;
/// let down = PackedWeight::new(TensorRef::new(&weights, &[hidden, ffn])?)?;
/// let mut y = vec![0.0f32; rows * hidden];
/// let args = GatedMlpArgs::new(
///     TensorRef::new(&x, &[rows, hidden])?,
///     first.view(),
///     first.view(),
///     down.view(),
///     TensorMut::new(&mut y, &[rows, hidden])?,
/// );
/// let op = GatedMlp::new(hidden, ffn, DType::F32)?;
/// Cpu::new().gated_mlp(&op, args, &mut Workspace::default())?;
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PackedWeight {
    tensor: Tensor,
}

impl PackedWeight {
    /// Packs a copy of `weight`.
    ///
    /// # Errors
    /// Those of [`PackedWeight::pack`].
    pub fn new(weight: TensorRef<'_>) -> Result<PackedWeight, Error> {
        let [rows, columns] = matrix(&weight.layout())?;
        let layout = PackedWeight::layout(weight.layout().dtype(), rows, columns)?;
        let mut tensor = Tensor::zeros(layout);
        PackedWeight::pack(weight, tensor.view_mut())?;
        Ok(PackedWeight { tensor })
    }

    /// The layout of a packed weight: `[out_features / 16, in_features, 16]`, in bf16
    /// `[out_features / 16, in_features / 2, 16, 2]`, rounded up.
    ///
    /// # Errors
    /// Those of [`Layout::contiguous`].
    pub fn layout(dtype: DType, out_features: usize, in_features: usize) -> Result<Layout, Error> {
        let (panels, group) = (out_features.div_ceil(PANEL_ROWS), group(dtype));
        let shape = [panels, in_features.div_ceil(group), PANEL_ROWS, group];
        Layout::contiguous(dtype, if group == 1 { &shape[..3] } else { &shape })
    }

    /// Packs `weight` into memory of the caller's: a mapped file, or huge pages. Panels are independent of each other, so a
    /// weight that is too large to be there twice may be packed 16 output features, or a multiple, at a time.
    ///
    /// # Errors
    /// [`Problem::Shape`] if `weight` is no matrix, [`Problem::Stride`] if its inner stride is not 1, [`Problem::DType`] if
    /// it does not hold floating-point numbers; any of them if `packed` is not of its [`PackedWeight::layout`].
    pub fn pack(weight: TensorRef<'_>, mut packed: TensorMut<'_>) -> Result<(), Error> {
        let layout = weight.layout();
        let [rows, columns] = matrix(&layout)?;
        let target = PackedWeight::layout(layout.dtype(), rows, columns)?;
        let check = Validator::new(NAME);
        check.float("weight", layout.dtype())?;
        check.tensor("weight", &layout, layout.dtype(), &[rows, columns], WEIGHT)?;
        check.tensor("packed", &packed.layout(), target.dtype(), target.shape(), PACKED)?;
        check.contiguous("packed", &packed.layout())?;
        with_float!(layout.dtype(), W => {
            let from: &[W] = elements(weight.as_slice());
            copy(from, layout.row_stride(), [rows, columns], elements(packed.as_mut_slice()));
        });
        Ok(())
    }

    /// The packed weight, as an operation's argument.
    pub fn view(&self) -> TensorRef<'_> {
        self.tensor.view()
    }
}

const WEIGHT: &str = "[out_features, in_features], as nn.Linear has it";
const PACKED: &str = "see PackedWeight::layout";

fn matrix(layout: &Layout) -> Result<[usize; 2], Error> {
    <[usize; 2]>::try_from(layout.shape()).map_err(|_| {
        let got = format!("{:?}", layout.shape());
        let expected = "[out_features, in_features]";
        Error::argument(NAME, "weight", Problem::Shape, expected, got, "")
    })
}

fn elements<T>(slice: Option<T>) -> T {
    slice.unwrap_or_else(|| unreachable!("chosen by the tensor's type"))
}

fn copy<W: Element>(from: &[W], stride: usize, [rows, columns]: [usize; 2], to: &mut [W]) {
    if columns == 0 {
        return;
    }
    let group = group(W::DTYPE);
    let padded = columns.next_multiple_of(group);
    for (index, panel) in to.chunks_exact_mut(padded * PANEL_ROWS).enumerate() {
        let first = index * PANEL_ROWS;
        if rows - first < PANEL_ROWS || padded > columns {
            panel.fill(W::zeroed());
        }
        // Row by row, since rows that are a power of two apart fall on few sets of the cache; in strips, which stay there.
        for strip in (0..columns).step_by(STRIP) {
            for row in first..rows.min(first + PANEL_ROWS) {
                let weights = &from[row * stride..][strip..columns.min(strip + STRIP)];
                let to = &mut panel[strip * PANEL_ROWS + (row - first) * group..];
                for (column, weight) in weights.iter().enumerate() {
                    to[column / group * (PANEL_ROWS * group) + column % group] = *weight;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::bf16;

    #[test]
    fn panels_hold_sixteen_rows_side_by_side_and_zeros_behind_the_last() {
        for rows in [1, 15, 16, 17, 40] {
            let (columns, stride) = (3, 5);
            let from: Vec<f32> = (0..rows * stride).map(|at| at as f32 + 1.0).collect();
            let weight = TensorRef::strided(&from, &[rows, columns], &[stride, 1]).unwrap();
            let packed = PackedWeight::new(weight).unwrap();
            let panels = rows.div_ceil(PANEL_ROWS);
            assert_eq!(packed.view().layout().shape(), [panels, columns, PANEL_ROWS]);
            let got: &[f32] = packed.view().as_slice().unwrap();
            for (at, got) in got.iter().enumerate() {
                let (panel, rest) = (at / (columns * PANEL_ROWS), at % (columns * PANEL_ROWS));
                let (column, row) = (rest / PANEL_ROWS, panel * PANEL_ROWS + rest % PANEL_ROWS);
                let want = if row < rows { from[row * stride + column] } else { 0.0 };
                assert_eq!(*got, want, "{rows} rows: row {row}, column {column}");
            }
        }
    }

    #[test]
    fn bf16_lies_in_pairs_and_zeros_behind_the_last_column() {
        let (rows, columns) = (18, 3);
        let from: Vec<bf16> =
            (0..rows * columns).map(|at| bf16::from_f32(at as f32 + 1.0)).collect();
        let weight = TensorRef::new(&from, &[rows, columns]).unwrap();
        let mut packed = vec![bf16::NAN; 2 * 2 * PANEL_ROWS * 2];
        let target = TensorMut::new(&mut packed, &[2, 2, PANEL_ROWS, 2]).unwrap();
        PackedWeight::pack(weight, target).unwrap();
        for (at, got) in packed.iter().enumerate() {
            let (panel, pair, row) = (at / 64, at / 32 % 2, at / 2 % PANEL_ROWS);
            let (row, column) = (panel * PANEL_ROWS + row, 2 * pair + at % 2);
            let is_there = row < rows && column < columns;
            let want = if is_there { from[row * columns + column] } else { bf16::ZERO };
            assert_eq!(*got, want, "row {row}, column {column}");
        }
    }

    #[test]
    fn parts_make_the_same_panels_as_the_whole() {
        let from: Vec<f32> = (0..40 * 7).map(|at| at as f32).collect();
        let weight = |rows: std::ops::Range<usize>| {
            TensorRef::new(&from[rows.start * 7..rows.end * 7], &[rows.len(), 7]).unwrap()
        };
        let whole = PackedWeight::new(weight(0..40)).unwrap();
        let mut parts = vec![f32::NAN; 3 * 7 * PANEL_ROWS];
        let (first, last) = parts.split_at_mut(2 * 7 * PANEL_ROWS);
        PackedWeight::pack(weight(0..32), TensorMut::new(first, &[2, 7, 16]).unwrap()).unwrap();
        PackedWeight::pack(weight(32..40), TensorMut::new(last, &[1, 7, 16]).unwrap()).unwrap();
        assert_eq!(whole.view().as_slice::<f32>(), Some(&parts[..]));
    }

    #[test]
    fn what_is_no_weight_or_does_not_fit_is_refused() {
        let data = [0f32; 64];
        let problem = |weight, shape: &[usize], strides: &[usize]| {
            let mut packed = vec![0f32; 256];
            let packed = TensorMut::strided(&mut packed, shape, strides).unwrap();
            PackedWeight::pack(weight, packed).err().and_then(|error| error.problem())
        };
        let weight = TensorRef::new(&data, &[17, 3]).unwrap();
        assert_eq!(problem(weight, &[2, 3, 16], &[48, 16, 1]), None);
        assert_eq!(problem(weight, &[1, 3, 16], &[48, 16, 1]), Some(Problem::Shape));
        assert_eq!(problem(weight, &[2, 3, 16], &[96, 16, 1]), Some(Problem::Stride));
        let weight = TensorRef::new(&data, &[2, 2, 3]).unwrap();
        assert_eq!(PackedWeight::new(weight).unwrap_err().problem(), Some(Problem::Shape));
        let weight = TensorRef::strided(&data, &[2, 3], &[1, 2]).unwrap();
        assert_eq!(PackedWeight::new(weight).unwrap_err().problem(), Some(Problem::Stride));
        let weight = TensorRef::new(&[1u32; 6], &[2, 3]).unwrap();
        assert_eq!(PackedWeight::new(weight).unwrap_err().problem(), Some(Problem::DType));
    }

    #[test]
    fn empty_weights_have_empty_panels() {
        for shape in [[0, 3], [3, 0], [0, 0]] {
            let packed = PackedWeight::new(TensorRef::new::<f32>(&[], &shape).unwrap()).unwrap();
            assert_eq!(packed.view().layout().elements(), 0);
        }
    }
}
