//! `scatter_add` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use std::ops::Range;

use super::{ScatterAdd, ScatterAddArgs};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::pieces::{PieceWork, Pieces};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::prune_gather::cpu::{Addends, BLOCK, Scatter};
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`ScatterAdd`] on the CPU: `out = residual + scatter(y)`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, and the first position of indices that are not strictly ascending
    /// or out of range, or of a rank that is not their inverse; `out` is then untouched.
    pub fn scatter_add(
        &self,
        op: &ScatterAdd,
        mut args: ScatterAddArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        let pieces = Pieces::new(args.out.layout().shape()[0], op.features);
        let work = Work {
            scatter: Scatter {
                residual: FloatRows::new(args.residual),
                y: FloatRows::new(args.y),
                indices: index_values(args.indices),
            },
            out: FloatRowsMut::new(&mut args.out),
        };
        self.run_pieces(pieces, work);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Work<'a> {
    scatter: Scatter<'a>,
    out: FloatRowsMut<'a>,
}

impl PieceWork for Work<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, rows: Range<usize>, columns: Range<usize>) {
        let Work { scatter, out } = *self;
        for first in columns.clone().step_by(BLOCK) {
            let end = columns.end.min(first + BLOCK);
            let members = scatter.members(&(first..end));
            // Every row overwrites the same places.
            let mut addends = Addends::new();
            for row in rows.clone() {
                scatter.spread(v, row, members.clone(), first, &mut addends);
                for column in (first..end).step_by(V::LANES) {
                    let sum = scatter.sum(v, row, column, first, &addends);
                    // SAFETY: this piece is nobody else's.
                    unsafe { out.store(v, sum, row, column, end - column) };
                }
            }
        }
    }
}
