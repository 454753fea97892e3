//! Twins of the structs in `kernels/feature_attention/selective_params.cuh`.

use crate::arguments::MAX_REPEATED;
use crate::backend::cuda::parameters::{ReadPointer, WritePointer, kernel_parameters};
use crate::ops::feature_attention::gru::cuda::{GruInputParams, GruPanel, GruRecurrenceParams};

/// A linear layer for each branch.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct SelectPanels {
    pub of: [GruPanel; MAX_REPEATED],
}

/// Both directions of each branch.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BranchPanels {
    pub of: [GruPanel; 2 * MAX_REPEATED],
}

kernel_parameters! {
    /// The branches' weights of each text.
    pub(crate) struct SelectiveWeightsParams {
        pub select: SelectPanels,
        pub squeeze: GruPanel,
        pub states: ReadPointer,
        pub lengths: ReadPointer,
        pub squeezed: WritePointer,
        pub weights: WritePointer,
        pub steps: i32,
        pub reduced: i32,
        pub squeezed_features: i32,
        pub branches: i32,
        pub normalised: i32,
    }

    /// All branches of each text, and their weights.
    pub(crate) struct SelectiveBranchesParams {
        pub input_panels: BranchPanels,
        pub recurrent_panels: BranchPanels,
        pub input: GruInputParams,
        pub recurrence: GruRecurrenceParams,
        pub selection: SelectiveWeightsParams,
        pub reduced: ReadPointer,
        pub chains_states: i32,
    }

    /// Weights that add up to 1 over the batch.
    pub(crate) struct SelectiveTotalParams {
        pub weights: WritePointer,
        pub elements: i64,
    }

    /// `out = (sum_i w_i o_i) W^T + b`.
    pub(crate) struct SelectiveExpandParams {
        pub expand: GruPanel,
        pub states: ReadPointer,
        pub weights: ReadPointer,
        pub lengths: ReadPointer,
        pub out: WritePointer,
        pub out_batch_stride: i64,
        pub out_token_stride: i64,
        pub batch: i32,
        pub steps: i32,
        pub reduced: i32,
        pub branches: i32,
        pub features: i32,
        pub weight_vectorised: i32,
        pub out_dtype: i32,
    }
}

#[cfg(test)]
mod c_types {
    use super::{BranchPanels, SelectPanels, SelectiveWeightsParams};
    use crate::backend::cuda::parameters::CType;

    impl CType for SelectPanels {
        const C_TYPE: &'static str = "SelectPanels";
    }
    impl CType for BranchPanels {
        const C_TYPE: &'static str = "BranchPanels";
    }
    impl CType for SelectiveWeightsParams {
        const C_TYPE: &'static str = "SelectiveWeightsParams";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::parameters::assert_matches_header;

    const HEADER: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/kernels/feature_attention/selective_params.cuh"
    ));

    #[test]
    fn structs_are_those_of_the_kernels() {
        assert_matches_header::<SelectiveWeightsParams>(HEADER);
        assert_matches_header::<SelectiveBranchesParams>(HEADER);
        assert_matches_header::<SelectiveTotalParams>(HEADER);
        assert_matches_header::<SelectiveExpandParams>(HEADER);
        assert!(HEADER.contains(&format!("MOST_BRANCHES = {MAX_REPEATED};")));
    }

    #[test]
    fn structs_have_no_padding_inside() {
        assert_eq!(size_of::<SelectPanels>(), 3 * 8 * MAX_REPEATED);
        assert_eq!(size_of::<SelectiveWeightsParams>(), (3 * MAX_REPEATED + 7) * 8 + 5 * 4 + 4);
        let inner = size_of::<GruInputParams>()
            + size_of::<GruRecurrenceParams>()
            + size_of::<SelectiveWeightsParams>();
        assert_eq!(size_of::<BranchPanels>(), 2 * 3 * 8 * MAX_REPEATED);
        let panels = 2 * size_of::<BranchPanels>();
        assert_eq!(size_of::<SelectiveBranchesParams>(), panels + inner + 8 + 4 + 4);
        assert_eq!(size_of::<SelectiveTotalParams>(), 2 * 8);
        assert_eq!(size_of::<SelectiveExpandParams>(), 9 * 8 + 7 * 4 + 4);
    }
}
