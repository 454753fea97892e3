// What the kernels of select_top and coupled_neurons share: parameters, and who is selected. A dispatch looks at a part
// of the elements, as much as fits a binding, or at counts of all tiles.

override THREADS: u32 = 128u;
override INPUT: u32 = 0u;
// Bits of a key's digit: 16 for 16-bit types, else 11, 11 and 10.
override DIGIT_BITS: u32 = 11u;
// Whether `count` is wanted.
override COUNT: bool = true;

const ITEMS: u32 = 16u;
const NO_INDEX: u32 = 0xffffffffu;

struct Parameters {
    // Of the part: elements, the first one's index, tiles, and the first one's.
    elements: u32,
    first_element: u32,
    tiles: u32,
    first_tile: u32,
    // Of the whole.
    all_tiles: u32,
    // Of a row; 0 where no tensor has gaps between its rows.
    columns: u32,
    // First element and elements between rows, from the start of each binding.
    scores_start: u32,
    scores_stride: u32,
    general_start: u32,
    general_stride: u32,
    second_start: u32,
    second_stride: u32,
    indices_start: u32,
    count_start: u32,
    // First words of the parts of `scratch`; `other_state` is that of the second tensor, `general_state` that of the
    // general one.
    state: u32,
    other_state: u32,
    general_state: u32,
    histogram: u32,
    selected: u32,
    equal: u32,
    members: u32,
    lists: u32,
    // Which of the two lists.
    side: u32,
    k: u32,
    capacity: u32,
    digit_shift: u32,
    first_digit: u32,
    workgroups: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
#import shared/numeric.wgsl
#import shared/grid.wgsl
