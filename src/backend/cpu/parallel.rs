//! Fork and join over a thread pool, without allocation.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::denormals::FlushDenormals;

/// Calls `job(slot, chunk)` for every `chunk` below `chunks`, with `slot` below `slots`.
///
/// Each slot takes one chunk after another until none is left, so that a thread that was held up costs at
/// most one chunk's time. No two calls with one slot overlap: a slot may own scratch memory. Denormals are
/// flushed meanwhile.
///
/// Not generic: rayon's machinery would be compiled for each of the crate's hundreds of loops.
pub(crate) fn for_each_chunk(slots: usize, chunks: usize, job: &(dyn Fn(usize, usize) + Sync)) {
    let next = AtomicUsize::new(0);
    for_each_slot(0..slots.min(chunks), &|slot| {
        let _flush = FlushDenormals::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            if chunk >= chunks {
                break;
            }
            job(slot, chunk);
        }
    });
}

fn for_each_slot(slots: Range<usize>, job: &(dyn Fn(usize) + Sync)) {
    match slots.len() {
        0 => {}
        1 => job(slots.start),
        length => {
            let middle = slots.start + length / 2;
            rayon::join(
                || for_each_slot(slots.start..middle, job),
                || for_each_slot(middle..slots.end, job),
            );
        }
    }
}

/// A part of `0..length`: the `index`-th piece of `size`.
pub(crate) fn chunk(length: usize, size: usize, index: usize) -> Range<usize> {
    (index * size).min(length)..((index + 1) * size).min(length)
}

/// A buffer that several threads write, each its own part.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// By hand, since `derive` would ask for elements that can be copied.
impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: access goes through `slice`, whose callers promise not to overlap.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(buffer: &'a mut [T]) -> Shared<'a, T> {
        Shared { start: buffer.as_mut_ptr(), length: buffer.len(), buffer: PhantomData }
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// While the slice lives, nobody else uses any element of it.
    #[allow(clippy::mut_from_ref, reason = "exclusive by the caller's promise")]
    pub unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "outside the buffer");
        // SAFETY: inside the buffer, which is borrowed for 'a; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once_and_slots_do_not_overlap() {
        for (slots, chunks) in [(1, 5), (3, 100), (4, 2), (2, 0)] {
            let runs: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
            let busy: Vec<AtomicUsize> = (0..slots).map(|_| AtomicUsize::new(0)).collect();
            for_each_chunk(slots, chunks, &|slot, chunk| {
                assert_eq!(busy[slot].fetch_add(1, Ordering::SeqCst), 0);
                runs[chunk].fetch_add(1, Ordering::SeqCst);
                busy[slot].fetch_sub(1, Ordering::SeqCst);
            });
            assert!(runs.iter().all(|runs| runs.load(Ordering::SeqCst) == 1));
        }
    }

    #[test]
    fn chunks_cover_the_whole() {
        let parts: Vec<_> = (0..4).map(|index| chunk(10, 4, index)).collect();
        assert_eq!(parts, [0..4, 4..8, 8..10, 10..10]);
    }
}
