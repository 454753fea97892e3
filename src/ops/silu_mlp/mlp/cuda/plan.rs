//! From an MLP's tensors to its launches and the layout of its workspace.

use super::geometry::Geometry;
use super::strategy::{Choice, Half};
use crate::backend::cuda::Cuda;
use crate::backend::cuda::binder::is_vectorisable;
use crate::backend::cuda::launch::{CudaPlan, Launch};
use crate::error::{Backend, Error};
use crate::layout::Layout;
use crate::ops::silu_mlp::mlp::config::{First, MlpConfig, MlpTensors, scratch_stride};

/// Which tensors start all their rows on multiples of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    pub x: bool,
    pub norm_weight: bool,
    /// The first half's weights.
    pub first_weights: bool,
    pub down_weight: bool,
}

impl Alignment {
    /// For tensors that start on multiples of 16 bytes, or for those that do not.
    pub fn of_layouts(args: &MlpTensors<Layout, Layout>, aligned: bool) -> Alignment {
        let address = if aligned { 0 } else { 1 };
        let check = |layout: &Layout| is_vectorisable(address, layout);
        let check_optional = |layout: &Option<Layout>| layout.as_ref().is_none_or(check);
        Alignment {
            x: check(&args.x),
            norm_weight: check_optional(&args.norm_weight),
            first_weights: check_optional(&args.up_weight) && check_optional(&args.gate_weight),
            down_weight: check(&args.down_weight),
        }
    }
}

/// Everything about a call except its pointers.
#[derive(Clone, Copy, Debug)]
pub(super) struct MlpPlan {
    /// Before the first half, unless that makes `n` by itself.
    pub prepare: Option<Launch>,
    /// Absent if there are no neurons.
    pub first: Option<Launch>,
    pub second: Launch,
    pub reduce: Option<Launch>,
    pub x_tile: usize,
    pub splits: usize,
    /// The kernels of both halves; the first half's means nothing where that is absent.
    pub first_choice: Choice,
    pub second_choice: Choice,
    /// Whether the first half's inputs, and `h` with the down weights, may be read 16 bytes at a time.
    pub first_vectorised: bool,
    pub second_vectorised: bool,
    pub scratch: Scratch,
}

/// Byte offsets in the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scratch {
    pub h: usize,
    pub n: usize,
    pub partials: usize,
    pub bytes: usize,
}

impl MlpPlan {
    /// The launches for at least one row.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names what the kernel or the device lacks.
    pub fn new(
        cuda: &Cuda,
        op: &MlpConfig,
        rows: usize,
        alignment: Alignment,
    ) -> Result<MlpPlan, Error> {
        let (device, dispatch) = (cuda.capabilities(), &cuda.options().mlp);
        let geometry = Geometry { op, rows, device };
        geometry.check_dimensions()?;
        let has_first = op.first != First::Absent;
        // Where something comes before the product, kernels other than the GEMV of the first half read `n` from
        // the workspace instead of `x`.
        let n_vectorised = op.prepares() || alignment.x;
        let h_vectorised = has_first || n_vectorised;
        let half = |depth, wgmma_tiles, vectorised| Half {
            rows,
            depth,
            activation: op.activation_dtype,
            weight: op.weight_dtype,
            wgmma_tiles,
            batch_invariant: op.batch_invariant,
            vectorised,
        };
        let first_vectorised = alignment.first_weights && n_vectorised;
        let first = half(op.inputs, geometry.first_wgmma_tiles(), first_vectorised);
        let second_vectorised = alignment.down_weight && h_vectorised;
        let second = half(op.depth(), geometry.second_wgmma_tiles(), second_vectorised);
        let choose = |half: Half| {
            half.choose(device, dispatch).map_err(|missing| Error::Unsupported {
                op: op.op,
                backend: Backend::Cuda,
                reason: format!("the kernel forced by CudaOptions needs {missing}"),
                remedy: "leave the choice to the crate".into(),
            })
        };
        let (first, second) = (choose(first)?, choose(second)?);
        let prepares_itself = has_first && first == Choice::Gemv;
        let splits = geometry.splits(second);
        let prepares = op.depth() > 0 && op.prepares() && !prepares_itself;
        Ok(MlpPlan {
            prepare: prepares.then(|| geometry.prepare()).transpose()?,
            first: (op.neurons() > 0).then(|| geometry.first(first)).transpose()?,
            second: geometry.second(second)?,
            reduce: (splits > 1).then(|| geometry.reduce()).transpose()?,
            x_tile: geometry.x_tile(),
            splits,
            first_choice: first,
            second_choice: second,
            first_vectorised: alignment.first_weights && alignment.x && alignment.norm_weight,
            second_vectorised,
            scratch: Scratch::new(op, rows, prepares, splits),
        })
    }

    /// The launches alone.
    pub fn launches(&self) -> CudaPlan {
        let mut plan = CudaPlan::default();
        [self.prepare, self.first, Some(self.second), self.reduce]
            .into_iter()
            .flatten()
            .for_each(|launch| plan.push(launch));
        plan
    }
}

impl Scratch {
    fn new(op: &MlpConfig, rows: usize, prepares: bool, splits: usize) -> Scratch {
        /// Every part starts where 16-byte loads, and TMA, may start.
        const ALIGNMENT: usize = 256;
        let part = |elements: usize, size: usize| (elements * size).next_multiple_of(ALIGNMENT);
        let size = op.activation_dtype.size();
        let n = part(rows * scratch_stride(op.neurons()), size);
        let partials = n + if prepares { part(rows * scratch_stride(op.inputs), size) } else { 0 };
        let partial_sums = if splits > 1 { splits * rows * op.outputs } else { 0 };
        Scratch { h: 0, n, partials, bytes: partials + part(partial_sums, size_of::<f32>()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn scratch_fits_what_the_descriptor_asks_for() {
        for dtype in DType::FLOATS {
            for (rows, hidden, ffn) in
                [(1, 1, 0), (1, 1, 1), (3, 33, 70), (65, 64, 4096), (130, 9, 2)]
            {
                for norm in [false, true] {
                    let mut op =
                        MlpConfig::new("gated_mlp", First::Gated, hidden, ffn, dtype).unwrap();
                    if norm {
                        op = op.with_norm(1e-5).unwrap();
                    }
                    let scratch = Scratch::new(&op, rows, norm, op.down_splits(rows));
                    assert!(scratch.bytes <= op.workspace_bytes(rows), "{op:?} {rows}");
                    assert!(scratch.n >= rows * ffn * dtype.size());
                    assert!(!norm || scratch.partials - scratch.n >= rows * hidden * dtype.size());
                }
            }
        }
    }
}
