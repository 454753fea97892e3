//! The workspace of a selection on a GPU.

use crate::dtype::DType;

/// Elements of the smallest tile that a backend cuts scores into.
const SMALLEST_TILE: usize = 2_048;
/// Words of what is known of one threshold.
pub(crate) const STATE_WORDS: usize = 4;
/// Lists of PositionalCompat, each as long as there are indices at most.
const LISTS: usize = 8;

/// Where the parts of the workspace start, in words of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scratch {
    pub state: usize,
    pub histogram: usize,
    pub selected: usize,
    pub equal: usize,
    pub members: usize,
    pub lists: usize,
    pub words: usize,
}

impl Scratch {
    /// For the thresholds of `sets` tensors cut into `tiles` tiles, and lists of `entries` entries.
    pub fn new(dtype: DType, sets: usize, tiles: usize, entries: usize) -> Scratch {
        let mut words = 0;
        let mut part = |length: usize| {
            /// Parts start where CUDA's widest loads may.
            const ALIGNMENT: usize = 64;
            let start = words;
            words += length.next_multiple_of(ALIGNMENT);
            start
        };
        let state = part(sets * STATE_WORDS);
        let histogram = part(sets << digits(dtype)[0].bits);
        let selected = part(sets * (tiles + 1));
        let equal = part(sets * (tiles + 1));
        let members = part(tiles + 1);
        let lists = part(LISTS * entries);
        Scratch { state, histogram, selected, equal, members, lists, words }
    }

    /// Bytes that a selection from `elements` elements needs on any backend.
    pub fn bytes(dtype: DType, sets: usize, elements: usize, entries: usize) -> usize {
        let tiles = elements.div_ceil(SMALLEST_TILE);
        Scratch::new(dtype, sets, tiles, entries).words * size_of::<u32>()
    }
}

/// Some bits of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digit {
    pub bits: u32,
    /// Bits below.
    pub shift: u32,
}

/// The digits that a key is taken apart into on a GPU, the highest first: as many bits as have a histogram in shared
/// memory, or a 16-bit key at once.
pub(crate) fn digits(dtype: DType) -> &'static [Digit] {
    const WIDE: [Digit; 3] = [
        Digit { bits: 11, shift: 21 },
        Digit { bits: 11, shift: 10 },
        Digit { bits: 10, shift: 0 },
    ];
    const NARROW: [Digit; 1] = [Digit { bits: 16, shift: 0 }];
    if dtype == DType::F32 { &WIDE } else { &NARROW }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_make_up_the_key() {
        for dtype in DType::FLOATS {
            let mut below = dtype.size() as u32 * 8;
            for digit in digits(dtype) {
                below -= digit.bits;
                assert_eq!(digit.shift, below, "{dtype}");
            }
            assert_eq!(below, 0);
        }
    }

    #[test]
    fn parts_do_not_overlap() {
        let scratch = Scratch::new(DType::F16, 3, 10, 5);
        assert!(scratch.histogram >= 3 * STATE_WORDS);
        assert!(scratch.selected - scratch.histogram >= 3 << 16);
        assert!(scratch.equal - scratch.selected >= 33 && scratch.members - scratch.equal >= 33);
        assert!(scratch.lists - scratch.members >= 11 && scratch.words - scratch.lists >= 40);
    }
}
