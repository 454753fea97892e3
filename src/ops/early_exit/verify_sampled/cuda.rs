//! `verify_sampled` on CUDA, by the contract in `kernels/early_exit/verify_sampled.cu`.
#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{FilterOrder, SampledMode, SampledValues, VerifySampled, VerifySampledArgs};
use crate::backend::cuda::binder::{Binder, Pointer};
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::early_exit::cuda_parameters::{VerificationParams, VerifySampledParams};
use crate::ops::early_exit::verification::cuda::BoundBatch;
use crate::ops::early_exit::verification::{Batch, common};

impl Cuda {
    /// Enqueues [`VerifySampled`] on the caller's stream: one launch, behind a memset of 4 bytes a sequence.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn verify_sampled(
        &self,
        stream: &Arc<CudaStream>,
        op: &VerifySampled,
        args: VerifySampledArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        mut workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let batch = op.batch(&layouts.draft, &layouts.offsets)?;
        if batch.sequences == 0 {
            return Ok(());
        }
        let launch = launch(op, &batch, self.capabilities())?;
        let rows = Rows {
            target: args.target,
            draft_distribution: args.draft_distribution,
            uniforms: args.uniforms,
            seeds: args.seeds,
            vectors: [args.temperature, args.top_k, args.top_p, args.min_p, args.positions],
        };
        let mut common = common!(args);
        let mut binder = Binder::new(self, VerifySampled::NAME, stream)?;
        let inputs = rows.bind(&mut binder)?;
        let bound = BoundBatch::new(&mut binder, &mut common)?;
        let scratch = binder.workspace(&mut workspace, op.workspace_bytes(&layouts))?;
        binder.finish()?;
        let function = self.function(VerifySampled::NAME, stream, &launch)?;
        let arrivals = scratch.address() + 4 * op.scratch(batch.sequences).profiles() as u64;
        let scratch = [scratch.address(), arrivals].map(WritePointer);
        let parameters = inputs.parameters(op, bound.parameters(&batch), scratch);
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder that outputs overlap nothing, and the workspace
        // has room for every profile and, behind them, a counter a sequence; the kernel checks offsets and ids itself.
        unsafe {
            // Here and not by the kernel that counted: one that was aborted would leave its counts to the next.
            self.clear(stream, arrivals, 4 * batch.sequences)?;
            self.launch(stream, &function, &launch, &parameters, false)
        }
    }
}

/// The inputs that no other verification has.
struct Rows<'t> {
    target: CudaTensor<'t>,
    draft_distribution: Option<CudaTensor<'t>>,
    uniforms: Option<CudaTensor<'t>>,
    seeds: Option<CudaTensor<'t>>,
    /// Temperature, top_k, top_p, min_p, positions.
    vectors: [Option<CudaTensor<'t>>; 5],
}

/// Their pointers, to be kept until the launch is enqueued.
struct BoundRows<'t> {
    target: Pointer<'t>,
    draft_distribution: Pointer<'t>,
    uniforms: Pointer<'t>,
    seeds: Pointer<'t>,
    vectors: [Pointer<'t>; 5],
}

impl Rows<'_> {
    fn bind<'t, 's: 't>(&'t self, binder: &mut Binder<'s>) -> Result<BoundRows<'t>, Error> {
        let [temperature, top_k, top_p, min_p, positions] = &self.vectors;
        let q = &self.draft_distribution;
        Ok(BoundRows {
            target: binder.input("target", &self.target)?,
            draft_distribution: binder.optional_input("draft_distribution", q)?,
            uniforms: binder.optional_input("uniforms", &self.uniforms)?,
            seeds: binder.optional_input("seeds", &self.seeds)?,
            vectors: [
                binder.optional_input("temperature", temperature)?,
                binder.optional_input("top_k", top_k)?,
                binder.optional_input("top_p", top_p)?,
                binder.optional_input("min_p", min_p)?,
                binder.optional_input("positions", positions)?,
            ],
        })
    }
}

impl BoundRows<'_> {
    fn parameters(
        &self,
        op: &VerifySampled,
        batch: VerificationParams,
        [profiles, arrivals]: [WritePointer; 2],
    ) -> VerifySampledParams {
        let read = |pointer: &Pointer<'_>| ReadPointer(pointer.address());
        let [temperature, top_k, top_p, min_p, positions] = self.vectors.each_ref().map(read);
        VerifySampledParams {
            batch,
            target: read(&self.target),
            draft_distribution: read(&self.draft_distribution),
            temperature,
            top_k,
            top_p,
            min_p,
            uniforms: read(&self.uniforms),
            positions,
            seeds: read(&self.seeds),
            profiles,
            arrivals,
            target_row_stride: self.target.row_stride(),
            draft_row_stride: self.draft_distribution.row_stride(),
            uniforms_row_stride: self.uniforms.row_stride(),
            seeds_row_stride: self.seeds.row_stride(),
            valid: op.valid_vocab as i32,
            mode: match op.mode {
                SampledMode::Match => 0,
                SampledMode::OneHot => 1,
                SampledMode::Full => 2,
                SampledMode::Block => 3,
            },
            is_logits: i32::from(op.values == SampledValues::Logits),
            is_sequential: i32::from(op.filter == FilterOrder::Sequential),
            target_vectorised: i32::from(self.target.is_vectorisable()),
            draft_vectorised: i32::from(self.draft_distribution.is_vectorisable()),
            seed_low: op.seed as u32 as i32,
            seed_high: (op.seed >> 32) as u32 as i32,
            sum_tolerance: op.sum_tolerance(),
        }
    }
}

/// A block a row, as many as if every sequence had the longest draft.
fn launch(op: &VerifySampled, batch: &Batch, device: &CudaCapabilities) -> Result<Launch, Error> {
    const THREADS: u32 = 512;
    let kernel = Kernel {
        source: "early_exit/verify_sampled",
        name: "verify_sampled",
        activation: op.dtype,
        weight: op.dtype,
    };
    let sides = if op.needs_draft_distribution() { 2 } else { 1 };
    let blocks = op.scratch(batch.sequences).slots.saturating_mul(sides);
    Launch::new(VerifySampled::NAME, kernel, [blocks, 1, 1], THREADS, 0, device)
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &VerifySampled,
    layouts: &VerifySampledArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    let batch = op.batch(&layouts.draft, &layouts.offsets)?;
    if batch.sequences > 0 {
        plan.push(launch(op, &batch, cuda.capabilities())?);
    }
    Ok(plan)
}
