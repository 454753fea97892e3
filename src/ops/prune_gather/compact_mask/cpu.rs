//! `compact_mask` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint rows of the outputs")]

use super::{CompactMask, CompactMaskArgs};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::parallel::{Shared, for_each_chunk};
use crate::error::Error;
use crate::layout::HasLayout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection::NO_INDEX;
use crate::tensor::{TensorMut, TensorRef};

/// Bytes of masks that keep a thread busy for several times as long as it takes to wake it.
const CHUNK_BYTES: usize = 1 << 14;

impl Cpu {
    /// [`CompactMask`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; the outputs are then untouched.
    pub fn compact_mask(
        &self,
        op: &CompactMask,
        mut args: CompactMaskArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let masks = op.masks(&args.mask.layout())?;
        let mask = Rows::of(&args.mask.layout());
        let bytes: &[u8] = args.mask.as_slice().unwrap_or_default();
        let indices = RowsMut::new(&mut args.indices);
        let rank = args.rank.as_mut().map(RowsMut::<i32>::new);
        let count = args.count.as_mut().map(RowsMut::<u32>::new);
        let chunk_masks = (CHUNK_BYTES / op.features.max(1)).max(1);
        let job = |_slot: usize, chunk: usize| {
            for row in chunk * chunk_masks..((chunk + 1) * chunk_masks).min(masks) {
                let mask = &bytes[mask.range(row, op.features)];
                // SAFETY: `validate` showed that rows do not overlap; each is one thread's.
                let (indices, rank) = unsafe {
                    let rank = rank.as_ref().map(|rank| rank.row(row, op.features));
                    (indices.row(row, op.features), rank)
                };
                let members = compact_row(mask, indices, rank);
                if let Some(count) = &count {
                    // SAFETY: as above, one element a row.
                    let count = unsafe { count.elements.slice(row..row + 1) };
                    count[0] = members;
                }
            }
        };
        let chunks = masks.div_ceil(chunk_masks);
        let threads = chunks.min(self.threads());
        if threads > 1 {
            self.enter(|| for_each_chunk(threads, chunks, &job));
        } else {
            for_each_chunk(threads, chunks, &job);
        }
        Ok(())
    }
}

fn compact_row(mask: &[u8], indices: &mut [u32], rank: Option<&mut [i32]>) -> u32 {
    let mut members = 0;
    for (index, &byte) in mask.iter().enumerate() {
        // Without a branch: what is no member is overwritten by the next one, or by the filler.
        indices[members] = index as u32;
        members += usize::from(byte != 0);
    }
    indices[members..].fill(NO_INDEX);
    if let Some(rank) = rank {
        let mut members = 0;
        for (rank, &byte) in rank.iter_mut().zip(mask) {
            let kept = i32::from(byte != 0);
            *rank = if kept == 1 { members } else { -1 };
            members += kept;
        }
    }
    members as u32
}

/// Where the rows of a tensor lie.
#[derive(Clone, Copy)]
struct Rows {
    stride: usize,
}

impl Rows {
    fn of(layout: &crate::Layout) -> Rows {
        Rows { stride: layout.row_stride() }
    }

    fn range(&self, row: usize, columns: usize) -> std::ops::Range<usize> {
        // Empty rows may lie anywhere, also outside the span.
        let start = if columns == 0 { 0 } else { row * self.stride };
        start..start + columns
    }
}

/// A tensor whose rows several threads write.
struct RowsMut<'a, T> {
    rows: Rows,
    elements: Shared<'a, T>,
}

impl<'a, T: crate::Element> RowsMut<'a, T> {
    fn new(tensor: &'a mut TensorMut<'_>) -> RowsMut<'a, T> {
        let rows = Rows::of(&tensor.layout());
        // Of another type it would have been refused.
        RowsMut { rows, elements: Shared::new(tensor.as_mut_slice().unwrap_or_default()) }
    }

    /// # Safety
    /// While the slice lives, nobody else uses the row.
    unsafe fn row(&self, row: usize, columns: usize) -> &'a mut [T] {
        // SAFETY: by the caller's promise.
        unsafe { self.elements.slice(self.rows.range(row, columns)) }
    }
}
