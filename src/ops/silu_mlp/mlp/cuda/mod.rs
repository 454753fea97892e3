//! Every block on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

mod geometry;
mod plan;
pub(crate) mod strategy;
mod wgmma;

use std::sync::Arc;

use cudarc::driver::CudaStream;

use self::plan::{Alignment, MlpPlan};
use self::strategy::Choice;
use super::config::{First, MlpConfig, MlpTensors, scratch_stride};
use crate::backend::cuda::binder::{Binder, Pointer};
use crate::backend::cuda::launch::{CudaPlan, Launch};
use crate::backend::cuda::parameters::{KernelParameters, ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::ops::silu_mlp::Rounding;
use crate::ops::silu_mlp::cuda_parameters::{
    DownParams, DownWgmmaParams, GateUpParams, GateUpWgmmaParams, PrepareParams, dtype_code,
};

/// The launches for tensors of these layouts, as [`Cuda::plan`].
pub(crate) fn plan(
    cuda: &Cuda,
    op: &MlpConfig,
    args: &MlpTensors<Layout, Layout>,
    aligned: bool,
) -> Result<CudaPlan, Error> {
    op.validate(args)?;
    let rows = args.x.shape()[0];
    if rows == 0 {
        return Ok(CudaPlan::default());
    }
    let plan = MlpPlan::new(cuda, op, rows, Alignment::of_layouts(args, aligned))?;
    Ok(plan.launches())
}

pub(crate) fn enqueue(
    cuda: &Cuda,
    stream: &Arc<CudaStream>,
    op: &MlpConfig,
    mut args: MlpTensors<CudaTensor<'_>, CudaTensorMut<'_>>,
    mut workspace: CudaWorkspace<'_>,
) -> Result<(), Error> {
    let Some(call) = Call::new(cuda, stream, op, &mut args, &mut workspace)? else {
        return Ok(());
    };
    call.load()?;
    call.enqueue()
}

struct Pointers<'a> {
    x: Pointer<'a>,
    gate_weight: Pointer<'a>,
    up_weight: Pointer<'a>,
    down_weight: Pointer<'a>,
    gate_bias: Pointer<'a>,
    up_bias: Pointer<'a>,
    down_bias: Pointer<'a>,
    norm_weight: Pointer<'a>,
    residual: Pointer<'a>,
    in_indices: Pointer<'a>,
    out_indices: Pointer<'a>,
    in_mask: Pointer<'a>,
    mid_mask: Pointer<'a>,
    out_mask: Pointer<'a>,
    out: Pointer<'a>,
    workspace: Pointer<'a>,
}

impl Pointers<'_> {
    fn alignment(&self) -> Alignment {
        Alignment {
            x: self.x.is_vectorisable(),
            norm_weight: self.norm_weight.is_vectorisable(),
            first_weights: self.gate_weight.is_vectorisable() && self.up_weight.is_vectorisable(),
            down_weight: self.down_weight.is_vectorisable(),
        }
    }
}

/// A call whose tensors are bound and whose launches are chosen.
pub(crate) struct Call<'a> {
    cuda: &'a Cuda,
    stream: &'a Arc<CudaStream>,
    op: &'a MlpConfig,
    rows: usize,
    plan: MlpPlan,
    pointers: Pointers<'a>,
    out_dtype: i32,
}

impl<'a> Call<'a> {
    /// Binds valid tensors; `None` where there are no rows, and nothing to do.
    pub(crate) fn new(
        cuda: &'a Cuda,
        stream: &'a Arc<CudaStream>,
        op: &'a MlpConfig,
        args: &'a mut MlpTensors<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: &'a mut CudaWorkspace<'_>,
    ) -> Result<Option<Call<'a>>, Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        let rows = layouts.x.shape()[0];
        if rows == 0 {
            return Ok(None);
        }
        let [down_weight, down_bias] = op.down_names();
        let mut binder = Binder::new(cuda, op.op, stream)?;
        let pointers = Pointers {
            x: binder.input("x", &args.x)?,
            gate_weight: binder.optional_input("gate_weight", &args.gate_weight)?,
            up_weight: binder.optional_input("up_weight", &args.up_weight)?,
            down_weight: binder.input(down_weight, &args.down_weight)?,
            gate_bias: binder.optional_input("gate_bias", &args.gate_bias)?,
            up_bias: binder.optional_input("up_bias", &args.up_bias)?,
            down_bias: binder.optional_input(down_bias, &args.down_bias)?,
            norm_weight: binder.optional_input("norm_weight", &args.norm_weight)?,
            residual: binder.optional_input("residual", &args.residual)?,
            in_indices: binder.optional_input("in_indices", &args.in_indices)?,
            out_indices: binder.optional_input("out_indices", &args.out_indices)?,
            in_mask: binder.optional_input("in_mask", &args.in_mask)?,
            mid_mask: binder.optional_input("mid_mask", &args.mid_mask)?,
            out_mask: binder.optional_input("out_mask", &args.out_mask)?,
            out: binder.output("out", &mut args.out)?,
            workspace: binder.workspace(workspace, op.workspace_bytes(rows))?,
        };
        binder.finish()?;
        let plan = MlpPlan::new(cuda, op, rows, pointers.alignment())?;
        let out_dtype = dtype_code(layouts.out.dtype());
        Ok(Some(Call { cuda, stream, op, rows, plan, pointers, out_dtype }))
    }

    /// Gets every kernel, so that a call happens whole or not at all.
    pub(crate) fn load(&self) -> Result<(), Error> {
        for launch in self.plan.launches().launches() {
            self.cuda.function(self.op.op, self.stream, launch)?;
        }
        Ok(())
    }

    /// Launches what [`Call::load`] has got.
    pub(crate) fn enqueue(&self) -> Result<(), Error> {
        let (prepare, first) = (self.prepare_params(), self.first_params());
        let second = self.down_params();
        // Tensor maps come before the first launch: a call happens whole or not at all.
        let mapped_first = self.mapped_first(first)?;
        let mapped_second = self.mapped_second(second)?;
        let mut follows = false;
        self.launch(self.plan.prepare, &prepare, &mut follows)?;
        match &mapped_first {
            Some(mapped) => self.launch(self.plan.first, mapped, &mut follows)?,
            None => self.launch(self.plan.first, &first, &mut follows)?,
        }
        match &mapped_second {
            Some(mapped) => self.launch(Some(self.plan.second), mapped, &mut follows)?,
            None => self.launch(Some(self.plan.second), &second, &mut follows)?,
        }
        self.launch(self.plan.reduce, &second, &mut follows)
    }

    /// The first half's parameters with tensor maps, if its kernel takes them.
    fn mapped_first(&self, first: GateUpParams) -> Result<Option<GateUpWgmmaParams>, Error> {
        let mapped = self.plan.first.is_some() && self.plan.first_choice == Choice::Wgmma;
        let make = || GateUpWgmmaParams::new(self.cuda, self.op.activation_dtype, first);
        mapped.then(make).transpose()
    }

    fn mapped_second(&self, second: DownParams) -> Result<Option<DownWgmmaParams>, Error> {
        let mapped = self.plan.second_choice == Choice::Wgmma;
        let make = || DownWgmmaParams::new(self.cuda, self.op.activation_dtype, second);
        mapped.then(make).transpose()
    }

    fn launch<P: KernelParameters>(
        &self,
        launch: Option<Launch>,
        parameters: &P,
        follows: &mut bool,
    ) -> Result<(), Error> {
        let Some(launch) = launch else { return Ok(()) };
        let function = self.cuda.function(self.op.op, self.stream, &launch)?;
        // SAFETY: `validate` proved shapes, strides and dtypes of all tensors, the binder their alignment and that
        // what is written overlaps nothing; `MlpPlan` made the grid by the kernel's contract from the same
        // shapes, and laid out a workspace whose length the binder checked.
        unsafe { self.cuda.launch(self.stream, &function, &launch, parameters, *follows)? };
        *follows = true;
        Ok(())
    }

    fn prepare_params(&self) -> PrepareParams {
        let pointers = &self.pointers;
        let vectorised = pointers.x.is_vectorisable() && pointers.norm_weight.is_vectorisable();
        PrepareParams {
            x: read(&pointers.x),
            norm_weight: read(&pointers.norm_weight),
            in_indices: read(&pointers.in_indices),
            in_mask: read(&pointers.in_mask),
            n: WritePointer(self.scratch(self.plan.scratch.n)),
            x_row_stride: pointers.x.row_stride(),
            n_row_stride: scratch_stride(self.op.inputs) as i64,
            rows: int(self.rows),
            hidden: int(self.op.hidden),
            inputs: int(self.op.inputs),
            norms_selection: i32::from(self.op.norms_selection()),
            norm_divisor: int(self.op.norm_divisor()),
            vectorised: i32::from(vectorised),
            norm_epsilon: self.norm_epsilon(),
        }
    }

    fn first_params(&self) -> GateUpParams {
        let pointers = &self.pointers;
        // The plain MLP's only projection takes the gate's place.
        let (gate, gate_bias, up, up_bias) = if self.op.is_gated() {
            let Pointers { gate_weight, gate_bias, up_weight, up_bias, .. } = pointers;
            (gate_weight, gate_bias, read(up_weight), read(up_bias))
        } else {
            (&pointers.up_weight, &pointers.up_bias, ReadPointer(0), ReadPointer(0))
        };
        let (x, x_row_stride) = self.prepared();
        let unprepared = |pointer: &Pointer<'_>| match self.plan.first_choice {
            Choice::Gemv => read(pointer),
            _ => ReadPointer(0),
        };
        GateUpParams {
            x,
            norm_weight: unprepared(&pointers.norm_weight),
            in_indices: unprepared(&pointers.in_indices),
            in_mask: unprepared(&pointers.in_mask),
            mid_mask: read(&pointers.mid_mask),
            gate_weight: read(gate),
            up_weight: up,
            gate_bias: read(gate_bias),
            up_bias,
            h: WritePointer(self.scratch(self.plan.scratch.h)),
            x_row_stride,
            gate_row_stride: gate.row_stride(),
            up_row_stride: if self.op.is_gated() { pointers.up_weight.row_stride() } else { 0 },
            h_row_stride: scratch_stride(self.op.ffn) as i64,
            rows: int(self.rows),
            hidden: int(self.op.hidden),
            inputs: int(self.op.inputs),
            ffn: int(self.op.ffn),
            norms_selection: i32::from(self.op.norms_selection()),
            norm_divisor: int(self.op.norm_divisor()),
            x_tile: int(self.plan.x_tile),
            vectorised: i32::from(self.plan.first_vectorised),
            round_gate_up: i32::from(self.op.rounding == Rounding::RoundGateUp),
            norm_epsilon: self.norm_epsilon(),
        }
    }

    fn down_params(&self) -> DownParams {
        let (op, pointers, scratch) = (self.op, &self.pointers, &self.plan.scratch);
        let (h, h_row_stride) = match op.first {
            First::Absent => self.prepared(),
            _ => (ReadPointer(self.scratch(scratch.h)), scratch_stride(op.ffn) as i64),
        };
        let (mut residual, mut out_indices) = (&pointers.residual, &pointers.out_indices);
        if op.scatters {
            // Null means "absent", which an empty list of indices is not: any other address does for it.
            let present = |pointer: &Pointer<'_>| pointer.address() != 0;
            residual = if present(residual) { residual } else { &pointers.x };
            out_indices = if present(out_indices) { out_indices } else { &pointers.x };
        }
        DownParams {
            h,
            down_weight: read(&pointers.down_weight),
            down_bias: read(&pointers.down_bias),
            residual: read(residual),
            out_indices: read(out_indices),
            out_mask: read(&pointers.out_mask),
            out: WritePointer(pointers.out.address()),
            partials: WritePointer(self.scratch(scratch.partials)),
            h_row_stride,
            down_row_stride: pointers.down_weight.row_stride(),
            residual_row_stride: residual.row_stride(),
            out_row_stride: pointers.out.row_stride(),
            rows: int(self.rows),
            outputs: int(op.outputs),
            depth: int(op.depth()),
            width: int(op.width),
            splits: int(self.plan.splits),
            vectorised: i32::from(self.plan.second_vectorised),
            out_dtype: self.out_dtype,
        }
    }

    /// What the first product reads: `n` in the workspace, or `x`.
    fn prepared(&self) -> (ReadPointer, i64) {
        match self.plan.prepare {
            Some(_) => (
                ReadPointer(self.scratch(self.plan.scratch.n)),
                scratch_stride(self.op.inputs) as i64,
            ),
            None => (read(&self.pointers.x), self.pointers.x.row_stride()),
        }
    }

    fn scratch(&self, offset: usize) -> u64 {
        self.pointers.workspace.address() + offset as u64
    }

    fn norm_epsilon(&self) -> f32 {
        self.op.norm.map_or(0.0, |epsilon| epsilon.0)
    }
}

fn read(pointer: &Pointer<'_>) -> ReadPointer {
    ReadPointer(pointer.address())
}

/// A dimension; the plan has refused those beyond 2^30.
fn int(dimension: usize) -> i32 {
    dimension as i32
}
