//! `commit_cache` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint groups of the cache")]

use super::{CommitCache, CommitCacheArgs, CommitStatus};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::parallel::{Shared, for_each_chunk};
use crate::error::Error;
use crate::layout::{HasLayout as _, Layout};
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`CommitCache`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; cache and outputs are then untouched. What is wrong with a sequence's values
    /// is told by its status.
    pub fn commit_cache(
        &self,
        op: &CommitCache,
        mut args: CommitCacheArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let cache = args.cache.as_ref().map(|cache| cache.layout());
        let sequences = Sequences::new(op, &args, op.pages(cache.as_ref()));
        let statuses: Vec<CommitStatus> =
            (0..sequences.length.len()).map(|b| sequences.status(b)).collect();
        for (b, &status) in statuses.iter().enumerate() {
            keep_books(op, &sequences, b, status, &mut args);
        }
        if let Some(cache) = &mut args.cache {
            self.move_paths(&sequences, &statuses, cache);
        }
        Ok(())
    }

    /// A thread takes a group after the other: two sequences may, wrongly, name one page, but no page is in two groups.
    fn move_paths(
        &self,
        sequences: &Sequences<'_>,
        statuses: &[CommitStatus],
        cache: &mut TensorMut<'_>,
    ) {
        let layout = cache.layout();
        let groups = layout.shape()[0];
        if layout.elements() == 0 {
            return;
        }
        let size = layout.dtype().size();
        let group_bytes = layout.strides()[0] * size;
        // The last group has no gap behind it.
        let span_bytes = layout.span() * size - (groups - 1) * group_bytes;
        let bytes = Shared::new(cache.span_bytes_mut());
        let job = |_slot: usize, group: usize| {
            // SAFETY: `validate` showed that groups do not overlap; each is one thread's.
            let group =
                unsafe { bytes.slice(group * group_bytes..group * group_bytes + span_bytes) };
            for (b, &status) in statuses.iter().enumerate() {
                if status == CommitStatus::Fine {
                    sequences.move_path(b, &layout, group);
                }
            }
        };
        let threads = groups.min(self.threads());
        if threads > 1 {
            self.enter(|| for_each_chunk(threads, groups, &job));
        } else {
            for_each_chunk(threads, groups, &job);
        }
    }
}

/// Length, status and freed pages of a sequence.
fn keep_books(
    op: &CommitCache,
    sequences: &Sequences<'_>,
    b: usize,
    status: CommitStatus,
    args: &mut CommitCacheArgs<TensorRef<'_>, TensorMut<'_>>,
) {
    let is_fine = status == CommitStatus::Fine;
    let length = sequences.length[b] + if is_fine { sequences.emitted[b] } else { 0 };
    put(&mut args.committed_length, b, length);
    put(&mut args.status, b, status as i32);
    let behind = match op.page_size() {
        // Not negative: it is committed.
        Some(page_size) if is_fine => (length as usize).div_ceil(page_size),
        _ => op.table_length(),
    };
    let table = sequences.table(b);
    let freed = table.iter().skip(behind).copied().filter(|&page| sequences.is_page(page));
    if let Some(count) = &mut args.freed_count {
        put(count, b, freed.clone().count() as i32);
    }
    if let Some(pages) = &mut args.freed_pages {
        let stride = pages.layout().row_stride();
        let freed = freed.chain(std::iter::repeat(-1)).take(op.table_length());
        for (place, page) in freed.enumerate() {
            put(pages, b * stride + place, page);
        }
    }
}

fn put(tensor: &mut TensorMut<'_>, at: usize, value: i32) {
    // Of another type it would have been refused.
    if let Some(elements) = tensor.as_mut_slice::<i32>() {
        elements[at] = value;
    }
}

/// The tensors that say what to do.
struct Sequences<'a> {
    op: &'a CommitCache,
    length: &'a [i32],
    emitted: &'a [i32],
    path: Option<Rows<'a>>,
    table: Option<Rows<'a>>,
    pages: usize,
}

#[derive(Clone, Copy)]
struct Rows<'a> {
    elements: &'a [i32],
    stride: usize,
    columns: usize,
}

impl<'a> Rows<'a> {
    fn new(tensor: TensorRef<'a>) -> Rows<'a> {
        let layout = tensor.layout();
        let elements = tensor.as_slice().unwrap_or_default();
        Rows { elements, stride: layout.row_stride(), columns: layout.columns() }
    }

    fn row(&self, row: usize) -> &'a [i32] {
        // Empty rows may lie anywhere, also outside the span.
        if self.columns == 0 { &[] } else { &self.elements[row * self.stride..][..self.columns] }
    }
}

impl<'a> Sequences<'a> {
    fn new(
        op: &'a CommitCache,
        args: &CommitCacheArgs<TensorRef<'a>, TensorMut<'_>>,
        pages: usize,
    ) -> Sequences<'a> {
        Sequences {
            op,
            length: args.length.as_slice().unwrap_or_default(),
            emitted: args.emitted.as_slice().unwrap_or_default(),
            path: args.path.map(Rows::new),
            table: args.page_table.map(Rows::new),
            pages,
        }
    }

    fn table(&self, b: usize) -> &'a [i32] {
        self.table.map_or(&[], |table| table.row(b))
    }

    fn is_page(&self, page: i32) -> bool {
        usize::try_from(page).is_ok_and(|page| page < self.pages)
    }

    /// The drafts whose rows are kept, or as many of them as there are.
    fn nodes(&self, b: usize) -> &'a [i32] {
        let path = self.path.map_or(&[][..], |path| path.row(b));
        let moves = usize::try_from(self.emitted[b]).unwrap_or(0).saturating_sub(1);
        &path[..moves.min(path.len())]
    }

    fn status(&self, b: usize) -> CommitStatus {
        let nodes = self.nodes(b);
        let (Ok(length), Ok(emitted)) =
            (usize::try_from(self.length[b]), usize::try_from(self.emitted[b]))
        else {
            return CommitStatus::Malformed;
        };
        let is_short = self.path.is_some() && nodes.len() + 1 < emitted;
        let is_ascending = nodes.is_sorted_by(|a, b| a < b);
        if is_short || !is_ascending || nodes.first().is_some_and(|&node| node < 0) {
            return CommitStatus::Malformed;
        }
        // Ascending: the last node's row is the farthest.
        let farthest = nodes.last().map_or(0, |&node| length + 2 + node as usize);
        if farthest.max(length + emitted) > self.op.capacity() {
            return CommitStatus::Full;
        }
        let Some(page_size) = self.op.page_size() else { return CommitStatus::Fine };
        let table = self.table(b);
        let mut new =
            length / page_size..(length + emitted).div_ceil(page_size).max(length / page_size);
        if emitted == 0 {
            new.end = new.start;
        }
        let mut moved = nodes.iter().map(|&node| (length + 1 + node as usize) / page_size);
        if table[new].iter().all(|&page| self.is_page(page))
            && moved.all(|page| self.is_page(table[page]))
        {
            CommitStatus::Fine
        } else {
            CommitStatus::NoPage
        }
    }

    /// Moves a sequence's rows within a group, in ascending order: path is ascending, so `path[i] >= i`, and the row that
    /// step i overwrites is one that no later step reads.
    fn move_path(&self, b: usize, cache: &Layout, group: &mut [u8]) {
        let size = cache.dtype().size();
        let row_bytes = cache.columns() * size;
        // Not negative: the sequence can be committed.
        let first = self.length[b] as usize + 1;
        for (place, &node) in self.nodes(b).iter().enumerate() {
            if node as usize == place {
                continue;
            }
            let from = self.row(b, cache, first + node as usize) * size;
            let to = self.row(b, cache, first + place) * size;
            group.copy_within(from..from + row_bytes, to);
        }
    }

    /// First element of a position's row, from the start of a group.
    fn row(&self, b: usize, cache: &Layout, position: usize) -> usize {
        let (block, row) = match self.op.page_size() {
            Some(page_size) => (self.table(b)[position / page_size] as usize, position % page_size),
            None => (b, position),
        };
        block * cache.strides()[1] + row * cache.strides()[2]
    }
}
