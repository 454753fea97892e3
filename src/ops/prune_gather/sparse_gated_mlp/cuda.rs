//! `sparse_gated_mlp` on CUDA: kernels of its own for few tokens, dense projections and a selection for many.
#![allow(unsafe_code, reason = "kernel launches")]

mod geometry;

use std::sync::Arc;

use cudarc::driver::CudaStream;

use geometry::{Geometry, Scratch};

use super::{SparseGatedMlp, SparseGatedMlpArgs};
use crate::backend::cuda::binder::{Binder, Pointer};
use crate::backend::cuda::launch::{CudaPlan, Launch};
use crate::backend::cuda::parameters::{KernelParameters, ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::cuda_parameters::{
    SparseDownParams, SparseGateUpParams, SparseSelectParams,
};
use crate::ops::silu_mlp::Rounding;
use crate::ops::silu_mlp::cuda_parameters::dtype_code;
use crate::ops::silu_mlp::mlp::config::{MlpTensors, scratch_stride};
use crate::ops::silu_mlp::mlp::cuda::{self as mlp, Call};

const NAME: &str = SparseGatedMlp::NAME;

impl Cuda {
    /// Enqueues [`SparseGatedMlp`] on the caller's stream: the SwiGLU block on the neurons that each token selects.
    ///
    /// Lists' values are not looked at: of those that
    /// [`Operation::validate_values`](crate::Operation::validate_values) would refuse, members out of range are skipped
    /// and offsets are cut to the list; nothing outside the tensors is touched.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn sparse_gated_mlp(
        &self,
        stream: &Arc<CudaStream>,
        op: &SparseGatedMlp,
        mut args: SparseGatedMlpArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        mut workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let rows = layouts.x.shape()[0];
        if rows == 0 {
            return Ok(());
        }
        let mut binder = Binder::new(self, NAME, stream)?;
        let pointers = Pointers {
            x: binder.input("x", &args.x)?,
            gate_weight: binder.input("gate_weight", &args.gate_weight)?,
            up_weight: binder.input("up_weight", &args.up_weight)?,
            down_weight: binder.input("down_weight", &args.down_weight)?,
            neurons: binder.optional_input("neurons", &args.neurons)?,
            neuron_offsets: binder.optional_input("neuron_offsets", &args.neuron_offsets)?,
            norm_weight: binder.optional_input("norm_weight", &args.norm_weight)?,
            residual: binder.optional_input("residual", &args.residual)?,
            out: binder.output("out", &mut args.out)?,
            workspace: binder.workspace(&mut workspace, op.workspace_bytes(rows))?,
        };
        binder.finish()?;
        Run { cuda: self, stream, op, rows, layouts, pointers }.enqueue()
    }
}

/// The launches for tensors of these layouts, as [`Cuda::plan`].
pub(super) fn plan(
    cuda: &Cuda,
    op: &SparseGatedMlp,
    layouts: &SparseGatedMlpArgs<Layout, Layout>,
    aligned: bool,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    let rows = layouts.x.shape()[0];
    let mut plan = CudaPlan::default();
    if rows == 0 {
        return Ok(plan);
    }
    let geometry = Geometry { op, rows, device: cuda.capabilities() };
    let scratch = Scratch::new(op, rows)?;
    if op.ffn() > 0 && !op.is_sparse(rows) {
        for weight in [layouts.gate_weight, layouts.up_weight] {
            let tensors = linear(layouts.x, weight, layouts.norm_weight, None, scratch.projection);
            let dense = mlp::plan(cuda, &op.projection(), &tensors, aligned)?;
            dense.launches().for_each(|launch| plan.push(*launch));
        }
    }
    geometry.first()?.into_iter().for_each(|launch| plan.push(launch));
    match geometry.down()? {
        Some(launch) => plan.push(launch),
        None => {
            let tensors =
                linear(scratch.h, layouts.down_weight, None, layouts.residual, layouts.out);
            let dense = mlp::plan(cuda, &op.last(), &tensors, aligned)?;
            dense.launches().for_each(|launch| plan.push(*launch));
        }
    }
    Ok(plan)
}

/// A linear layer's tensors.
fn linear<In, Out>(
    x: In,
    weight: In,
    norm_weight: Option<In>,
    residual: Option<In>,
    out: Out,
) -> MlpTensors<In, Out> {
    let mut tensors = MlpTensors::new(x, weight, out);
    tensors.norm_weight = norm_weight;
    tensors.residual = residual;
    tensors
}

struct Pointers<'a> {
    x: Pointer<'a>,
    gate_weight: Pointer<'a>,
    up_weight: Pointer<'a>,
    down_weight: Pointer<'a>,
    neurons: Pointer<'a>,
    neuron_offsets: Pointer<'a>,
    norm_weight: Pointer<'a>,
    residual: Pointer<'a>,
    out: Pointer<'a>,
    workspace: Pointer<'a>,
}

/// A call whose tensors are bound.
struct Run<'a> {
    cuda: &'a Cuda,
    stream: &'a Arc<CudaStream>,
    op: &'a SparseGatedMlp,
    rows: usize,
    layouts: SparseGatedMlpArgs<Layout, Layout>,
    pointers: Pointers<'a>,
}

impl Run<'_> {
    /// Every kernel is at hand before the first one is launched, so that a call happens whole or not at all.
    fn enqueue(&self) -> Result<(), Error> {
        let (op, pointers, layouts) = (self.op, &self.pointers, &self.layouts);
        let geometry = Geometry { op, rows: self.rows, device: self.cuda.capabilities() };
        let scratch = Scratch::new(op, self.rows)?;
        let (first, down) = (geometry.first()?, geometry.down()?);
        let dense = first.is_some() && !op.is_sparse(self.rows);
        let (projection, last) = (op.projection(), op.last());
        let x = || read_tensor(&pointers.x, layouts.x);
        let norm_weight =
            || layouts.norm_weight.map(|layout| read_tensor(&pointers.norm_weight, layout));
        let scratch_tensor =
            |part: usize| self.scratch_tensor(part * scratch.part, scratch.projection);
        let gate_weight = read_tensor(&pointers.gate_weight, layouts.gate_weight);
        let up_weight = read_tensor(&pointers.up_weight, layouts.up_weight);
        let mut gates = linear(x(), gate_weight, norm_weight(), None, scratch_tensor(1));
        let mut ups = linear(x(), up_weight, norm_weight(), None, scratch_tensor(2));
        // SAFETY: `h` lies in the workspace, which the binder checked, and is written before it is read.
        let h = unsafe { CudaTensor::from_raw(pointers.workspace.address(), scratch.h) };
        let residual = layouts.residual.map(|layout| read_tensor(&pointers.residual, layout));
        let down_weight = read_tensor(&pointers.down_weight, layouts.down_weight);
        // SAFETY: `out` is bound, so nothing else overlaps it.
        let out = unsafe { CudaTensorMut::from_raw(pointers.out.address(), layouts.out) };
        let mut outs = linear(h, down_weight, None, residual, out);
        let mut workspaces = [(); 3].map(|()| self.linear_workspace(3 * scratch.part));
        let [gate_workspace, up_workspace, last_workspace] = &mut workspaces;
        let call = |config, tensors, workspace, wanted: bool| match wanted {
            true => Call::new(self.cuda, self.stream, config, tensors, workspace),
            false => Ok(None),
        };
        let gate = call(&projection, &mut gates, gate_workspace, dense)?;
        let up = call(&projection, &mut ups, up_workspace, dense)?;
        let second = call(&last, &mut outs, last_workspace, down.is_none())?;
        for call in [&gate, &up, &second].into_iter().flatten() {
            call.load()?;
        }
        for launch in [first, down].iter().flatten() {
            self.cuda.function(NAME, self.stream, launch)?;
        }
        for call in [&gate, &up].into_iter().flatten() {
            call.enqueue()?;
        }
        match (dense, &first) {
            (_, None) => {}
            (true, Some(select)) => self.launch(select, &self.select_params(&scratch), true)?,
            (false, Some(gate_up)) => {
                let x_tile = geometry.x_tile();
                self.launch(gate_up, &self.gate_up_params(x_tile), false)?;
            }
        }
        if let Some(down) = &down {
            self.launch(down, &self.down_params(), first.is_some())?;
        }
        second.map_or(Ok(()), |second| second.enqueue())
    }

    fn launch<P: KernelParameters>(
        &self,
        launch: &Launch,
        parameters: &P,
        follows: bool,
    ) -> Result<(), Error> {
        let function = self.cuda.function(NAME, self.stream, launch)?;
        // SAFETY: `validate` proved shapes, strides and dtypes of all tensors, the binder their alignment, that `out`
        // overlaps nothing and that the workspace is as long as `Scratch` lays it out; `Geometry` follows the kernels'
        // contracts, which look at no list beyond its end.
        unsafe { self.cuda.launch(self.stream, &function, launch, parameters, follows) }
    }

    /// A tensor `offset` bytes into the workspace.
    fn scratch_tensor(&self, offset: usize, layout: Layout) -> CudaTensorMut<'static> {
        let address = self.pointers.workspace.address() + offset as u64;
        // SAFETY: inside the workspace, which the binder checked; parts do not overlap.
        unsafe { CudaTensorMut::from_raw(address, layout) }
    }

    /// What lies behind `offset` in the workspace: each of the linear layers may use it, one after another.
    fn linear_workspace(&self, offset: usize) -> CudaWorkspace<'static> {
        let bytes = self.op.workspace_bytes(self.rows) - offset;
        let address = self.pointers.workspace.address() + offset as u64;
        // SAFETY: inside the workspace, which the binder checked.
        unsafe { CudaWorkspace::from_raw(address, bytes) }
    }

    fn gate_up_params(&self, x_tile: usize) -> SparseGateUpParams {
        let (op, pointers) = (self.op, &self.pointers);
        let read_16_bytes =
            [&pointers.x, &pointers.norm_weight, &pointers.gate_weight, &pointers.up_weight];
        SparseGateUpParams {
            x: read(&pointers.x),
            norm_weight: read(&pointers.norm_weight),
            gate_weight: read(&pointers.gate_weight),
            up_weight: read(&pointers.up_weight),
            neurons: read(&pointers.neurons),
            neuron_offsets: read(&pointers.neuron_offsets),
            h: WritePointer(pointers.workspace.address()),
            x_row_stride: pointers.x.row_stride(),
            gate_row_stride: pointers.gate_weight.row_stride(),
            up_row_stride: pointers.up_weight.row_stride(),
            h_row_stride: scratch_stride(op.ffn()) as i64,
            listed: self.listed(),
            hidden: op.hidden() as i32,
            ffn: op.ffn() as i32,
            x_tile: x_tile as i32,
            vectorised: i32::from(read_16_bytes.iter().all(|pointer| pointer.is_vectorisable())),
            round_gate_up: self.rounds(),
            norm_epsilon: op.config.norm.map_or(0.0, |epsilon| epsilon.0),
            threshold: op.threshold().unwrap_or(0.0),
        }
    }

    fn select_params(&self, scratch: &Scratch) -> SparseSelectParams {
        let (op, pointers) = (self.op, &self.pointers);
        let start = pointers.workspace.address();
        SparseSelectParams {
            gate: ReadPointer(start + scratch.part as u64),
            up: ReadPointer(start + 2 * scratch.part as u64),
            neurons: read(&pointers.neurons),
            neuron_offsets: read(&pointers.neuron_offsets),
            h: WritePointer(start),
            h_row_stride: scratch_stride(op.ffn()) as i64,
            listed: self.listed(),
            ffn: op.ffn() as i32,
            round_gate_up: self.rounds(),
            threshold: op.threshold().unwrap_or(0.0),
        }
    }

    fn down_params(&self) -> SparseDownParams {
        let (op, pointers) = (self.op, &self.pointers);
        SparseDownParams {
            h: ReadPointer(pointers.workspace.address()),
            down_weight: read(&pointers.down_weight),
            residual: read(&pointers.residual),
            out: WritePointer(pointers.out.address()),
            h_row_stride: scratch_stride(op.ffn()) as i64,
            down_row_stride: pointers.down_weight.row_stride(),
            residual_row_stride: pointers.residual.row_stride(),
            out_row_stride: pointers.out.row_stride(),
            hidden: op.hidden() as i32,
            ffn: op.ffn() as i32,
            vectorised: i32::from(pointers.down_weight.is_vectorisable()),
            out_dtype: dtype_code(self.layouts.out.dtype()),
        }
    }

    fn listed(&self) -> i64 {
        self.layouts.neurons.map_or(0, |neurons| neurons.elements() as i64)
    }

    fn rounds(&self) -> i32 {
        i32::from(self.op.config.rounding == Rounding::RoundGateUp)
    }
}

fn read(pointer: &Pointer<'_>) -> ReadPointer {
    ReadPointer(pointer.address())
}

/// A bound tensor, to be passed on.
fn read_tensor(pointer: &Pointer<'_>, layout: Layout) -> CudaTensor<'static> {
    // SAFETY: the tensor that the pointer was bound from has this layout and outlives the call.
    unsafe { CudaTensor::from_raw(pointer.address(), layout) }
}
