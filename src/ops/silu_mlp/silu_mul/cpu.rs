//! `silu_mul` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use std::ops::Range;

use super::{SiluMul, SiluMulArgs};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::pieces::{PieceWork, Pieces};
use crate::backend::cpu::silu::silu_mul;
use crate::error::Error;
use crate::layout::HasLayout;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`SiluMul`] on the CPU: `silu(gate) * up`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; `out` is then untouched.
    pub fn silu_mul(
        &self,
        op: &SiluMul,
        mut args: SiluMulArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let rows = args.gate.layout().shape()[0];
        let pieces = Pieces::new(rows, op.columns);
        let work = Work {
            gate: FloatRows::new(args.gate),
            up: FloatRows::new(args.up),
            out: FloatRowsMut::new(&mut args.out),
        };
        self.run_pieces(pieces, work);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Work<'a> {
    gate: FloatRows<'a>,
    up: FloatRows<'a>,
    out: FloatRowsMut<'a>,
}

impl PieceWork for Work<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, rows: Range<usize>, columns: Range<usize>) {
        let Work { gate, up, out } = *self;
        for row in rows {
            for column in columns.clone().step_by(V::LANES) {
                let product = silu_mul(v, gate.load(v, row, column), up.load(v, row, column));
                // SAFETY: this piece is nobody else's.
                unsafe { out.store(v, product, row, column, columns.end - column) };
            }
        }
    }
}
