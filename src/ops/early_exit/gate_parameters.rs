//! Twins of the structs in `kernels/early_exit/gate_params.cuh`.

use crate::backend::cuda::parameters::{ReadPointer, WritePointer, kernel_parameters};

kernel_parameters! {
    /// `go_on[b] = not exits(b)`.
    pub(crate) struct ExitGateParams {
        pub max_logit: ReadPointer,
        pub second_logit: ReadPointer,
        pub log_sum_exp: ReadPointer,
        pub entropy: ReadPointer,
        pub classifier: ReadPointer,
        pub hidden: ReadPointer,
        pub previous_hidden: ReadPointer,
        pub go_on: WritePointer,
        pub permutation: WritePointer,
        pub go_on_count: WritePointer,
        pub hidden_row_stride: i64,
        pub previous_row_stride: i64,
        pub rows: i32,
        pub features: i32,
        pub vectorised: i32,
        pub criteria: i32,
        pub require_all: i32,
        pub cosine_decided: i32,
        pub log_max_prob: f32,
        pub margin: f32,
        pub most_entropy: f32,
        pub cosine: f32,
        pub classifier_score: f32,
    }

    /// `to[i] = from[permutation[i]]`, or the inverse.
    pub(crate) struct MoveRowsParams {
        pub from: ReadPointer,
        pub permutation: ReadPointer,
        pub count: ReadPointer,
        pub to: WritePointer,
        pub from_row_stride: i64,
        pub to_row_stride: i64,
        pub listed: i64,
        pub rows: i64,
        pub columns: i32,
        pub vectorised: i32,
    }

    /// A cache, its lengths and its pages after a verification.
    pub(crate) struct CommitCacheParams {
        pub length: ReadPointer,
        pub emitted: ReadPointer,
        pub path: ReadPointer,
        pub page_table: ReadPointer,
        pub cache: WritePointer,
        pub committed_length: WritePointer,
        pub status: WritePointer,
        pub freed_pages: WritePointer,
        pub freed_count: WritePointer,
        pub path_row_stride: i64,
        pub page_table_row_stride: i64,
        pub freed_pages_row_stride: i64,
        pub cache_group_stride: i64,
        pub cache_block_stride: i64,
        pub cache_row_stride: i64,
        pub capacity: i64,
        pub pages: i64,
        pub batch: i32,
        pub path_length: i32,
        pub table_length: i32,
        pub page_size: i32,
        pub columns: i32,
        pub column_blocks: i32,
        pub vectorised: i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::parameters::assert_matches_header;

    const HEADER: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/early_exit/gate_params.cuh"));

    #[test]
    fn structs_are_those_of_the_kernels() {
        assert_matches_header::<ExitGateParams>(HEADER);
        assert_matches_header::<MoveRowsParams>(HEADER);
        assert_matches_header::<CommitCacheParams>(HEADER);
    }

    #[test]
    fn structs_have_no_padding_inside() {
        assert_eq!(size_of::<ExitGateParams>(), 12 * 8 + 11 * 4 + 4);
        assert_eq!(size_of::<MoveRowsParams>(), 8 * 8 + 2 * 4);
        assert_eq!(size_of::<CommitCacheParams>(), 17 * 8 + 7 * 4 + 4);
    }
}
