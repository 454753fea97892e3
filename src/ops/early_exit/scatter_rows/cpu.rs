//! `scatter_rows` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint rows of the destination")]

use std::ops::Range;

use bytemuck::Pod;

use super::{ScatterRows, ScatterRowsArgs};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::pieces::{PieceWork, Pieces};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::early_exit::moved_rows::{moved_entries, row_of};
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`ScatterRows`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, and the first entry of `permutation` that names a row again;
    /// `destination` is then untouched.
    pub fn scatter_rows(
        &self,
        op: &ScatterRows,
        mut args: ScatterRowsArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        let entries = moved_entries(args.permutation, args.count);
        let copy = Copy {
            rows: FloatRows::new(args.rows),
            entries,
            element_size: op.dtype().size(),
            destination_rows: args.destination.layout().shape()[0],
            destination: FloatRowsMut::new(&mut args.destination),
        };
        self.run_pieces(Pieces::new(entries.len(), op.features()), copy);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Copy<'a> {
    rows: FloatRows<'a>,
    entries: &'a [i32],
    element_size: usize,
    destination_rows: usize,
    destination: FloatRowsMut<'a>,
}

impl PieceWork for Copy<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, _v: V, rows: Range<usize>, columns: Range<usize>) {
        for row in rows {
            let Some(to) = row_of(self.entries[row], self.destination_rows) else { continue };
            // SAFETY: this piece is nobody else's, and `validate_values` showed that no two entries name one row.
            unsafe {
                if self.element_size == size_of::<u16>() {
                    self.row::<u16>(row, to, columns.clone());
                } else {
                    self.row::<u32>(row, to, columns.clone());
                }
            }
        }
    }
}

impl Copy<'_> {
    /// # Safety
    /// Nobody else uses these elements of the destination at the same time.
    unsafe fn row<E: Pod>(&self, from: usize, to: usize, columns: Range<usize>) {
        // SAFETY: the caller's promise.
        let to = unsafe { self.destination.bits::<E>(to, columns.clone()) };
        to.copy_from_slice(&self.rows.bits::<E>(from)[columns]);
    }
}
