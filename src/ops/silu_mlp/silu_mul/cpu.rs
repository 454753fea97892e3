//! `silu_mul` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use super::{SiluMul, SiluMulArgs};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::{Leaf, VectorJob, Vectors};
use crate::backend::cpu::parallel::for_each_chunk;
use crate::backend::cpu::pieces::Pieces;
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
        let threads = pieces.count().min(self.threads());
        let job = Job {
            gate: FloatRows::new(args.gate),
            up: FloatRows::new(args.up),
            out: FloatRowsMut::new(&mut args.out),
            pieces,
            threads,
        };
        let dispatch = || self.instructions().dispatch(job);
        if threads > 1 {
            self.enter(dispatch)
        } else {
            dispatch()
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Job<'a> {
    gate: FloatRows<'a>,
    up: FloatRows<'a>,
    out: FloatRowsMut<'a>,
    pieces: Pieces,
    threads: usize,
}

impl VectorJob for Job<'_> {
    type Output = ();

    fn run<V: Vectors>(self, v: V) {
        for_each_chunk(self.threads, self.pieces.count(), &|_, index| {
            v.enter(Piece { v, job: self, index });
        });
    }
}

struct Piece<'a, V> {
    v: V,
    job: Job<'a>,
    index: usize,
}

impl<V: Vectors> Leaf for Piece<'_, V> {
    #[inline(always)]
    fn run(self) {
        let Piece { v, job: Job { gate, up, out, pieces, .. }, index } = self;
        let (rows, columns) = pieces.piece(index);
        for row in rows {
            for column in columns.clone().step_by(V::LANES) {
                let product = silu_mul(v, gate.load(v, row, column), up.load(v, row, column));
                // SAFETY: this piece is nobody else's.
                unsafe { out.store(v, product, row, column, columns.end - column) };
            }
        }
    }
}
