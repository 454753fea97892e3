//! The scalar oracle of `commit_cache`.

use super::{CommitCache, CommitCacheArgs, CommitStatus};
use crate::error::Error;
use crate::layout::{HasLayout as _, Layout};
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef, with_float};

pub(super) fn commit_cache(
    op: &CommitCache,
    mut args: CommitCacheArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    let batch = args.length.layout().elements();
    let values = |tensor: &Option<TensorRef<'_>>| {
        tensor.map_or_else(Vec::new, |tensor| tensor.to_f64().iter().map(|&v| v as i64).collect())
    };
    let (length, emitted) = (values(&Some(args.length)), values(&Some(args.emitted)));
    let (path, table) = (values(&args.path), values(&args.page_table));
    let drafts = args.path.map_or(0, |path| path.layout().columns());
    let cache = args.cache.as_ref().map(|cache| cache.layout());
    let (mut committed, mut status) = (Vec::new(), Vec::new());
    let (mut freed_pages, mut freed_count) = (Vec::new(), Vec::new());
    for b in 0..batch {
        let table_row = &table[b * op.table_length()..][..op.table_length()];
        let sequence = Sequence {
            op,
            index: b,
            length: length[b],
            emitted: emitted[b],
            path: args.path.map(|_| &path[b * drafts..][..drafts]),
            table: table_row,
            pages: op.pages(cache.as_ref()) as i64,
        };
        let verdict = sequence.status();
        let is_fine = verdict == CommitStatus::Fine;
        let end = if is_fine { length[b] + emitted[b] } else { length[b] };
        committed.push(end as f64);
        status.push(f64::from(verdict as i32));
        let mut freed = Vec::new();
        if let (true, Some(size)) = (is_fine, op.page_size()) {
            let behind = (end as usize).div_ceil(size);
            freed.extend(table_row[behind..].iter().filter(|&&page| sequence.is_page(page)));
        }
        freed_count.push(freed.len() as f64);
        freed.resize(op.table_length(), -1);
        freed_pages.extend(freed.into_iter().map(|page| page as f64));
        if let (true, Some(cache)) = (is_fine, &mut args.cache) {
            sequence.move_rows(cache);
        }
    }
    args.committed_length.write_f64(committed);
    args.status.write_f64(status);
    if let Some(tensor) = &mut args.freed_pages {
        tensor.write_f64(freed_pages);
    }
    if let Some(tensor) = &mut args.freed_count {
        tensor.write_f64(freed_count);
    }
    Ok(())
}

struct Sequence<'a> {
    op: &'a CommitCache,
    index: usize,
    length: i64,
    emitted: i64,
    path: Option<&'a [i64]>,
    table: &'a [i64],
    pages: i64,
}

impl Sequence<'_> {
    fn is_page(&self, page: i64) -> bool {
        (0..self.pages).contains(&page)
    }

    /// Rows that move, the pending token's left out.
    fn moves(&self) -> usize {
        if self.path.is_some() { (self.emitted - 1).max(0) as usize } else { 0 }
    }

    fn status(&self) -> CommitStatus {
        let moves = self.moves();
        let path = self.path.unwrap_or_default();
        if self.length < 0 || self.emitted < 0 || moves > path.len() {
            return CommitStatus::Malformed;
        }
        let nodes = &path[..moves];
        if nodes.iter().any(|&node| node < 0) || nodes.windows(2).any(|pair| pair[0] >= pair[1]) {
            return CommitStatus::Malformed;
        }
        let new = self.length..self.length + self.emitted;
        let moved = nodes.iter().map(|node| self.length + 1 + node);
        let capacity = self.op.capacity() as i64;
        if new.end > capacity || moved.clone().any(|position| position >= capacity) {
            return CommitStatus::Full;
        }
        let size = self.op.page_size().unwrap_or(1) as i64;
        let is_there = |position: i64| self.is_page(self.table[(position / size) as usize]);
        if self.op.page_size().is_some() && !new.chain(moved).all(is_there) {
            return CommitStatus::NoPage;
        }
        CommitStatus::Fine
    }

    /// All rows at once: none is overwritten before it is read.
    fn move_rows(&self, cache: &mut TensorMut<'_>) {
        let layout = cache.layout();
        let columns = layout.columns();
        with_float!(layout.dtype(), T => {
            let elements: &mut [T] = cache.as_mut_slice().unwrap_or_default();
            for group in 0..layout.shape()[0] {
                let nodes = &self.path.unwrap_or_default()[..self.moves()];
                let start = |offset: i64| self.start(&layout, group, (self.length + 1 + offset) as usize);
                let rows: Vec<Vec<T>> =
                    nodes.iter().map(|&node| elements[start(node)..][..columns].to_vec()).collect();
                for (place, row) in rows.iter().enumerate() {
                    elements[start(place as i64)..][..columns].copy_from_slice(row);
                }
            }
        });
    }

    /// First element of a position's row.
    fn start(&self, cache: &Layout, group: usize, position: usize) -> usize {
        let (block, row) = match self.op.page_size() {
            Some(size) => (self.table[position / size] as usize, position % size),
            None => (self.index, position),
        };
        let strides = cache.strides();
        // Rows without elements may lie anywhere, also outside the span.
        if cache.elements() == 0 {
            0
        } else {
            group * strides[0] + block * strides[1] + row * strides[2]
        }
    }
}
