//! `zero_entries` through wgpu.

use super::{ZeroEntries, ZeroEntriesArgs, matrix};
use crate::backend::wgpu::registry::{zero_copy, zero_entries};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor, check_disjoint, dtype_code,
};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;

impl Wgpu {
    /// Binds [`ZeroEntries`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_zero_entries(
        &self,
        op: &ZeroEntries,
        args: ZeroEntriesArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let operand =
            |name, tensor| Operand::new(ZeroEntries::NAME, name, tensor, self.capabilities());
        let weight = operand("weight", args.weight)?;
        let indices = operand("indices", args.indices)?;
        let count = args.count.map(|count| operand("count", count)).transpose()?;
        let out = operand("out", args.out)?;
        check_disjoint(&out, &[weight, indices])?;
        check_disjoint(&out, count.as_slice())?;
        let mut plan = PlanBuilder::new(self, ZeroEntries::NAME);
        if op.elements == 0 {
            return plan.finish();
        }
        let whole = weight.layout().is_contiguous() && out.layout().is_contiguous();
        let edit = Edit { op, threads: self.capabilities().invocations.min(128), indices, count };
        let [rows, columns] = matrix(&weight.layout());
        if whole {
            // As one row, of which a binding holds a part; whole words, so that parts share none.
            let most = weight.elements_per_binding().min(out.elements_per_binding()) / 2 * 2;
            for first in (0..op.elements).step_by(most.max(2)) {
                let count = most.max(2).min(op.elements - first);
                let part = Part {
                    weight: (weight.elements(first, count)?, 0),
                    out: (out.elements(first, count)?, 0),
                    rows: 1,
                    columns: count,
                    first,
                };
                edit.part(&mut plan, part)?;
            }
        } else {
            let most = weight.rows_per_binding()?.min(out.rows_per_binding()?);
            for first in (0..rows).step_by(most) {
                let count = most.min(rows - first);
                let part = Part {
                    weight: (weight.rows(first, count)?, weight.stride()),
                    out: (out.rows(first, count)?, out.stride()),
                    rows: count,
                    columns,
                    first: first * columns,
                };
                edit.part(&mut plan, part)?;
            }
        }
        plan.finish()
    }
}

struct Edit<'a> {
    op: &'a ZeroEntries,
    threads: u32,
    indices: Operand<'a>,
    count: Option<Operand<'a>>,
}

/// Rows that fit a binding, with the elements between them.
struct Part<'a> {
    weight: (Bound<'a>, u32),
    out: (Bound<'a>, u32),
    rows: usize,
    columns: usize,
    /// Flat index of the first element.
    first: usize,
}

impl<'a> Edit<'a> {
    fn part(&self, plan: &mut PlanBuilder<'a>, part: Part<'a>) -> Result<(), Error> {
        let (threads, input) = (self.threads, dtype_code(self.op.dtype));
        let units = match self.op.dtype {
            DType::F32 => part.columns,
            // A row that starts in the middle of a word touches one more than its length says.
            _ => part.columns / 2 + 1,
        };
        let parameters = zero_copy::Parameters {
            columns: part.columns as u32,
            rows: part.rows as u32,
            units: units as u32,
            weight_start: part.weight.0.start,
            weight_stride: part.weight.1,
            out_start: part.out.0.start,
            out_stride: part.out.1,
        };
        let bindings = zero_copy::Bindings { weight: part.weight.0, out: part.out.0 };
        let workgroups = |work: usize| (work as u64).div_ceil(u64::from(threads));
        plan.dispatch(
            &zero_copy::ONLY,
            zero_copy::Constants { threads, input }.values(),
            &parameters,
            bindings.into_array(),
            workgroups(part.rows * units),
        )?;
        let entries = self.indices.layout().elements();
        if entries == 0 {
            return Ok(());
        }
        let indices = self.indices.whole()?;
        let count = self.count.map_or(Ok(Bound::ABSENT), |count| count.whole())?;
        let parameters = zero_entries::Parameters {
            columns: part.columns as u32,
            elements: (part.rows * part.columns) as u32,
            first_element: part.first as u32,
            entries: entries as u32,
            indices_start: indices.start,
            count_start: count.start,
            out_start: part.out.0.start,
            out_stride: part.out.1,
        };
        let constants = zero_entries::Constants { threads, input, count: self.count.is_some() };
        let bindings = zero_entries::Bindings { indices, count, out: part.out.0 };
        plan.dispatch(
            &zero_entries::ONLY,
            constants.values(),
            &parameters,
            bindings.into_array(),
            workgroups(entries),
        )
    }
}
