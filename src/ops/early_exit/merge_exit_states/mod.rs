//! `merge_exit_states`: results of a head from the states of its vocabulary's tiles.

pub(super) mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
pub(super) mod wgpu;

use crate::arguments::{Arguments as _, arguments};
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::early_exit::config::check_top_k;
use crate::ops::early_exit::state;
use crate::ops::silu_mlp::mlp::config::input;
use crate::ops::traffic::traffic;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`MergeExitStates`]; `M` rows.
    pub struct MergeExitStatesArgs {
        /// `[tiles, M, 6 + top_k]`, f32: those of every shard, one behind the other along the first dimension.
        input state_values,
        /// `[tiles, M, 2 + top_k]`: likewise.
        input state_tokens: integer,
        /// `[M]`: the id of the largest logit, of equal ones the lowest.
        optional_output token: integer,
        /// `[M]`, f32: the largest logit.
        optional_output max_logit,
        /// `[M]`, f32: the second largest logit; the largest if it occurs twice.
        optional_output second_logit,
        /// `[M]`, f32: `ln sum exp(logits)`.
        optional_output log_sum_exp,
        /// `[M]`, f32: entropy of `softmax(logits)` in nats.
        optional_output entropy,
        /// `[M, top_k]`: ids of the largest logits, descending, of equal ones the lower id first; -1 where there are no
        /// more.
        optional_output top_tokens: integer,
        /// `[M, top_k]`, f32: their logits; `-inf` where there are no more.
        optional_output top_logits,
        /// `[M]`, f32: the logits of `gather_tokens`; `-inf` if the states are of none.
        optional_output gathered_logit,
        /// `[M]`: the sampled ids; -1 if the states are without positions.
        optional_output sampled_token: integer,
    }
}

/// [`ExitHead`](super::ExitHead)'s results from the states of every tile of the vocabulary, in ascending order of ids.
///
/// Of states that [`ExitHeadStates`](super::ExitHeadStates) computed on the same backend, it gives the same bits as
/// [`ExitHead`](super::ExitHead) of the whole vocabulary. No tiles at all give rows without a token.
///
/// Source: the mergeable softmax of Milakov and Gimelshein (arXiv 1805.02867), with the entropy's sum as a third term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MergeExitStates {
    op: &'static str,
    top_k: usize,
}

impl MergeExitStates {
    /// Merges states with lists of `top_k` best tokens.
    ///
    /// # Errors
    /// [`Problem::Value`] above [`MAX_TOP_K`](super::MAX_TOP_K).
    pub fn new(top_k: usize) -> Result<MergeExitStates, Error> {
        check_top_k(Self::NAME, top_k)?;
        Ok(MergeExitStates::of_head(Self::NAME, top_k))
    }

    /// The second half of a head, which errors name.
    pub(super) fn of_head(op: &'static str, top_k: usize) -> MergeExitStates {
        MergeExitStates { op, top_k }
    }

    /// Length of the lists of best tokens.
    pub fn top_k(&self) -> usize {
        self.top_k
    }
}

/// The layouts, without gaps, of every output.
pub(super) fn output_layouts(rows: usize, top_k: usize) -> Result<NamedLayouts, Error> {
    let of_rows = |dtype| Layout::contiguous(dtype, &[rows]);
    let mut outputs = NamedLayouts::new();
    for name in ["max_logit", "second_logit", "log_sum_exp", "entropy", "gathered_logit"] {
        outputs.insert(name.to_owned(), of_rows(DType::F32)?);
    }
    for name in ["token", "sampled_token"] {
        outputs.insert(name.to_owned(), of_rows(DType::I32)?);
    }
    if top_k > 0 {
        let of_lists = |dtype| Layout::contiguous(dtype, &[rows, top_k]);
        outputs.insert("top_tokens".to_owned(), of_lists(DType::I32)?);
        outputs.insert("top_logits".to_owned(), of_lists(DType::F32)?);
    }
    Ok(outputs)
}

pub(super) fn validate(
    op: &MergeExitStates,
    args: &MergeExitStatesArgs<Layout, Layout>,
) -> Result<(), Error> {
    let check = Validator::new(op.op);
    let &[tiles, rows, _] = args.state_values.shape() else {
        let got = format!("{:?}", args.state_values.shape());
        let (name, problem) = ("state_values", Problem::Shape);
        return Err(Error::argument(op.op, name, problem, state::VALUES, got, ""));
    };
    check.dimension("tiles", tiles, 0)?;
    check.dimension("rows", rows, 0)?;
    let [values, tokens] = state::shapes(tiles, rows, op.top_k);
    check.tensor("state_values", &args.state_values, DType::F32, &values, state::VALUES)?;
    check.tensor("state_tokens", &args.state_tokens, DType::I32, &tokens, state::TOKENS)?;
    let outputs = output_layouts(rows, op.top_k)?;
    let mut result = Ok(());
    (*args).visit(
        |_, _| {},
        |info, layout| {
            let checked = match outputs.get(info.name) {
                Some(wanted) => {
                    check.tensor(info.name, &layout, wanted.dtype(), wanted.shape(), "")
                }
                None => check.presence(info.name, true, false, "it is empty without a top_k"),
            };
            if result.is_ok() {
                result = checked;
            }
        },
    );
    result
}

impl Operation for MergeExitStates {
    const NAME: &'static str = "merge_exit_states";
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str = "exit_head's results from the states of every part";
    const PARAMETERS: &'static [ParameterInfo] = &[];

    type Args<In, Out> = MergeExitStatesArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, _parameters: &Parameters) -> Result<Self, Error> {
        let values = input(Self::NAME, inputs, "state_values")?;
        MergeExitStates::new(values.columns().saturating_sub(state::value::COUNT))
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let values = input(Self::NAME, inputs, "state_values")?;
        output_layouts(values.shape().get(1).copied().unwrap_or(0), self.top_k)
    }

    fn validate(&self, args: &MergeExitStatesArgs<Layout, Layout>) -> Result<(), Error> {
        validate(self, args)
    }

    fn cost(&self, args: &MergeExitStatesArgs<Layout, Layout>) -> Cost {
        traffic(*args)
    }

    fn workspace_bytes(&self, _args: &MergeExitStatesArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: MergeExitStatesArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        self.validate(&args.layouts())?;
        reference::merge(self, args);
        Ok(())
    }

    fn magnitude(&self, args: &MergeExitStatesArgs<TensorRef<'_>, Layout>, name: &str) -> Vec<f64> {
        reference::magnitude(self, args, name)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: MergeExitStatesArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.merge_exit_states(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: MergeExitStatesArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_merge_exit_states(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: MergeExitStatesArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.merge_exit_states(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &MergeExitStatesArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}

impl Cpu {
    /// [`MergeExitStates`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; outputs are then untouched.
    pub fn merge_exit_states(
        &self,
        op: &MergeExitStates,
        args: MergeExitStatesArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        cpu::merge(op.top_k, args);
        Ok(())
    }
}
