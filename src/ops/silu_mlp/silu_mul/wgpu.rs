//! `silu_mul` through wgpu.

use super::{SiluMul, SiluMulArgs};
use crate::backend::wgpu::registry::silu_mul::{Bindings, Constants, Parameters, SCALAR, VECTOR};
use crate::backend::wgpu::{
    Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, check_disjoint, dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;

impl Wgpu {
    /// Binds [`SiluMul`] to buffers: `silu(gate) * up`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_silu_mul(
        &self,
        op: &SiluMul,
        args: SiluMulArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let mut plan = PlanBuilder::new(self, SiluMul::NAME);
        let rows = args.out.layout().shape()[0];
        if args.out.layout().elements() == 0 {
            return plan.finish();
        }
        let operand = |name, tensor| Operand::new(SiluMul::NAME, name, tensor, self.capabilities());
        let gate = operand("gate", args.gate)?;
        let up = operand("up", args.up)?;
        let out = operand("out", args.out)?;
        check_disjoint(&out, &[gate, up])?;

        let vector =
            !self.dispatch().scalar_loads && [gate, up, out].iter().all(Operand::is_vectorisable);
        let constants = Constants {
            threads: self.capabilities().invocations.min(128),
            input: dtype_code(op.dtype),
            out: dtype_code(out.layout().dtype()),
        };
        // An invocation owns eight elements, or a word of the output.
        let units = if vector { op.columns as u32 / 8 } else { out.words_per_row() };
        let chunk =
            gate.rows_per_binding()?.min(up.rows_per_binding()?).min(out.rows_per_binding()?);
        for first in (0..rows).step_by(chunk) {
            let count = chunk.min(rows - first);
            let bindings = Bindings {
                gate: gate.rows(first, count)?,
                up: up.rows(first, count)?,
                out: out.rows(first, count)?,
            };
            let parameters = Parameters {
                columns: op.columns as u32,
                rows: count as u32,
                units,
                gate_start: bindings.gate.start,
                gate_stride: gate.stride(),
                up_start: bindings.up.start,
                up_stride: up.stride(),
                out_start: bindings.out.start,
                out_stride: out.stride(),
            };
            let workgroups =
                (count as u64 * u64::from(units)).div_ceil(u64::from(constants.threads));
            let shader = if vector { &VECTOR } else { &SCALAR };
            plan.dispatch(
                shader,
                constants.values(),
                &parameters,
                bindings.into_array(),
                workgroups,
            )?;
        }
        plan.finish()
    }
}
