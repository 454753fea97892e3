//! `gather_norm` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use std::ops::Range;

use super::{GatherNorm, GatherNormArgs};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::pieces::{PieceWork, Pieces};
use crate::backend::cpu::rms_norm::Squares;
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::prune_gather::cpu::Gather;
use crate::ops::prune_gather::gather_plain::{GatherPlainTensors, gather_plain};
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`GatherNorm`] on the CPU: `out = rms_norm(x)[:, indices]`, or `x[:, indices]`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, and the first position of indices that are not strictly ascending
    /// or out of range; `out` is then untouched.
    pub fn gather_norm(
        &self,
        op: &GatherNorm,
        mut args: GatherNormArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        if op.norm.is_none() && args.out.layout().dtype() == op.dtype {
            let GatherNormArgs { x, indices, out, .. } = args;
            let columns = Some(indices);
            gather_plain(self, GatherPlainTensors { x, rows: None, columns, out });
            return Ok(());
        }
        let pieces = Pieces::new(args.x.layout().shape()[0], op.selected);
        let work = Work {
            x: FloatRows::new(args.x),
            gather: Gather {
                norm: op.norm.zip(args.norm_weight.map(FloatRows::new)),
                indices: index_values(args.indices),
                features: op.features,
                dtype: op.dtype,
                out: FloatRowsMut::new(&mut args.out),
            },
        };
        self.run_pieces(pieces, work);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Work<'a> {
    x: FloatRows<'a>,
    gather: Gather<'a>,
}

impl PieceWork for Work<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, rows: Range<usize>, columns: Range<usize>) {
        let Work { x, gather } = *self;
        for row in rows {
            // A row that is cut into pieces is summed by each of them, in the same order.
            let scale = gather.scale(v, &x, row, || {
                let mut squares = Squares::new();
                squares.add_row(v, &x, row, gather.features);
                squares
            });
            // SAFETY: this piece is nobody else's.
            unsafe { gather.run(v, &x, [row, row], columns.clone(), scale) };
        }
    }
}
