//! Where an argument lies in device memory, and whether two of them share bytes.

use cudarc::driver::sys::CUdeviceptr;

use crate::layout::Layout;

/// The bytes that a tensor's elements occupy: rows of `row_bytes`, `pitch` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    start: u64,
    end: u64,
    pitch: u64,
    row_bytes: u64,
}

impl Region {
    /// A block of bytes without gaps.
    pub fn block(pointer: CUdeviceptr, bytes: usize) -> Region {
        let bytes = bytes as u64;
        Region {
            start: pointer,
            end: pointer.saturating_add(bytes),
            pitch: bytes,
            row_bytes: bytes,
        }
    }

    /// A tensor's elements. Only matrices have gaps here; others count as one block from first to last element.
    pub fn of(pointer: CUdeviceptr, layout: &Layout) -> Region {
        let size = layout.dtype().size();
        let block = Region::block(pointer, layout.span() * size);
        match layout.shape() {
            [rows, columns] if *rows > 1 && layout.has_unit_inner_stride() => Region {
                pitch: (layout.row_stride() * size) as u64,
                row_bytes: (columns * size) as u64,
                ..block
            },
            _ => block,
        }
    }

    /// Whether the regions have a byte in common. Rows of two matrices with one pitch may lie side by side, as the
    /// columns of a wider matrix do; any other interleaving counts as overlap.
    pub fn overlaps(&self, other: &Region) -> bool {
        let disjoint = self.end <= other.start || other.end <= self.start;
        if disjoint || self.start == self.end || other.start == other.end {
            return false;
        }
        self.pitch != other.pitch || !(self.beside(other) || other.beside(self))
    }

    /// Whether the other's rows lie in the gaps behind this one's rows.
    fn beside(&self, other: &Region) -> bool {
        let pitch = i128::from(self.pitch);
        let offset = (i128::from(other.start) - i128::from(self.start)).rem_euclid(pitch);
        offset >= i128::from(self.row_bytes) && offset + i128::from(other.row_bytes) <= pitch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn matrix(pointer: u64, rows: usize, columns: usize, stride: usize) -> Region {
        let layout = Layout::strided(DType::F16, &[rows, columns], &[stride, 1]).unwrap();
        Region::of(pointer, &layout)
    }

    #[test]
    fn blocks_overlap_by_their_ranges() {
        let block = Region::block(1000, 100);
        for (pointer, bytes, overlaps) in [
            (900, 100, false),
            (900, 101, true),
            (1050, 1, true),
            (1099, 5, true),
            (1100, 9, false),
        ] {
            assert_eq!(block.overlaps(&Region::block(pointer, bytes)), overlaps, "{pointer}");
            assert_eq!(Region::block(pointer, bytes).overlaps(&block), overlaps, "{pointer}");
        }
        assert!(!block.overlaps(&Region::block(1050, 0)), "nothing shares nothing");
    }

    #[test]
    fn columns_of_one_matrix_lie_beside_each_other() {
        let left = matrix(0, 4, 8, 20);
        for (other, overlaps) in [
            (matrix(16, 4, 12, 20), false),
            (matrix(16, 4, 13, 21), true),
            (matrix(14, 4, 8, 20), true),
            (matrix(16 + 40, 9, 12, 20), false),
            (matrix(16, 4, 12, 20 * 2), true),
            (matrix(0, 4, 8, 20), true),
        ] {
            assert_eq!(left.overlaps(&other), overlaps, "{other:?}");
            assert_eq!(other.overlaps(&left), overlaps, "{other:?}");
        }
    }
}
