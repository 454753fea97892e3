//! Copies of selected rows and columns on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use std::ops::Range;

use bytemuck::Pod;

use super::GatherPlainTensors;
use crate::backend::cpu::Cpu;
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::pieces::{PieceWork, Pieces};
use crate::layout::HasLayout as _;
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

/// Copies elements of 16 or 32 bits; `x` and `out` are of one type, the indices in range.
pub(in crate::ops::prune_gather) fn gather_plain(
    cpu: &Cpu,
    mut args: GatherPlainTensors<TensorRef<'_>, TensorMut<'_>>,
) {
    let layout = args.out.layout();
    let pieces = Pieces::new(layout.shape()[0], layout.columns());
    let copy = Copy {
        x: FloatRows::new(args.x),
        rows: args.rows.map(index_values),
        columns: args.columns.map(index_values),
        x_columns: args.x.layout().columns(),
        element_size: layout.dtype().size(),
        out: FloatRowsMut::new(&mut args.out),
    };
    cpu.run_pieces(pieces, copy);
}

#[derive(Clone, Copy)]
struct Copy<'a> {
    x: FloatRows<'a>,
    rows: Option<&'a [u32]>,
    columns: Option<&'a [u32]>,
    x_columns: usize,
    element_size: usize,
    out: FloatRowsMut<'a>,
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
        let to = unsafe { self.out.bits::<E>(row, columns.clone()) };
        let selected = self.columns.map_or(self.x_columns, <[u32]>::len);
        let copied = columns.start.min(selected)..columns.end.min(selected);
        let (to, padding) = to.split_at_mut(copied.len());
        padding.fill(E::zeroed());
        if copied.is_empty() {
            return;
        }
        let from = self.x.bits::<E>(self.rows.map_or(row, |rows| rows[row] as usize));
        match self.columns {
            None => to.copy_from_slice(&from[copied]),
            Some(positions) => {
                for (to, &position) in to.iter_mut().zip(&positions[copied]) {
                    *to = from[position as usize];
                }
            }
        }
    }
}
