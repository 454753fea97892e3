//! `feature_attention` on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{FeatureAttention, FeatureAttentionArgs, LOCAL_STATE};
use crate::backend::cuda::binder::Binder;
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::feature_attention::cuda_parameters::FeatureAttentionParams;
use crate::ops::silu_mlp::cuda_parameters::dtype_code;

/// Threads of a block.
const THREADS: usize = 512;
/// What a thread reads at a time, in bytes.
const CHUNK_BYTES: usize = 16;

impl Cuda {
    /// Enqueues [`FeatureAttention`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn feature_attention(
        &self,
        stream: &Arc<CudaStream>,
        op: &FeatureAttention,
        mut args: FeatureAttentionArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        mut workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let Some(geometry) = geometry(op, &layouts, self.capabilities())? else { return Ok(()) };
        let mut binder = Binder::new(self, FeatureAttention::NAME, stream)?;
        let x = binder.input("x", &args.x)?;
        let w1 = binder.input("w1", &args.w1)?;
        let w2 = binder.input("w2", &args.w2)?;
        let b1 = binder.optional_input("b1", &args.b1)?;
        let b2 = binder.optional_input("b2", &args.b2)?;
        let lengths = binder.optional_input("lengths", &args.lengths)?;
        let out = binder.output("out", &mut args.out)?;
        let bytes = op.workspace_bytes(&layouts);
        let workspace = match geometry.state {
            State::Workspace => Some(binder.workspace(&mut workspace, bytes)?),
            State::Shared { .. } => None,
        };
        binder.finish()?;
        let function = self.function(FeatureAttention::NAME, stream, &geometry.launch)?;
        let parameters = FeatureAttentionParams {
            x: ReadPointer(x.address()),
            w1: ReadPointer(w1.address()),
            w2: ReadPointer(w2.address()),
            b1: ReadPointer(b1.address()),
            b2: ReadPointer(b2.address()),
            lengths: ReadPointer(lengths.address()),
            out: WritePointer(out.address()),
            workspace: WritePointer(workspace.as_ref().map_or(0, |workspace| workspace.address())),
            x_text_stride: text_stride(&layouts.x),
            x_row_stride: x.row_stride(),
            out_text_stride: text_stride(&layouts.out),
            out_row_stride: out.row_stride(),
            w1_row_stride: w1.row_stride(),
            w2_row_stride: w2.row_stride(),
            tokens: layouts.x.shape()[1] as i32,
            features: op.features as i32,
            reduced: op.reduced as i32,
            groups: geometry.groups as i32,
            staged: i32::from(matches!(geometry.state, State::Shared { staged: true })),
            tanh: i32::from(op.tanh),
            x_vectorised: i32::from(x.is_vectorisable()),
            out_vectorised: i32::from(layouts.out.dtype() == op.dtype && out.is_vectorisable()),
            w1_vectorised: i32::from(w1.is_vectorisable()),
            w2_vectorised: i32::from(w2.is_vectorisable()),
            out_dtype: dtype_code(layouts.out.dtype()),
        };
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder alignment and that `out` and the workspace
        // overlap nothing; `geometry` follows the kernel's contract, and the kernel clamps lengths.
        unsafe { self.launch(stream, &function, &geometry.launch, &parameters, false) }
    }
}

/// Elements between texts; of no meaning where there are no two.
fn text_stride(layout: &Layout) -> i64 {
    i64::try_from(layout.strides()[0]).unwrap_or(0)
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &FeatureAttention,
    layouts: &FeatureAttentionArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    if let Some(geometry) = geometry(op, layouts, cuda.capabilities())? {
        plan.push(geometry.launch);
    }
    Ok(plan)
}

/// A block a text, and where it keeps what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Geometry {
    launch: Launch,
    /// Groups of tokens that are summed apart: a function of the features alone.
    groups: usize,
    state: State,
}

/// Where a text's sums lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In shared memory, with a copy of the text behind them if it fits.
    Shared { staged: bool },
    /// In the workspace, since they are too large.
    Workspace,
}

/// `None` if there is nothing to do.
fn geometry(
    op: &FeatureAttention,
    layouts: &FeatureAttentionArgs<Layout, Layout>,
    device: &CudaCapabilities,
) -> Result<Option<Geometry>, Error> {
    if layouts.out.elements() == 0 {
        return Ok(None);
    }
    let tokens = layouts.x.shape()[1];
    let chunks = op.features.div_ceil(CHUNK_BYTES / op.dtype.size());
    let groups = groups(op, chunks);
    let limit = device.shared_memory_per_block as usize;
    let state_bytes = (4 * op.state_elements(groups)).next_multiple_of(CHUNK_BYTES);
    let text_bytes = tokens.saturating_mul(chunks * CHUNK_BYTES);
    let (state, shared) = if state_bytes > limit {
        (State::Workspace, 0)
    } else if state_bytes.saturating_add(text_bytes) <= limit {
        (State::Shared { staged: true }, state_bytes + text_bytes)
    } else {
        (State::Shared { staged: false }, state_bytes)
    };
    let kernel = Kernel {
        source: "feature_attention/feature_attention",
        name: FeatureAttention::NAME,
        activation: op.dtype,
        weight: op.weight_dtype,
    };
    let grid = [layouts.x.shape()[0], 1, 1];
    let launch = Launch::new(FeatureAttention::NAME, kernel, grid, THREADS as u32, shared, device)?;
    Ok(Some(Geometry { launch, groups, state }))
}

/// As many groups as keep every thread busy, 32 at most since one thread adds their sums up, and 1 where the state might
/// lie in a workspace, which is sized for one.
fn groups(op: &FeatureAttention, chunks: usize) -> usize {
    const MOST: usize = 32;
    if op.state_elements(1) > LOCAL_STATE {
        return 1;
    }
    (THREADS / chunks).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn state(shape: [usize; 4], dtype: DType, device: (u32, u32)) -> Option<(usize, State)> {
        let [batch, tokens, features, reduced] = shape;
        let op = FeatureAttention::new(features, reduced, dtype).unwrap();
        let layout = |shape: &[usize]| Layout::contiguous(dtype, shape).unwrap();
        let x = layout(&[batch, tokens, features]);
        let (w1, w2) = (layout(&[reduced, features]), layout(&[features, reduced]));
        let layouts = FeatureAttentionArgs::new(x, w1, w2, x);
        let device = CudaCapabilities::test_device(device.0, device.1);
        let geometry = geometry(&op, &layouts, &device).unwrap()?;
        assert!(geometry.launch.shared_bytes <= device.shared_memory_per_block);
        Some((geometry.groups, geometry.state))
    }

    #[test]
    fn texts_are_staged_where_they_fit() {
        let staged = |staged| State::Shared { staged };
        // 120,000 bytes of text.
        let usual = [32, 50, 600, 60];
        assert_eq!(state(usual, DType::F32, (9, 0)), Some((3, staged(true))));
        assert_eq!(state(usual, DType::F32, (8, 0)), Some((3, staged(true))));
        assert_eq!(state(usual, DType::F32, (8, 6)), Some((3, staged(false))));
        assert_eq!(state(usual, DType::BF16, (8, 6)), Some((6, staged(true))));
        assert_eq!(state([256, 128, 600, 60], DType::F32, (9, 0)), Some((3, staged(false))));
        assert_eq!(
            state([1, usize::MAX >> 40, 1, 1], DType::F16, (9, 0)),
            Some((32, staged(false)))
        );
    }

    #[test]
    fn large_states_lie_in_the_workspace_and_empty_texts_nowhere() {
        assert_eq!(state([1, 2, 60_000, 60], DType::F32, (9, 0)), Some((1, State::Workspace)));
        let staged = State::Shared { staged: true };
        assert_eq!(state([1, 2, 10_000, 60], DType::F32, (9, 0)), Some((1, staged)));
        assert_eq!(state([0, 2, 8, 1], DType::F32, (9, 0)), None);
        assert_eq!(state([2, 0, 8, 1], DType::F32, (9, 0)), None);
    }
}
