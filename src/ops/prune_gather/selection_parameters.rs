//! Twins of the structs in `kernels/prune_gather/selection_params.cuh`.

use crate::backend::cuda::parameters::{ReadPointer, WritePointer, kernel_parameters};

kernel_parameters! {
    /// `indices` and `rank` of masks.
    pub(crate) struct CompactMaskParams {
        pub mask: ReadPointer,
        pub indices: WritePointer,
        pub rank: WritePointer,
        pub count: WritePointer,
        pub mask_row_stride: i64,
        pub indices_row_stride: i64,
        pub rank_row_stride: i64,
        pub rows: i64,
        pub columns: i64,
    }

    /// The inverse of indices.
    pub(crate) struct InvertIndicesParams {
        pub indices: ReadPointer,
        pub rank: WritePointer,
        pub first_invalid: WritePointer,
        pub selected: i64,
        pub features: i64,
    }

    /// The k largest of up to three tensors of scores.
    pub(crate) struct SelectionParams {
        pub scores_0: ReadPointer,
        pub scores_1: ReadPointer,
        pub scores_2: ReadPointer,
        pub state: WritePointer,
        pub histogram: WritePointer,
        pub selected: WritePointer,
        pub equal: WritePointer,
        pub members: WritePointer,
        pub lists: WritePointer,
        pub indices: WritePointer,
        pub count: WritePointer,
        pub row_stride_0: i64,
        pub row_stride_1: i64,
        pub row_stride_2: i64,
        pub elements: i32,
        pub columns: i32,
        pub tiles: i32,
        pub k_0: i32,
        pub k_1: i32,
        pub k_2: i32,
        pub digit_bits: i32,
        pub digit_shift: i32,
        pub first_digit: i32,
        pub capacity: i32,
    }

    /// A copy with zeros in some places.
    pub(crate) struct ZeroEntriesParams {
        pub weight: ReadPointer,
        pub indices: ReadPointer,
        pub count: ReadPointer,
        pub out: WritePointer,
        pub weight_row_stride: i64,
        pub out_row_stride: i64,
        pub rows: i64,
        pub columns: i64,
        pub entries: i64,
        pub vectorised: i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::parameters::assert_matches_header;

    const HEADER: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/kernels/prune_gather/selection_params.cuh"
    ));

    #[test]
    fn structs_are_those_of_the_kernels() {
        assert_matches_header::<CompactMaskParams>(HEADER);
        assert_matches_header::<InvertIndicesParams>(HEADER);
        assert_matches_header::<SelectionParams>(HEADER);
        assert_matches_header::<ZeroEntriesParams>(HEADER);
    }

    #[test]
    fn structs_have_no_padding_inside() {
        assert_eq!(size_of::<CompactMaskParams>(), 9 * 8);
        assert_eq!(size_of::<InvertIndicesParams>(), 5 * 8);
        assert_eq!(size_of::<SelectionParams>(), 14 * 8 + 10 * 4);
        assert_eq!(size_of::<ZeroEntriesParams>(), 10 * 8);
    }
}
