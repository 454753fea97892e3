//! `scatter_norm_gather` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint parts of the outputs")]

use std::ops::Range;

use super::{ScatterNormGather, ScatterNormGatherArgs};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::pieces::{PieceWork, Pieces};
use crate::backend::cpu::rms_norm::Squares;
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::prune_gather::cpu::{Addends, BLOCK, Gather, Scatter};
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`ScatterNormGather`] on the CPU: `residual_out = residual + scatter(y)`, `gathered =
    /// rms_norm(residual_out)[:, in_indices]`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, and the first position of indices that are not strictly ascending
    /// or out of range, or of a rank that is not their inverse; the outputs are then untouched.
    pub fn scatter_norm_gather(
        &self,
        op: &ScatterNormGather,
        mut args: ScatterNormGatherArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        let pieces = Pieces::of_rows(args.residual_out.layout().shape()[0], op.features);
        let work = Work {
            scatter: Scatter {
                residual: FloatRows::new(args.residual),
                y: FloatRows::new(args.y),
                indices: index_values(args.out_indices),
            },
            residual_out: FloatRowsMut::new(&mut args.residual_out),
            gather: Gather {
                norm: Some((op.norm, FloatRows::new(args.norm_weight))),
                indices: index_values(args.in_indices),
                features: op.features,
                dtype: op.dtype,
                out: FloatRowsMut::new(&mut args.gathered),
            },
        };
        self.run_pieces(pieces, work);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Work<'a> {
    scatter: Scatter<'a>,
    residual_out: FloatRowsMut<'a>,
    gather: Gather<'a>,
}

impl PieceWork for Work<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, rows: Range<usize>, _columns: Range<usize>) {
        for row in rows {
            let squares = self.update(v, row);
            // SAFETY: the row has been written, and nobody else has it.
            let updated = unsafe { self.residual_out.row(row) };
            let scale = self.gather.scale(v, &updated, 0, || squares);
            let columns = 0..self.gather.indices.len();
            // SAFETY: this row is nobody else's.
            unsafe { self.gather.run(v, &updated, [0, row], columns, scale) };
        }
    }
}

impl Work<'_> {
    /// Writes a row of the sum; the squares of all its elements, rounded to the activations' type.
    #[inline(always)]
    fn update<V: Vectors>(&self, v: V, row: usize) -> Squares {
        let (scatter, features) = (self.scatter, self.gather.features);
        let mut squares = Squares::new();
        for first in (0..features).step_by(BLOCK) {
            let end = features.min(first + BLOCK);
            let mut addends = Addends::new();
            scatter.spread(v, row, scatter.members(&(first..end)), first, &mut addends);
            for column in (first..end).step_by(V::LANES) {
                let sum = scatter.sum(v, row, column, first, &addends);
                // SAFETY: this row is nobody else's.
                unsafe { self.residual_out.store(v, sum, row, column, end - column) };
                // Lanes behind the last column are 0 + -0.
                squares.add(v, v.round_to(self.gather.dtype, sum));
            }
        }
        squares
    }
}
