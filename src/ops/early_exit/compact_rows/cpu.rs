//! `compact_rows` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint rows of the output")]

use std::ops::Range;

use bytemuck::Pod;

use super::{CompactRows, CompactRowsArgs};
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
    /// [`CompactRows`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; the output is then untouched.
    pub fn compact_rows(
        &self,
        op: &CompactRows,
        mut args: CompactRowsArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let layout = args.compacted.layout();
        let copy = Copy {
            x: FloatRows::new(args.x),
            x_rows: args.x.layout().shape()[0],
            entries: moved_entries(args.permutation, args.count),
            element_size: layout.dtype().size(),
            compacted: FloatRowsMut::new(&mut args.compacted),
        };
        self.run_pieces(Pieces::new(layout.shape()[0], layout.columns()), copy);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Copy<'a> {
    x: FloatRows<'a>,
    x_rows: usize,
    entries: &'a [i32],
    element_size: usize,
    compacted: FloatRowsMut<'a>,
}

impl PieceWork for Copy<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, _v: V, rows: Range<usize>, columns: Range<usize>) {
        for row in rows {
            // SAFETY: this piece is nobody else's.
            unsafe {
                if self.element_size == size_of::<u16>() {
                    self.row::<u16>(row, columns.clone());
                } else {
                    self.row::<u32>(row, columns.clone());
                }
            }
        }
    }
}

impl Copy<'_> {
    /// # Safety
    /// Nobody else uses these elements of the output at the same time.
    unsafe fn row<E: Pod>(&self, row: usize, columns: Range<usize>) {
        // SAFETY: the caller's promise.
        let to = unsafe { self.compacted.bits::<E>(row, columns.clone()) };
        match self.entries.get(row).and_then(|&entry| row_of(entry, self.x_rows)) {
            Some(from) => to.copy_from_slice(&self.x.bits::<E>(from)[columns]),
            None => to.fill(E::zeroed()),
        }
    }
}
