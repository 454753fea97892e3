//! Twins of the structs in `kernels/feature_attention/params.cuh`.

use crate::backend::cuda::parameters::{ReadPointer, WritePointer, kernel_parameters};

kernel_parameters! {
    /// `out = x * sigmoid(w2 tanh(w1 mean(x) + b1) + b2)`.
    pub(crate) struct FeatureAttentionParams {
        pub x: ReadPointer,
        pub w1: ReadPointer,
        pub w2: ReadPointer,
        pub b1: ReadPointer,
        pub b2: ReadPointer,
        pub lengths: ReadPointer,
        pub out: WritePointer,
        pub workspace: WritePointer,
        pub x_text_stride: i64,
        pub x_row_stride: i64,
        pub out_text_stride: i64,
        pub out_row_stride: i64,
        pub w1_row_stride: i64,
        pub w2_row_stride: i64,
        pub tokens: i32,
        pub features: i32,
        pub reduced: i32,
        pub groups: i32,
        pub staged: i32,
        pub tanh: i32,
        pub x_vectorised: i32,
        pub out_vectorised: i32,
        pub w1_vectorised: i32,
        pub w2_vectorised: i32,
        pub out_dtype: i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::parameters::assert_matches_header;

    const HEADER: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/feature_attention/params.cuh"));

    #[test]
    fn structs_are_those_of_the_kernels() {
        assert_matches_header::<FeatureAttentionParams>(HEADER);
    }

    #[test]
    fn structs_have_no_padding_inside() {
        // Fields of 8 bytes come first; only the end may be padded, to a multiple of 8.
        assert_eq!(size_of::<FeatureAttentionParams>(), 14 * 8 + 11 * 4 + 4);
    }
}
