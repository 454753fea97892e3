//! `verify_tree`: which path of a tree of drafts the target takes.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod links;
mod reference;
#[cfg(feature = "wgpu")]
mod wgpu;

use super::verification::{Batch, MAX_DRAFT, common, max_draft, walk_words};
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
    /// Tensors of [`VerifyTree`]; `B` sequences with `N` drafts in all, of which none has more than `S`.
    pub struct VerifyTreeArgs {
        /// `[N]`: the drafts of all sequences, one behind the other; -1 is never accepted.
        input draft: integer,
        /// `[B + 1]`: where each sequence's drafts begin, and where the last one's end.
        input offsets: index,
        /// `[N + B]`: the model's tokens; sequence `b` has one more than drafts, from `offsets[b] + b` on. A negative one
        /// says that the row has no token.
        input target: integer,
        /// `[N + B]`: for each row of `target` the draft that is its first child, counted within the sequence, or -1. A
        /// sequence's first row is the root; the one behind that is draft 0's.
        input first_child: integer,
        /// `[N]`: for each draft the next child of the same parent, or -1.
        input next_sibling: integer,
        /// `[K]`: tokens that end a sequence.
        optional_input stop_ids: integer,
        /// `[B]`: how many tokens each sequence may still emit; none if negative.
        optional_input budget: integer,
        /// `[B, S]`: which drafts are emitted, counted within the sequence, then -1.
        output path: integer,
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

/// Follows each tree of drafts from its root for as long as the target's token is a child's, and adds the target's token
/// at the last node: the children of a row are `first_child`, its `next_sibling`, and so on, and of those with the same
/// token the first is taken.
///
/// Drafts lie in topological order: a child, and a next sibling, always behind the draft that names it. So no walk can go
/// in circles, and accepted rows of a cache can move to the front in place. A tree that
/// breaks this is refused on the host; on a device a walk that meets such a link ends the sequence with
/// [`Finish::InvalidSequence`](super::Finish::InvalidSequence), and nothing is emitted.
///
/// Everything else is as in [`VerifyGreedy`](super::VerifyGreedy), which this is for trees that are chains.
///
/// Source: SpecInfer (arXiv 2305.09781), section 4.
///
/// ```
/// use siluette::{Cpu, TensorMut, TensorRef, VerifyTree, VerifyTreeArgs};
/// // Two guesses for the first token, 5 and 6, and below 6 a guess for the second.
/// let draft = TensorRef::new(&[5, 6, 7], &[3])?;
/// let offsets = TensorRef::new(&[0u32, 3], &[2])?;
/// let target = TensorRef::new(&[6, 1, 7, 8], &[4])?;
/// let first_child = TensorRef::new(&[0, -1, 2, -1], &[4])?;
/// let next_sibling = TensorRef::new(&[1, -1, -1], &[3])?;
/// let (mut path, mut tokens) = ([0; 3], [0; 4]);
/// let path_out = TensorMut::new(&mut path, &[1, 3])?;
/// let args = VerifyTreeArgs::new(draft, offsets, target, first_child, next_sibling, path_out)
///     .tokens(TensorMut::new(&mut tokens, &[1, 4])?);
/// Cpu::new().verify_tree(&VerifyTree::new(3)?, args)?;
/// assert_eq!(path, [1, 2, -1]);
/// assert_eq!(tokens, [6, 7, 8, -1]);
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VerifyTree {
    max_draft: usize,
}

impl VerifyTree {
    /// Verifies trees of up to `max_draft` drafts, `S` above.
    ///
    /// # Errors
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 2.
    pub fn new(max_draft: usize) -> Result<VerifyTree, Error> {
        let check = Validator::new(Self::NAME);
        check.dimension(MAX_DRAFT.name, max_draft.saturating_add(1), 0)?;
        Ok(VerifyTree { max_draft })
    }

    /// Drafts of the largest tree.
    pub fn max_draft(&self) -> usize {
        self.max_draft
    }

    fn batch<In, Out>(&self, args: &VerifyTreeArgs<In, Out>) -> Result<Batch, Error>
    where
        In: crate::HasLayout,
    {
        Batch::new(Self::NAME, self.max_draft, &args.draft.layout(), &args.offsets.layout())
    }
}

impl Operation for VerifyTree {
    const NAME: &'static str = "verify_tree";
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str =
        "the path of each tree of drafts that the target takes, and the target's next token";
    const PARAMETERS: &'static [ParameterInfo] = &[MAX_DRAFT];

    type Args<In, Out> = VerifyTreeArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let draft = input(Self::NAME, inputs, "draft")?;
        VerifyTree::new(max_draft(Self::NAME, parameters, &draft)?)
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let [draft, offsets] = ["draft", "offsets"].map(|name| input(Self::NAME, inputs, name));
        let batch = Batch::new(Self::NAME, self.max_draft, &draft?, &offsets?)?;
        let mut outputs = batch.outputs()?;
        let path = Layout::contiguous(DType::I32, &[batch.sequences, self.max_draft])?;
        outputs.insert("path".to_owned(), path);
        Ok(outputs)
    }

    fn validate(&self, args: &VerifyTreeArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let batch = self.batch(args)?;
        let rows = "a token for each draft, and one more for each sequence";
        check.tensor("target", &args.target, DType::I32, &[batch.rows()], rows)?;
        let children = "a draft for each row, or -1";
        check.tensor("first_child", &args.first_child, DType::I32, &[batch.rows()], children)?;
        let siblings = "a draft for each draft, or -1";
        check.tensor("next_sibling", &args.next_sibling, DType::I32, &[batch.drafts], siblings)?;
        let path = [batch.sequences, self.max_draft];
        check.tensor("path", &args.path, DType::I32, &path, "room for every draft of a tree")?;
        batch.validate(&check, &common!(args))
    }

    fn validate_values(&self, args: &VerifyTreeArgs<TensorRef<'_>, Layout>) -> Result<(), Error> {
        self.batch(args)?.validate_values(Self::NAME, &common!(args))?;
        links::check(args)
    }

    fn cost(&self, args: &VerifyTreeArgs<Layout, Layout>) -> Cost {
        traffic(*args)
    }

    /// For the walks, which wgpu stores between launches.
    fn workspace_bytes(&self, args: &VerifyTreeArgs<Layout, Layout>) -> usize {
        self.batch(args).map_or(0, |batch| 4 * batch.sequences * walk_words(self.max_draft))
    }

    fn run_reference(
        &self,
        args: VerifyTreeArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        self.validate(&args.layouts())?;
        self.validate_values(&args.inputs())?;
        reference::verify_tree(args);
        Ok(())
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: VerifyTreeArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.verify_tree(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: VerifyTreeArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_verify_tree(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: VerifyTreeArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.verify_tree(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &VerifyTreeArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
