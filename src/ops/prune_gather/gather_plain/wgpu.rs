//! Copies of selected rows and columns through wgpu.

use super::{GatherPlain, GatherPlainTensors};
use crate::backend::wgpu::registry::gather_plain::{Bindings, Constants, ONLY, Parameters};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, check_disjoint, dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;

/// The arguments' names where they differ from those of [`GatherPlainTensors`].
#[derive(Clone, Copy)]
pub(in crate::ops::prune_gather) struct Names {
    pub x: &'static str,
    pub columns: &'static str,
}

/// Binds a copy; the tensors' shapes are validated.
pub(in crate::ops::prune_gather) fn plan(
    wgpu: &Wgpu,
    gather: &GatherPlain,
    names: Names,
    args: GatherPlainTensors<WgpuTensor<'_>, WgpuTensor<'_>>,
) -> Result<Plan, Error> {
    let mut plan = PlanBuilder::new(wgpu, gather.op);
    let layout = args.out.layout();
    if layout.elements() == 0 {
        return plan.finish();
    }
    let launch = Launch::new(wgpu, gather, names, args)?;
    let rows = layout.shape()[0];
    let most = launch.rows_at_once()?;
    let constants = Constants {
        threads: wgpu.capabilities().invocations.min(128),
        input: dtype_code(gather.dtype),
        out: dtype_code(layout.dtype()),
    };
    for first in (0..rows).step_by(most) {
        let count = most.min(rows - first);
        let bindings = launch.bindings(first, count)?;
        let parameters = launch.parameters(&bindings, count);
        let words = count as u64 * u64::from(parameters.units);
        let workgroups = words.div_ceil(u64::from(constants.threads));
        plan.dispatch(&ONLY, constants.values(), &parameters, bindings.into_array(), workgroups)?;
    }
    plan.finish()
}

struct Launch<'a> {
    selected: usize,
    x: Operand<'a>,
    rows: Option<Operand<'a>>,
    columns: Option<Operand<'a>>,
    out: Operand<'a>,
    /// Whether there is nothing to copy: all of `out` is padding.
    is_empty: bool,
}

impl<'a> Launch<'a> {
    /// Checks the buffers.
    fn new(
        wgpu: &Wgpu,
        gather: &GatherPlain,
        names: Names,
        args: GatherPlainTensors<WgpuTensor<'a>, WgpuTensor<'a>>,
    ) -> Result<Launch<'a>, Error> {
        let operand = |name, tensor| Operand::new(gather.op, name, tensor, wgpu.capabilities());
        let x = operand(names.x, args.x)?;
        let out = operand("out", args.out)?;
        let rows = args.rows.map(|rows| operand("rows", rows)).transpose()?;
        let columns = args.columns.map(|columns| operand(names.columns, columns)).transpose()?;
        let inputs: Vec<_> = [Some(x), rows, columns].into_iter().flatten().collect();
        check_disjoint(&out, &inputs)?;
        let is_empty = gather.selected == 0 || x.layout().elements() == 0;
        Ok(Launch { selected: gather.selected, x, rows, columns, out, is_empty })
    }

    fn rows_at_once(&self) -> Result<usize, Error> {
        let most = self.out.rows_per_binding()?;
        if self.rows.is_some() || self.is_empty {
            return Ok(most);
        }
        Ok(most.min(self.x.rows_per_binding()?))
    }

    fn bindings(&self, first: usize, count: usize) -> Result<Bindings<Bound<'a>>, Error> {
        Ok(Bindings {
            x: match (self.is_empty, self.rows) {
                (true, _) => Ok(Bound::ABSENT),
                // Any row may be wanted.
                (false, Some(_)) => self.x.whole(),
                (false, None) => self.x.rows(first, count),
            }?,
            row_indices: self.rows.map_or(Ok(Bound::ABSENT), |rows| rows.elements(first, count))?,
            column_indices: match self.columns {
                Some(columns) if !self.is_empty => columns.whole()?,
                _ => Bound::ABSENT,
            },
            out: self.out.rows(first, count)?,
        })
    }

    fn parameters(&self, bindings: &Bindings<Bound<'_>>, count: usize) -> Parameters {
        let bound_rows = if self.rows.is_some() { self.x.layout().shape()[0] } else { count };
        Parameters {
            x_rows: if self.is_empty { 0 } else { bound_rows as u32 },
            x_columns: self.x.layout().columns() as u32,
            rows: count as u32,
            selected: self.selected as u32,
            columns: self.out.layout().columns() as u32,
            units: self.out.words_per_row(),
            x_start: bindings.x.start,
            x_stride: self.x.stride(),
            rows_start: bindings.row_indices.start,
            columns_start: bindings.column_indices.start,
            out_start: bindings.out.start,
            out_stride: self.out.stride(),
            has_rows: u32::from(self.rows.is_some()),
            has_columns: u32::from(self.columns.is_some()),
        }
    }
}
