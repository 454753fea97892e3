//! The MLPs on CUDA.

#![allow(unsafe_code, reason = "kernel launches")]

mod geometry;
mod plan;
pub(crate) mod strategy;

use std::sync::Arc;

use cudarc::driver::CudaStream;

use self::plan::{Alignment, MlpPlan, is_dense_vectorisable};
use super::config::{MlpConfig, MlpTensors};
use crate::backend::cuda::binder::{Binder, Pointer};
use crate::backend::cuda::launch::{CudaPlan, Launch};
use crate::backend::cuda::parameters::{KernelParameters, ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::ops::silu_mlp::Rounding;
use crate::ops::silu_mlp::cuda_parameters::{DownParams, GateUpParams, RmsNormParams, dtype_code};

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
    let layouts = args.layouts();
    op.validate(&layouts)?;
    let rows = layouts.x.shape()[0];
    if rows == 0 {
        return Ok(());
    }
    let mut binder = Binder::new(cuda, op.op, stream)?;
    let pointers = Pointers {
        x: binder.input("x", &args.x)?,
        gate_weight: binder.optional_input("gate_weight", &args.gate_weight)?,
        up_weight: binder.input("up_weight", &args.up_weight)?,
        down_weight: binder.input("down_weight", &args.down_weight)?,
        gate_bias: binder.optional_input("gate_bias", &args.gate_bias)?,
        up_bias: binder.optional_input("up_bias", &args.up_bias)?,
        down_bias: binder.optional_input("down_bias", &args.down_bias)?,
        norm_weight: binder.optional_input("norm_weight", &args.norm_weight)?,
        residual: binder.optional_input("residual", &args.residual)?,
        out: binder.output("out", &mut args.out)?,
        workspace: binder.workspace(&mut workspace, op.workspace_bytes(rows))?,
    };
    binder.finish()?;
    let plan = MlpPlan::new(cuda, op, rows, pointers.alignment())?;
    let out_dtype = dtype_code(layouts.out.dtype());
    Call { cuda, stream, op, rows, plan, pointers, out_dtype }.enqueue()
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
struct Call<'a> {
    cuda: &'a Cuda,
    stream: &'a Arc<CudaStream>,
    op: &'a MlpConfig,
    rows: usize,
    plan: MlpPlan,
    pointers: Pointers<'a>,
    out_dtype: i32,
}

impl Call<'_> {
    fn enqueue(&self) -> Result<(), Error> {
        let (norm, first, down) = (self.norm_params(), self.first_params(), self.down_params());
        // Every kernel is at hand before the first one is launched, so that a call happens whole or not at all.
        for launch in self.plan.launches().launches() {
            self.cuda.function(self.op.op, self.stream, launch)?;
        }
        let mut follows = false;
        self.launch(self.plan.norm, &norm, &mut follows)?;
        self.launch(self.plan.first, &first, &mut follows)?;
        self.launch(Some(self.plan.second), &down, &mut follows)?;
        self.launch(self.plan.reduce, &down, &mut follows)
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

    fn norm_params(&self) -> RmsNormParams {
        let pointers = &self.pointers;
        let n_is_vectorisable = is_dense_vectorisable(self.op, self.rows, self.op.hidden);
        let vectorised = pointers.x.is_vectorisable()
            && pointers.norm_weight.is_vectorisable()
            && n_is_vectorisable;
        RmsNormParams {
            x: read(&pointers.x),
            norm_weight: read(&pointers.norm_weight),
            n: WritePointer(self.scratch(self.plan.scratch.n)),
            x_row_stride: pointers.x.row_stride(),
            n_row_stride: self.op.hidden as i64,
            rows: int(self.rows),
            hidden: int(self.op.hidden),
            vectorised: i32::from(vectorised),
            norm_epsilon: self.norm_epsilon(),
        }
    }

    fn first_params(&self) -> GateUpParams {
        let pointers = &self.pointers;
        // The plain MLP's only projection takes the gate's place.
        let (gate, gate_bias, up, up_bias) = if self.op.gated {
            let Pointers { gate_weight, gate_bias, up_weight, up_bias, .. } = pointers;
            (gate_weight, gate_bias, read(up_weight), read(up_bias))
        } else {
            (&pointers.up_weight, &pointers.up_bias, ReadPointer(0), ReadPointer(0))
        };
        let normalised = self.plan.norm.is_some();
        let (x, x_row_stride) = if normalised {
            (ReadPointer(self.scratch(self.plan.scratch.n)), self.op.hidden as i64)
        } else {
            (read(&pointers.x), pointers.x.row_stride())
        };
        let norm_weight =
            if self.plan.first_is_gemv { read(&pointers.norm_weight) } else { ReadPointer(0) };
        GateUpParams {
            x,
            norm_weight,
            gate_weight: read(gate),
            up_weight: up,
            gate_bias: read(gate_bias),
            up_bias,
            h: WritePointer(self.scratch(self.plan.scratch.h)),
            x_row_stride,
            gate_row_stride: gate.row_stride(),
            up_row_stride: if self.op.gated { pointers.up_weight.row_stride() } else { 0 },
            h_row_stride: self.op.ffn as i64,
            rows: int(self.rows),
            hidden: int(self.op.hidden),
            ffn: int(self.op.ffn),
            x_tile: int(self.plan.x_tile),
            vectorised: i32::from(self.plan.first_vectorised),
            round_gate_up: i32::from(self.op.rounding == Rounding::RoundGateUp),
            norm_epsilon: self.norm_epsilon(),
        }
    }

    fn down_params(&self) -> DownParams {
        let (pointers, scratch) = (&self.pointers, &self.plan.scratch);
        DownParams {
            h: ReadPointer(self.scratch(scratch.h)),
            down_weight: read(&pointers.down_weight),
            down_bias: read(&pointers.down_bias),
            residual: read(&pointers.residual),
            out: WritePointer(pointers.out.address()),
            partials: WritePointer(self.scratch(scratch.partials)),
            h_row_stride: self.op.ffn as i64,
            down_row_stride: pointers.down_weight.row_stride(),
            residual_row_stride: pointers.residual.row_stride(),
            out_row_stride: pointers.out.row_stride(),
            rows: int(self.rows),
            hidden: int(self.op.hidden),
            ffn: int(self.op.ffn),
            splits: int(self.plan.splits),
            vectorised: i32::from(self.plan.second_vectorised),
            out_dtype: self.out_dtype,
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
