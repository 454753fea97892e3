//! Twins of the structs in `kernels/feature_attention/gru_params.cuh`.

use crate::backend::cuda::parameters::{ReadPointer, WritePointer, kernel_parameters};

kernel_parameters! {
    /// A linear layer's matrix and bias.
    pub(crate) struct GruPanel {
        pub weight: ReadPointer,
        pub bias: ReadPointer,
        pub row_stride: i64,
    }

    /// `gates = x W^T + b` of both directions.
    pub(crate) struct GruInputParams {
        pub forward: GruPanel,
        pub reverse: GruPanel,
        pub x: ReadPointer,
        pub lengths: ReadPointer,
        pub gates: WritePointer,
        pub x_batch_stride: i64,
        pub x_token_stride: i64,
        pub batch: i32,
        pub steps: i32,
        pub features: i32,
        pub outputs: i32,
        pub directions: i32,
        pub x_vectorised: i32,
        pub weight_vectorised: i32,
    }

    /// States of both directions, from gates.
    pub(crate) struct GruRecurrenceParams {
        pub forward: GruPanel,
        pub reverse: GruPanel,
        pub gates: ReadPointer,
        pub lengths: ReadPointer,
        pub initial: ReadPointer,
        pub out: WritePointer,
        pub last: WritePointer,
        pub initial_direction_stride: i64,
        pub initial_batch_stride: i64,
        pub out_batch_stride: i64,
        pub out_token_stride: i64,
        pub last_direction_stride: i64,
        pub last_batch_stride: i64,
        pub batch: i32,
        pub steps: i32,
        pub hidden: i32,
        pub initial_dtype: i32,
        pub out_dtype: i32,
        pub last_dtype: i32,
        pub weight_vectorised: i32,
    }
}

#[cfg(test)]
mod c_types {
    use super::{GruInputParams, GruPanel, GruRecurrenceParams};
    use crate::backend::cuda::parameters::CType;

    impl CType for GruPanel {
        const C_TYPE: &'static str = "GruPanel";
    }
    impl CType for GruInputParams {
        const C_TYPE: &'static str = "GruInputParams";
    }
    impl CType for GruRecurrenceParams {
        const C_TYPE: &'static str = "GruRecurrenceParams";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::parameters::assert_matches_header;

    const HEADER: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/kernels/feature_attention/gru_params.cuh"
    ));

    #[test]
    fn structs_are_those_of_the_kernels() {
        assert_matches_header::<GruPanel>(HEADER);
        assert_matches_header::<GruInputParams>(HEADER);
        assert_matches_header::<GruRecurrenceParams>(HEADER);
    }

    #[test]
    fn structs_have_no_padding_inside() {
        assert_eq!(size_of::<GruPanel>(), 3 * 8);
        assert_eq!(size_of::<GruInputParams>(), 11 * 8 + 7 * 4 + 4);
        assert_eq!(size_of::<GruRecurrenceParams>(), 17 * 8 + 7 * 4 + 4);
    }
}
