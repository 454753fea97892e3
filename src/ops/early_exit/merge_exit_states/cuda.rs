//! `merge_exit_states` on CUDA, by the contract in `kernels/early_exit/exit_merge.cu`.
#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{MergeExitStates, MergeExitStatesArgs};
use crate::backend::cuda::binder::{Binder, Pointer};
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities, CudaTensor, CudaTensorMut};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::early_exit::cuda_parameters::ExitMergeParams;

/// Pointers of the results: a macro, since a head's argument struct has these fields as well.
macro_rules! bind_results {
    ($binder:ident, $args:ident) => {
        $crate::ops::early_exit::merge_exit_states::cuda::Results {
            token: $binder.optional_output("token", &mut $args.token)?,
            max_logit: $binder.optional_output("max_logit", &mut $args.max_logit)?,
            second_logit: $binder.optional_output("second_logit", &mut $args.second_logit)?,
            log_sum_exp: $binder.optional_output("log_sum_exp", &mut $args.log_sum_exp)?,
            entropy: $binder.optional_output("entropy", &mut $args.entropy)?,
            top_tokens: $binder.optional_output("top_tokens", &mut $args.top_tokens)?,
            top_logits: $binder.optional_output("top_logits", &mut $args.top_logits)?,
            gathered_logit: $binder.optional_output("gathered_logit", &mut $args.gathered_logit)?,
            sampled_token: $binder.optional_output("sampled_token", &mut $args.sampled_token)?,
        }
    };
}
pub(in crate::ops::early_exit) use bind_results;

impl Cuda {
    /// Enqueues [`MergeExitStates`] on the caller's stream, one launch.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn merge_exit_states(
        &self,
        stream: &Arc<CudaStream>,
        op: &MergeExitStates,
        mut args: MergeExitStatesArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let rows = layouts.state_values.shape()[1];
        if rows == 0 {
            return Ok(());
        }
        let mut binder = Binder::new(self, op.op, stream)?;
        let state_values = binder.input("state_values", &args.state_values)?;
        let state_tokens = binder.input("state_tokens", &args.state_tokens)?;
        let results = bind_results!(binder, args);
        binder.finish()?;
        let call = Call {
            top_k: op.top_k,
            layouts: [layouts.state_values, layouts.state_tokens],
            state_values: state_values.address(),
            state_tokens: state_tokens.address(),
            results: &results,
        };
        let launch = launch(op.op, rows, self.capabilities())?;
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder that the outputs overlap nothing.
        unsafe { call.enqueue(self, stream, op.op, &launch, false) }
    }
}

/// Pointers of what is written, 0 for what is not wanted.
pub(in crate::ops::early_exit) struct Results<'a> {
    pub token: Pointer<'a>,
    pub max_logit: Pointer<'a>,
    pub second_logit: Pointer<'a>,
    pub log_sum_exp: Pointer<'a>,
    pub entropy: Pointer<'a>,
    pub top_tokens: Pointer<'a>,
    pub top_logits: Pointer<'a>,
    pub gathered_logit: Pointer<'a>,
    pub sampled_token: Pointer<'a>,
}

/// From states to results.
pub(in crate::ops::early_exit) struct Call<'a> {
    pub top_k: usize,
    /// Of `state_values` and `state_tokens`.
    pub layouts: [Layout; 2],
    pub state_values: u64,
    pub state_tokens: u64,
    pub results: &'a Results<'a>,
}

impl Call<'_> {
    /// `follows` as in [`Cuda::launch`].
    ///
    /// # Safety
    /// The addresses are of validated tensors in the stream's context; `launch` is for their rows.
    pub unsafe fn enqueue(
        &self,
        cuda: &Cuda,
        stream: &Arc<CudaStream>,
        op: &'static str,
        launch: &Launch,
        follows: bool,
    ) -> Result<(), Error> {
        let function = cuda.function(op, stream, launch)?;
        let write = |pointer: &Pointer<'_>| WritePointer(pointer.address());
        let results = self.results;
        let [values, tokens] =
            self.layouts.map(|layout| [layout.strides()[0] as i64, layout.strides()[1] as i64]);
        let parameters = ExitMergeParams {
            state_values: ReadPointer(self.state_values),
            state_tokens: ReadPointer(self.state_tokens),
            token: write(&results.token),
            max_logit: write(&results.max_logit),
            second_logit: write(&results.second_logit),
            log_sum_exp: write(&results.log_sum_exp),
            entropy: write(&results.entropy),
            top_tokens: write(&results.top_tokens),
            top_logits: write(&results.top_logits),
            gathered_logit: write(&results.gathered_logit),
            sampled_token: write(&results.sampled_token),
            values_tile_stride: values[0],
            values_row_stride: values[1],
            tokens_tile_stride: tokens[0],
            tokens_row_stride: tokens[1],
            top_tokens_row_stride: results.top_tokens.row_stride(),
            top_logits_row_stride: results.top_logits.row_stride(),
            tiles: self.layouts[0].shape()[0] as i32,
            top_k: self.top_k as i32,
        };
        // SAFETY: the caller's promise.
        unsafe { cuda.launch(stream, &function, launch, &parameters, follows) }
    }
}

/// A block a row.
pub(in crate::ops::early_exit) fn launch(
    op: &'static str,
    rows: usize,
    device: &CudaCapabilities,
) -> Result<Launch, Error> {
    const THREADS: u32 = 128;
    let kernel = Kernel {
        source: "early_exit/exit_merge",
        name: "exit_merge",
        activation: DType::F32,
        weight: DType::F32,
    };
    Launch::new(op, kernel, [rows, 1, 1], THREADS, 0, device)
}

/// The launch for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &MergeExitStates,
    layouts: &MergeExitStatesArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let mut plan = CudaPlan::default();
    let rows = layouts.state_values.shape()[1];
    if rows > 0 {
        plan.push(launch(op.op, rows, cuda.capabilities())?);
    }
    Ok(plan)
}
