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
    }

    #[test]
    fn structs_have_no_padding_inside() {
        assert_eq!(size_of::<CompactMaskParams>(), 9 * 8);
    }
}
