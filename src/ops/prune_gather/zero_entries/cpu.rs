//! `zero_entries` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use super::{ZeroEntries, ZeroEntriesArgs, matrix};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::parallel::{Shared, chunk, for_each_chunk};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

/// Bytes that keep a thread busy for several times as long as it takes to wake it.
const CHUNK_BYTES: usize = 1 << 18;

impl Cpu {
    /// [`ZeroEntries`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; `out` is then untouched.
    pub fn zero_entries(
        &self,
        op: &ZeroEntries,
        mut args: ZeroEntriesArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        let used = op.used(args.indices, args.count)?;
        let (from, to) = (args.weight.layout(), args.out.layout());
        // Bytes, whatever the type: they are moved, not looked at.
        let size = op.dtype.size();
        let whole = from.is_contiguous() && to.is_contiguous();
        let [rows, columns] = if whole { [1, op.elements] } else { matrix(&from) };
        let row_bytes = columns * size;
        let [from_stride, to_stride] = [from, to].map(|layout| layout.row_stride() * size);
        let across = row_bytes.div_ceil(CHUNK_BYTES);
        let weight = args.weight.span_bytes();
        let out = args.out.span_bytes_mut();
        let shared = Shared::new(out);
        let job = |_slot: usize, piece: usize| {
            let row = piece / across;
            let part = chunk(row_bytes, CHUNK_BYTES, piece % across);
            let [from, to] = [from_stride, to_stride]
                .map(|stride| row * stride + part.start..row * stride + part.end);
            // SAFETY: rows do not overlap, by `validate`, and neither do parts of one.
            unsafe { shared.slice(to) }.copy_from_slice(&weight[from]);
        };
        let pieces = rows * across;
        let threads = pieces.min(self.threads());
        if threads > 1 {
            self.enter(|| for_each_chunk(threads, pieces, &job));
        } else {
            for_each_chunk(threads, pieces, &job);
        }
        for &index in used {
            let index = index as usize;
            let at = index / columns * to_stride + index % columns * size;
            out[at..at + size].fill(0);
        }
        Ok(())
    }
}
