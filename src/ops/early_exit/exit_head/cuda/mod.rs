//! Heads on CUDA, by the contracts in `kernels/early_exit/exit_prepare.cu`, `exit_states.cu` and `exit_states_wgmma.cu`.
#![allow(unsafe_code, reason = "kernel launches")]

pub(crate) mod strategy;

use std::sync::Arc;

use cudarc::driver::CudaStream;

use self::strategy::{Batch, Launches};
use super::{ExitHead, ExitHeadArgs, ExitHeadStates, ExitHeadStatesArgs};
use crate::backend::cuda::binder::{Binder, Pointer, is_vectorisable};
use crate::backend::cuda::launch::CudaPlan;
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace, wgmma};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::early_exit::config::HeadConfig;
use crate::ops::early_exit::cuda_parameters::{
    ExitPrepareParams, ExitStatesParams, ExitStatesWgmmaParams,
};
use crate::ops::early_exit::merge_exit_states::cuda::{self as merge, bind_results};
use crate::ops::early_exit::state;
use crate::ops::silu_mlp::mlp::config::scratch_stride;

/// Pointers of a head's inputs and of its logits: a macro, since both heads' argument structs have these fields.
macro_rules! bind_inputs {
    ($binder:ident, $args:ident) => {
        Inputs {
            hidden: $binder.input("hidden", &$args.hidden)?,
            head_weight: $binder.input("head_weight", &$args.head_weight)?,
            norm_weight: $binder.optional_input("norm_weight", &$args.norm_weight)?,
            head_bias: $binder.optional_input("head_bias", &$args.head_bias)?,
            rows: $binder.optional_input("rows", &$args.rows)?,
            positions: $binder.optional_input("positions", &$args.positions)?,
            seeds: $binder.optional_input("seeds", &$args.seeds)?,
            gather_tokens: $binder.optional_input("gather_tokens", &$args.gather_tokens)?,
            logits: $binder.optional_output("logits", &mut $args.logits)?,
        }
    };
}

impl Cuda {
    /// Enqueues [`ExitHead`] on the caller's stream: two launches, and one more for a norm.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn exit_head(
        &self,
        stream: &Arc<CudaStream>,
        op: &ExitHead,
        mut args: ExitHeadArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        mut workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.config.validate_results(&layouts)?;
        let config = &op.config;
        let rows = config.output_rows(&layouts.hidden, layouts.rows.as_ref())?;
        if rows == 0 {
            return Ok(());
        }
        let states = state::layouts(config.tiles(), rows, config.top_k)?;
        let mut binder = Binder::new(self, config.op, stream)?;
        let inputs = bind_inputs!(binder, args);
        let results = bind_results!(binder, args);
        let scratch = binder.workspace(&mut workspace, op.workspace_bytes(&layouts))?;
        binder.finish()?;
        let [values_bytes, tokens_bytes] = config.states_bytes(rows).map(|bytes| bytes as u64);
        let call = Call {
            config,
            rows,
            layouts: layouts.states(states[0], states[1], layouts.logits),
            inputs: &inputs,
            state_values: scratch.address(),
            state_tokens: scratch.address() + values_bytes,
            prepared: scratch.address() + values_bytes + tokens_bytes,
        };
        let merged = merge::Call {
            top_k: config.top_k,
            layouts: states,
            state_values: call.state_values,
            state_tokens: call.state_tokens,
            results: &results,
        };
        let merge_launch = merge::launch(config.op, rows, self.capabilities())?;
        // Loaded beforehand, so that nothing is enqueued if it cannot be.
        self.function(config.op, stream, &merge_launch)?;
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder alignment and that nothing written overlaps
        // anything; the workspace has room for states and prepared rows, as `workspace_bytes` says.
        unsafe {
            call.enqueue(self, stream)?;
            merged.enqueue(self, stream, config.op, &merge_launch, true)
        }
    }

    /// Enqueues [`ExitHeadStates`] on the caller's stream: one launch, and one more for a norm.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn exit_head_states(
        &self,
        stream: &Arc<CudaStream>,
        op: &ExitHeadStates,
        mut args: ExitHeadStatesArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        mut workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.config.validate_states(&layouts)?;
        let config = &op.config;
        let rows = layouts.state_values.shape()[1];
        if rows == 0 {
            return Ok(());
        }
        let mut binder = Binder::new(self, config.op, stream)?;
        let inputs = bind_inputs!(binder, args);
        let state_values = binder.output("state_values", &mut args.state_values)?;
        let state_tokens = binder.output("state_tokens", &mut args.state_tokens)?;
        let scratch = binder.workspace(&mut workspace, op.workspace_bytes(&layouts))?;
        binder.finish()?;
        let call = Call {
            config,
            rows,
            layouts,
            inputs: &inputs,
            state_values: state_values.address(),
            state_tokens: state_tokens.address(),
            prepared: scratch.address(),
        };
        // SAFETY: as above.
        unsafe { call.enqueue(self, stream) }
    }
}

/// Pointers of what is read, and of the logits.
struct Inputs<'a> {
    hidden: Pointer<'a>,
    head_weight: Pointer<'a>,
    norm_weight: Pointer<'a>,
    head_bias: Pointer<'a>,
    rows: Pointer<'a>,
    positions: Pointer<'a>,
    seeds: Pointer<'a>,
    gather_tokens: Pointer<'a>,
    logits: Pointer<'a>,
}

/// From the inputs to the states.
struct Call<'a> {
    config: &'a HeadConfig,
    rows: usize,
    layouts: ExitHeadStatesArgs<Layout, Layout>,
    inputs: &'a Inputs<'a>,
    state_values: u64,
    state_tokens: u64,
    prepared: u64,
}

impl Call<'_> {
    /// # Safety
    /// The addresses are of validated tensors in the stream's context, and of room for states and prepared rows.
    unsafe fn enqueue(&self, cuda: &Cuda, stream: &Arc<CudaStream>) -> Result<(), Error> {
        let op = self.config.op;
        let batch = Batch { rows: self.rows, mappable: self.is_mappable() };
        let launches =
            Launches::new(self.config, batch, cuda.capabilities(), &cuda.options().head)?;
        let prepare = launches.prepare.map(|launch| cuda.function(op, stream, &launch));
        let prepare = prepare.transpose()?;
        let states = cuda.function(op, stream, &launches.states)?;
        let parameters = self.states_parameters(launches.rows_per_block);
        // Tensor maps come before the first launch: a call happens whole or not at all.
        let map = || ExitStatesWgmmaParams::new(cuda, self.config.activation_dtype, parameters);
        let mapped = launches.is_wgmma.then(map).transpose()?;
        // SAFETY: the caller's promise; `Launches` follows the kernels' contracts.
        unsafe {
            if let (Some(launch), Some(function)) = (launches.prepare, prepare) {
                cuda.launch(stream, &function, &launch, &self.prepare_parameters(), false)?;
            }
            let follows = launches.prepare.is_some();
            match mapped {
                Some(mapped) => cuda.launch(stream, &states, &launches.states, &mapped, follows),
                None => cuda.launch(stream, &states, &launches.states, &parameters, follows),
            }
        }
    }

    fn is_mappable(&self) -> bool {
        let (hidden, weight) = (&self.inputs.hidden, &self.inputs.head_weight);
        let selects = self.layouts.rows.is_some();
        is_mappable(self.config, selects, hidden.is_vectorisable(), weight.is_vectorisable())
    }

    fn prepare_parameters(&self) -> ExitPrepareParams {
        let inputs = self.inputs;
        let vectorised = inputs.hidden.is_vectorisable() && inputs.norm_weight.is_vectorisable();
        ExitPrepareParams {
            hidden: ReadPointer(inputs.hidden.address()),
            norm_weight: ReadPointer(inputs.norm_weight.address()),
            rows: ReadPointer(inputs.rows.address()),
            prepared: WritePointer(self.prepared),
            hidden_row_stride: inputs.hidden.row_stride(),
            prepared_row_stride: scratch_stride(self.config.hidden) as i64,
            hidden_rows: self.layouts.hidden.shape()[0] as i32,
            features: self.config.hidden as i32,
            vectorised: i32::from(vectorised),
            norm_epsilon: self.config.norm.map_or(0.0, |eps| eps.0),
        }
    }

    fn states_parameters(&self, rows_per_block: usize) -> ExitStatesParams {
        let (config, inputs) = (self.config, self.inputs);
        let is_prepared = config.norm.is_some();
        let (activations, stride, vectorised) = if is_prepared {
            let layout = Layout::contiguous(config.activation_dtype, &[scratch_stride(1)]);
            let aligned = layout.is_ok_and(|layout| is_vectorisable(self.prepared, &layout));
            (self.prepared, scratch_stride(config.hidden) as i64, aligned)
        } else {
            let hidden = &inputs.hidden;
            (hidden.address(), hidden.row_stride(), hidden.is_vectorisable())
        };
        let [values, tokens] = [&self.layouts.state_values, &self.layouts.state_tokens]
            .map(|layout| [layout.strides()[0] as i64, layout.strides()[1] as i64]);
        ExitStatesParams {
            activations: ReadPointer(activations),
            head_weight: ReadPointer(inputs.head_weight.address()),
            head_bias: ReadPointer(inputs.head_bias.address()),
            rows: ReadPointer(inputs.rows.address()),
            positions: ReadPointer(inputs.positions.address()),
            seeds: ReadPointer(inputs.seeds.address()),
            gather_tokens: ReadPointer(inputs.gather_tokens.address()),
            state_values: WritePointer(self.state_values),
            state_tokens: WritePointer(self.state_tokens),
            logits: WritePointer(inputs.logits.address()),
            activations_row_stride: stride,
            weight_row_stride: inputs.head_weight.row_stride(),
            values_tile_stride: values[0],
            values_row_stride: values[1],
            tokens_tile_stride: tokens[0],
            tokens_row_stride: tokens[1],
            logits_row_stride: inputs.logits.row_stride(),
            seeds_row_stride: inputs.seeds.row_stride(),
            output_rows: self.rows as i32,
            hidden_rows: self.layouts.hidden.shape()[0] as i32,
            is_prepared: i32::from(is_prepared),
            features: config.hidden as i32,
            vocabulary: config.vocabulary as i32,
            valid_rows: config.valid_rows() as i32,
            vocab_offset: config.vocab_offset as i32,
            top_k: config.top_k as i32,
            row_blocks: self.rows.div_ceil(rows_per_block) as i32,
            activations_vectorised: i32::from(vectorised),
            weight_vectorised: i32::from(inputs.head_weight.is_vectorisable()),
            seed_low: config.seed as u32 as i32,
            seed_high: (config.seed >> 32) as u32 as i32,
            inv_temperature: config.inv_temperature(),
            softcap: config.softcap().unwrap_or(0.0),
        }
    }
}

/// The launches for tensors of these layouts, on multiples of 16 bytes if `aligned`, as [`Cuda::plan`]; those of a whole
/// head with the merge.
pub(super) fn plan(
    cuda: &Cuda,
    config: &HeadConfig,
    args: &ExitHeadStatesArgs<Layout, Layout>,
    aligned: bool,
    merges: bool,
) -> Result<CudaPlan, Error> {
    let rows = config.output_rows(&args.hidden, args.rows.as_ref())?;
    let mut plan = CudaPlan::default();
    if rows == 0 {
        return Ok(plan);
    }
    let address = if aligned { 0 } else { 1 };
    let [hidden, weight] =
        [&args.hidden, &args.head_weight].map(|layout| is_vectorisable(address, layout));
    let mappable = is_mappable(config, args.rows.is_some(), hidden, weight);
    let device = cuda.capabilities();
    let launches = Launches::new(config, Batch { rows, mappable }, device, &cuda.options().head)?;
    launches.prepare.into_iter().for_each(|launch| plan.push(launch));
    plan.push(launches.states);
    if merges {
        plan.push(merge::launch(config.op, rows, device)?);
    }
    Ok(plan)
}

/// Whether TMA can read the activations, row after row of the outputs, and the weight: prepared rows lie in the
/// workspace, those of `hidden` must be all of it, on multiples of 16 bytes.
fn is_mappable(config: &HeadConfig, selects: bool, hidden: bool, weight: bool) -> bool {
    weight && (config.norm.is_some() || (hidden && !selects))
}

impl ExitStatesWgmmaParams {
    fn new(cuda: &Cuda, dtype: DType, other: ExitStatesParams) -> Result<Self, Error> {
        // Validation and the strategy know that no dimension is negative or 0, but rows that are valid; a row of the
        // weight that is masked gives a masked logit.
        let weight_rows = other.valid_rows.max(1);
        let map =
            |matrix, rows, stride| wgmma::map(cuda, dtype, matrix, [rows, other.features], stride);
        Ok(ExitStatesWgmmaParams {
            activations: map(other.activations, other.output_rows, other.activations_row_stride)?,
            head_weight: map(other.head_weight, weight_rows, other.weight_row_stride)?,
            other,
        })
    }
}
