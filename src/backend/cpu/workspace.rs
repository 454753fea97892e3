//! Scratch memory in cache lines.

use bytemuck::{Pod, Zeroable};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Scratch memory that grows to what an operation needs and is then reused.
#[derive(Debug, Default)]
pub struct Workspace {
    lines: Vec<Line>,
}

impl Workspace {
    /// Memory for buffers of these sizes in bytes, each from [`Workspace::bytes_for`]; grows if need be.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Arena<'_> {
        let lines = bytes.div_ceil(LINE);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line::zeroed());
        }
        Arena { free: &mut self.lines }
    }

    /// Scratch memory of so many bytes that looks like NaN in every type, as an operation before may leave it.
    #[cfg(test)]
    pub(crate) fn poisoned(bytes: usize) -> Workspace {
        Workspace { lines: vec![Line([0xFF; LINE]); bytes.div_ceil(LINE)] }
    }

    /// Bytes that a buffer of `count` elements takes up: whole lines.
    pub(crate) const fn bytes_for<T>(count: usize) -> usize {
        (count * size_of::<T>()).next_multiple_of(LINE)
    }
}

/// The part of a workspace that is not yet given out.
pub(crate) struct Arena<'a> {
    free: &'a mut [Line],
}

impl<'a> Arena<'a> {
    /// The next buffer, aligned to 64 bytes, with whatever was left in it.
    pub fn take<T: Pod>(&mut self, count: usize) -> &'a mut [T] {
        let lines = Workspace::bytes_for::<T>(count) / LINE;
        let (taken, rest) = std::mem::take(&mut self.free).split_at_mut(lines);
        self.free = rest;
        &mut bytemuck::cast_slice_mut(taken)[..count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_disjoint_and_reused() {
        let mut workspace = Workspace::default();
        let bytes = Workspace::bytes_for::<f32>(17) + Workspace::bytes_for::<u16>(1);
        assert_eq!(bytes, 192);
        let mut arena = workspace.reserve(bytes);
        let (a, b) = (arena.take::<f32>(17), arena.take::<u16>(1));
        a.fill(1.0);
        b.fill(7);
        assert_eq!((a.as_ptr() as usize % LINE, b.as_ptr() as usize % LINE), (0, 0));
        assert_eq!((a[16], b[0]), (1.0, 7));
        let start = workspace.lines.as_ptr();
        workspace.reserve(64);
        assert_eq!((workspace.lines.as_ptr(), workspace.lines.len()), (start, 3));
    }
}
