//! `selective_feature_attention` on CUDA, by the contracts in `kernels/feature_attention/selective_branches.cu`,
//! `selective_weights.cu` and `selective_expand.cu`.
#![allow(unsafe_code, reason = "kernel launches")]

mod launches;
mod parameters;

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::validation::SELECT_FIELDS;
use super::workspace::Sections;
use super::{Select, SelectiveFeatureAttention, SelectiveFeatureAttentionArgs, StackMode};
use crate::arguments::{Arguments as _, MAX_REPEATED, Repeated};
use crate::backend::cuda::binder::{Binder, Pointer};
use crate::backend::cuda::launch::{CudaPlan, Launch};
use crate::backend::cuda::parameters::{KernelParameters, ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::feature_attention::gru::cuda::{
    GruInputParams, Layer, Place, ProductTensors, panel,
};
use crate::ops::feature_attention::gru::{GRU_FIELDS, GruTensors, gru_tensors};
use crate::ops::silu_mlp::cuda_parameters::dtype_code;
use launches::{Branches, SelectiveLaunches};
use parameters::{
    BranchPanels, SelectPanels, SelectiveBranchesParams, SelectiveExpandParams,
    SelectiveTotalParams, SelectiveWeightsParams,
};

impl Cuda {
    /// Enqueues [`SelectiveFeatureAttention`] on the caller's stream: three launches, and one more for
    /// [`Select::GlobalSum`]. With more than 128 reduced features, 64 hidden units a direction, each branch takes two
    /// launches of its own.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn selective_feature_attention(
        &self,
        stream: &Arc<CudaStream>,
        op: &SelectiveFeatureAttention,
        mut args: SelectiveFeatureAttentionArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        mut workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let [batch, steps] = op.extent(&layouts.x)?;
        if batch * steps == 0 {
            return Ok(());
        }
        let launches = SelectiveLaunches::new(op, batch, steps, self.capabilities())?;
        let mut binder = Binder::new(self, SelectiveFeatureAttention::NAME, stream)?;
        let x = binder.input("x", &args.x)?;
        let fields = SelectiveFeatureAttentionArgs::<(), ()>::FIELDS;
        let gru = gru_tensors!(args, as_ref)
            .try_map(&fields[GRU_FIELDS], |info, tensor| binder.input(info.name, tensor))?;
        let reduce_weight = binder.input("reduce_weight", &args.reduce_weight)?;
        let reduce_bias = binder.optional_input("reduce_bias", &args.reduce_bias)?;
        let squeeze_weight = binder.input("squeeze_weight", &args.squeeze_weight)?;
        let squeeze_bias = binder.optional_input("squeeze_bias", &args.squeeze_bias)?;
        let mut bind = |tensors: Repeated<_>, field: usize| {
            tensors.try_map(fields[field], |info, tensor| binder.input(info.name, tensor))
        };
        let select_weight = bind(args.select_weight.as_ref(), SELECT_FIELDS[0])?;
        let select_bias = bind(args.select_bias.as_ref(), SELECT_FIELDS[1])?;
        let expand_weight = binder.input("expand_weight", &args.expand_weight)?;
        let expand_bias = binder.optional_input("expand_bias", &args.expand_bias)?;
        let lengths = binder.optional_input("lengths", &args.lengths)?;
        let out = binder.output("out", &mut args.out)?;
        let sections = op.workspace(batch, steps);
        let memory = binder.workspace(&mut workspace, sections.bytes)?;
        binder.finish()?;
        // Loaded beforehand, so that nothing is enqueued if it cannot be.
        for launch in launches.iter(op) {
            self.function(SelectiveFeatureAttention::NAME, stream, &launch)?;
        }
        let call = Call {
            cuda: self,
            stream,
            op,
            launches: &launches,
            extent: [batch, steps],
            sections,
            memory: memory.address(),
            lengths: lengths.address(),
        };
        let x = Place::tensor(&x, &layouts.x);
        // SAFETY: `validate` proved shapes, strides and dtypes, the binder alignment, that nothing written overlaps
        // anything, and that the workspace has the room that `sections` divides. Each launch reads what those before it
        // wrote.
        unsafe {
            call.reduce(x, &reduce_weight, &reduce_bias)?;
            let squeeze = [&squeeze_weight, &squeeze_bias];
            call.branches(&gru, call.selection(squeeze, [&select_weight, &select_bias]))?;
            call.total()?;
            call.expand([&expand_weight, &expand_bias], &out, &layouts.out)
        }
    }
}

/// A call whose tensors are bound.
struct Call<'a> {
    cuda: &'a Cuda,
    stream: &'a Arc<CudaStream>,
    op: &'a SelectiveFeatureAttention,
    launches: &'a SelectiveLaunches,
    /// Texts and tokens of a text.
    extent: [usize; 2],
    sections: Sections,
    memory: u64,
    /// `[B]`, or 0.
    lengths: u64,
}

/// What all of these need: pointers of validated tensors in the stream's context, and a workspace of the sections' size.
impl Call<'_> {
    fn section(&self, offset: usize) -> u64 {
        self.memory + offset as u64
    }

    /// # Safety
    /// The caller must have what is said above.
    unsafe fn launch(
        &self,
        launch: &Launch,
        parameters: &impl KernelParameters,
    ) -> Result<(), Error> {
        let function = self.cuda.function(SelectiveFeatureAttention::NAME, self.stream, launch)?;
        // SAFETY: the caller's promise; the launches follow the kernels' contracts.
        unsafe { self.cuda.launch(self.stream, &function, launch, parameters, true) }
    }

    /// # Safety
    /// As above.
    unsafe fn reduce(
        &self,
        x: Place,
        weight: &Pointer<'_>,
        bias: &Pointer<'_>,
    ) -> Result<(), Error> {
        let out = self.section(self.sections.reduced);
        let tensors = ProductTensors { x, weight, bias, lengths: self.lengths, out };
        // SAFETY: the caller's promise; the section has room for the reduced tokens.
        unsafe { self.launches.reduce.enqueue(self.cuda, self.stream, &tensors) }
    }

    /// A branch by itself: its GRU, and all that it reads and writes.
    fn layer<'p>(&self, branch: usize, weights: &'p GruTensors<Pointer<'p>>) -> Layer<'p> {
        let op = self.op;
        let [batch, steps] = self.extent;
        let states = |branch: usize| {
            let first = self.section(self.sections.states) + (4 * branch * op.reduced) as u64;
            Place::scratch(first, steps, op.branches * op.reduced)
        };
        let last = |branch: usize| {
            let address = self.section(self.sections.last[branch % 2]);
            Place::scratch(address, batch, op.hidden())
        };
        let is_chained = op.stack_mode == StackMode::StateChained;
        let reads_branch = branch > 0 && !is_chained;
        let reduced = Place::scratch(self.section(self.sections.reduced), steps, op.reduced);
        Layer {
            extent: op.gru_extent(batch, steps),
            weights: weights.as_ref().layer(branch),
            x: if reads_branch { states(branch - 1) } else { reduced },
            lengths: self.lengths,
            gates: self.section(self.sections.gru.gates),
            initial: match branch.checked_sub(1) {
                Some(before) if is_chained => last(before),
                _ => Place::ABSENT,
            },
            out: states(branch),
            last: if is_chained { last(branch) } else { Place::ABSENT },
        }
    }

    /// # Safety
    /// As above.
    unsafe fn branches(
        &self,
        weights: &GruTensors<Pointer<'_>>,
        selection: SelectiveWeightsParams,
    ) -> Result<(), Error> {
        let layers = (0..self.op.branches).map(|branch| self.layer(branch, weights));
        match &self.launches.branches {
            Branches::Together(launch) => {
                let parameters = self.together(layers, selection);
                // SAFETY: the caller's promise; blocks of the kernel read nothing of each other.
                unsafe { self.launch(launch, &parameters) }
            }
            Branches::OneByOne { gru, weights } => {
                for layer in layers {
                    // SAFETY: the caller's promise; a branch's states lie beside those of the branch that it reads.
                    unsafe { layer.enqueue(self.cuda, self.stream, gru, true)? };
                }
                // SAFETY: the caller's promise.
                unsafe { self.launch(weights, &selection) }
            }
        }
    }

    fn together<'p>(
        &self,
        layers: impl Iterator<Item = Layer<'p>>,
        selection: SelectiveWeightsParams,
    ) -> SelectiveBranchesParams {
        let squeeze = selection.squeeze;
        // Behind the last branch, where no kernel looks.
        let none = BranchPanels { of: [squeeze; 2 * MAX_REPEATED] };
        let (mut input_panels, mut recurrent_panels) = (none, none);
        let (mut first, mut is_vectorised) = (None, 1);
        for (branch, layer) in layers.enumerate() {
            let (input, recurrence) = (layer.input_parameters(), layer.recurrence_parameters());
            let both = 2 * branch..2 * branch + 2;
            input_panels.of[both.clone()].copy_from_slice(&[input.forward, input.reverse]);
            recurrent_panels.of[both].copy_from_slice(&[recurrence.forward, recurrence.reverse]);
            is_vectorised &= input.weight_vectorised;
            first.get_or_insert((input, recurrence));
        }
        let (input, recurrence) = first.expect("descriptors have at least one branch");
        SelectiveBranchesParams {
            input_panels,
            recurrent_panels,
            input: GruInputParams { weight_vectorised: is_vectorised, ..input },
            recurrence,
            selection,
            reduced: input.x,
            chains_states: i32::from(self.op.stack_mode == StackMode::StateChained),
        }
    }

    fn selection(
        &self,
        squeeze: [&Pointer<'_>; 2],
        select: [&Repeated<Pointer<'_>>; 2],
    ) -> SelectiveWeightsParams {
        let op = self.op;
        let [weights, biases] = select;
        let squeeze = panel(squeeze[0], Some(squeeze[1]));
        let of: [_; MAX_REPEATED] = std::array::from_fn(|branch| match weights.get(branch) {
            Some(weight) => panel(weight, biases.get(branch)),
            // Behind the last branch, where no kernel looks.
            None => squeeze,
        });
        SelectiveWeightsParams {
            select: SelectPanels { of },
            squeeze,
            states: ReadPointer(self.section(self.sections.states)),
            lengths: ReadPointer(self.lengths),
            squeezed: WritePointer(self.section(self.sections.squeezed)),
            weights: WritePointer(self.section(self.sections.weights)),
            steps: self.extent[1] as i32,
            reduced: op.reduced as i32,
            squeezed_features: op.squeezed as i32,
            branches: op.branches as i32,
            normalised: i32::from(op.select == Select::BranchSoftmax),
        }
    }

    /// # Safety
    /// As above.
    unsafe fn total(&self) -> Result<(), Error> {
        let Some(launch) = &self.launches.total else { return Ok(()) };
        let weights = WritePointer(self.section(self.sections.weights));
        let elements = (self.extent[0] * self.op.branches * self.op.reduced) as i64;
        // SAFETY: the caller's promise.
        unsafe { self.launch(launch, &SelectiveTotalParams { weights, elements }) }
    }

    /// # Safety
    /// As above.
    unsafe fn expand(
        &self,
        [weight, bias]: [&Pointer<'_>; 2],
        out: &Pointer<'_>,
        layout: &Layout,
    ) -> Result<(), Error> {
        let op = self.op;
        let [batch, steps] = self.extent;
        let parameters = SelectiveExpandParams {
            expand: panel(weight, Some(bias)),
            states: ReadPointer(self.section(self.sections.states)),
            weights: ReadPointer(self.section(self.sections.weights)),
            lengths: ReadPointer(self.lengths),
            out: WritePointer(out.address()),
            // Validation keeps spans, and so strides, below `isize::MAX` where there is more than one row.
            out_batch_stride: i64::try_from(layout.strides()[0]).unwrap_or(0),
            out_token_stride: i64::try_from(layout.strides()[1]).unwrap_or(0),
            batch: batch as i32,
            steps: steps as i32,
            reduced: op.reduced as i32,
            branches: op.branches as i32,
            features: op.features as i32,
            weight_vectorised: i32::from(weight.is_vectorisable()),
            out_dtype: dtype_code(layout.dtype()),
        };
        // SAFETY: the caller's promise.
        unsafe { self.launch(&self.launches.expand, &parameters) }
    }
}

/// The launches for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &SelectiveFeatureAttention,
    layouts: &SelectiveFeatureAttentionArgs<Layout, Layout>,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let [batch, steps] = op.extent(&layouts.x)?;
    let mut plan = CudaPlan::default();
    if batch * steps > 0 {
        let launches = SelectiveLaunches::new(op, batch, steps, cuda.capabilities())?;
        launches.iter(op).for_each(|launch| plan.push(launch));
    }
    Ok(plan)
}
