//! `verify_greedy`: how much of each draft the target agrees with.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
mod wgpu;

use super::verification::{Batch, MAX_DRAFT, common, max_draft};
use crate::arguments::arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::silu_mlp::mlp::config::input;
use crate::ops::traffic::traffic;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`VerifyGreedy`]; `B` sequences with `N` drafts in all, of which none has more than `S`.
    pub struct VerifyGreedyArgs {
        /// `[N]`: the drafts of all sequences, one behind the other; -1 is never accepted.
        input draft: integer,
        /// `[B + 1]`: where each sequence's drafts begin, and where the last one's end.
        input offsets: index,
        /// `[N + B]`: the model's tokens; sequence `b` has one more than drafts, from `offsets[b] + b` on. A negative one
        /// says that the row has no token.
        input target: integer,
        /// `[K]`: tokens that end a sequence.
        optional_input stop_ids: integer,
        /// `[B]`: how many tokens each sequence may still emit; none if negative.
        optional_input budget: integer,
        /// `[B, S + 1]`: the tokens emitted, then -1.
        optional_output tokens: integer,
        /// `[B]`: how many of them are drafts.
        optional_output accepted: integer,
        /// `[B]`: how many there are.
        optional_output emitted: integer,
        /// `[B]`: the last of them, or -1: what the next draft begins with.
        optional_output next_token: integer,
        /// `[B]`: the row of `target` that gave it, or -1.
        optional_output last_row: integer,
        /// `[B]`: why the sequence ends, as [`Finish`](super::Finish).
        optional_output finish: integer,
    }
}

/// Accepts the longest prefix of each draft that the model itself would have chosen, and adds the model's next token:
/// with `n` the number of leading `draft[i] == target[i]`, the tokens `draft[..n]` and `target[n]`.
///
/// `target` may be [`ExitHead`](super::ExitHead)'s `token`, or its `sampled_token`: with the seed and positions that
/// plain decoding would use, what is emitted is then token for token what plain decoding samples, and no logit has been
/// written anywhere.
///
/// What is emitted is cut behind the first stop id, and where the budget ends; counts, `next_token` and `last_row` are
/// those of what is left. A sequence whose offsets descend, reach beyond the drafts or are more than `S` apart is refused
/// on the host; on a device it has [`Finish::InvalidSequence`](super::Finish::InvalidSequence) and emits nothing.
///
/// Source: LayerSkip (arXiv 2404.16710), section 4.3; speculative decoding (arXiv 2211.17192).
///
/// ```
/// use siluette::{Cpu, TensorMut, TensorRef, VerifyGreedy, VerifyGreedyArgs};
/// let draft = TensorRef::new(&[5, 6, 7, 9, 9], &[5])?;
/// let offsets = TensorRef::new(&[0u32, 3, 5], &[3])?;
/// let target = TensorRef::new(&[5, 6, 8, 1, 3, 1, 2], &[7])?;
/// let (mut tokens, mut emitted) = ([0; 8], [0; 2]);
/// let args = VerifyGreedyArgs::new(draft, offsets, target)
///     .tokens(TensorMut::new(&mut tokens, &[2, 4])?)
///     .emitted(TensorMut::new(&mut emitted, &[2])?);
/// Cpu::new().verify_greedy(&VerifyGreedy::new(3)?, args)?;
/// assert_eq!(emitted, [3, 1]);
/// assert_eq!(tokens, [5, 6, 8, -1, 3, -1, -1, -1]);
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VerifyGreedy {
    max_draft: usize,
}

impl VerifyGreedy {
    /// Verifies drafts of up to `max_draft` tokens, `S` above.
    ///
    /// # Errors
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 2.
    pub fn new(max_draft: usize) -> Result<VerifyGreedy, Error> {
        let check = Validator::new(Self::NAME);
        check.dimension(MAX_DRAFT.name, max_draft.saturating_add(1), 0)?;
        Ok(VerifyGreedy { max_draft })
    }

    /// The longest draft.
    pub fn max_draft(&self) -> usize {
        self.max_draft
    }

    fn batch<In, Out>(&self, args: &VerifyGreedyArgs<In, Out>) -> Result<Batch, Error>
    where
        In: crate::HasLayout,
    {
        Batch::new(Self::NAME, self.max_draft, &args.draft.layout(), &args.offsets.layout())
    }
}

impl Operation for VerifyGreedy {
    const NAME: &'static str = "verify_greedy";
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str =
        "the prefix of each draft that equals the target, and the target's next token";
    const PARAMETERS: &'static [ParameterInfo] = &[MAX_DRAFT];

    type Args<In, Out> = VerifyGreedyArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let draft = input(Self::NAME, inputs, "draft")?;
        VerifyGreedy::new(max_draft(Self::NAME, parameters, &draft)?)
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let [draft, offsets] = ["draft", "offsets"].map(|name| input(Self::NAME, inputs, name));
        Batch::new(Self::NAME, self.max_draft, &draft?, &offsets?)?.outputs()
    }

    fn validate(&self, args: &VerifyGreedyArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let batch = self.batch(args)?;
        let rows = "a token for each draft, and one more for each sequence";
        check.tensor("target", &args.target, DType::I32, &[batch.rows()], rows)?;
        batch.validate(&check, &common!(args))
    }

    fn validate_values(&self, args: &VerifyGreedyArgs<TensorRef<'_>, Layout>) -> Result<(), Error> {
        self.batch(args)?.validate_values(Self::NAME, &common!(args))
    }

    fn cost(&self, args: &VerifyGreedyArgs<Layout, Layout>) -> Cost {
        traffic(*args)
    }

    fn workspace_bytes(&self, _args: &VerifyGreedyArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: VerifyGreedyArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        self.validate(&args.layouts())?;
        self.validate_values(&args.inputs())?;
        reference::verify_greedy(args);
        Ok(())
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: VerifyGreedyArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.verify_greedy(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: VerifyGreedyArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_verify_greedy(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: VerifyGreedyArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.verify_greedy(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &VerifyGreedyArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
