//! Twins of the structs in `kernels/early_exit/params.cuh`.

use crate::backend::cuda::parameters::{ReadPointer, WritePointer, kernel_parameters};
use crate::backend::cuda::tensor_map::TensorMap;

kernel_parameters! {
    /// `n = rms_norm(hidden[rows])`.
    pub(crate) struct ExitPrepareParams {
        pub hidden: ReadPointer,
        pub norm_weight: ReadPointer,
        pub rows: ReadPointer,
        pub prepared: WritePointer,
        pub hidden_row_stride: i64,
        pub prepared_row_stride: i64,
        pub hidden_rows: i32,
        pub features: i32,
        pub vectorised: i32,
        pub norm_epsilon: f32,
    }

    /// The states of `softcap(n W^T + b)`.
    pub(crate) struct ExitStatesParams {
        pub activations: ReadPointer,
        pub head_weight: ReadPointer,
        pub head_bias: ReadPointer,
        pub rows: ReadPointer,
        pub positions: ReadPointer,
        pub seeds: ReadPointer,
        pub gather_tokens: ReadPointer,
        pub state_values: WritePointer,
        pub state_tokens: WritePointer,
        pub logits: WritePointer,
        pub activations_row_stride: i64,
        pub weight_row_stride: i64,
        pub values_tile_stride: i64,
        pub values_row_stride: i64,
        pub tokens_tile_stride: i64,
        pub tokens_row_stride: i64,
        pub logits_row_stride: i64,
        pub seeds_row_stride: i64,
        pub output_rows: i32,
        pub hidden_rows: i32,
        pub is_prepared: i32,
        pub features: i32,
        pub vocabulary: i32,
        pub valid_rows: i32,
        pub vocab_offset: i32,
        pub top_k: i32,
        pub row_blocks: i32,
        pub activations_vectorised: i32,
        pub weight_vectorised: i32,
        pub seed_low: i32,
        pub seed_high: i32,
        pub inv_temperature: f32,
        pub softcap: f32,
    }

    /// What the wgmma kernel of the states takes.
    pub(crate) struct ExitStatesWgmmaParams {
        pub activations: TensorMap,
        pub head_weight: TensorMap,
        pub other: ExitStatesParams,
    }

    /// Results from states.
    pub(crate) struct ExitMergeParams {
        pub state_values: ReadPointer,
        pub state_tokens: ReadPointer,
        pub token: WritePointer,
        pub max_logit: WritePointer,
        pub second_logit: WritePointer,
        pub log_sum_exp: WritePointer,
        pub entropy: WritePointer,
        pub top_tokens: WritePointer,
        pub top_logits: WritePointer,
        pub gathered_logit: WritePointer,
        pub sampled_token: WritePointer,
        pub values_tile_stride: i64,
        pub values_row_stride: i64,
        pub tokens_tile_stride: i64,
        pub tokens_row_stride: i64,
        pub top_tokens_row_stride: i64,
        pub top_logits_row_stride: i64,
        pub tiles: i32,
        pub top_k: i32,
    }

    /// A ragged batch of drafts and what becomes of it.
    pub(crate) struct VerificationParams {
        pub draft: ReadPointer,
        pub offsets: ReadPointer,
        pub stop_ids: ReadPointer,
        pub budget: ReadPointer,
        pub tokens: WritePointer,
        pub accepted: WritePointer,
        pub emitted: WritePointer,
        pub next_token: WritePointer,
        pub last_row: WritePointer,
        pub finish: WritePointer,
        pub tokens_row_stride: i64,
        pub sequences: i32,
        pub drafts: i32,
        pub max_draft: i32,
        pub stop_count: i32,
    }

    /// The prefix of each draft that equals the target.
    pub(crate) struct VerifyGreedyParams {
        pub batch: VerificationParams,
        pub target: ReadPointer,
    }

    /// The path of a tree of drafts that the target takes.
    pub(crate) struct VerifyTreeParams {
        pub batch: VerificationParams,
        pub first_child: ReadPointer,
        pub next_sibling: ReadPointer,
        pub target: ReadPointer,
        pub path: WritePointer,
        pub path_row_stride: i64,
    }

    /// How much of each draft a sampling target accepts.
    pub(crate) struct VerifySampledParams {
        pub batch: VerificationParams,
        pub target: ReadPointer,
        pub draft_distribution: ReadPointer,
        pub temperature: ReadPointer,
        pub top_k: ReadPointer,
        pub top_p: ReadPointer,
        pub min_p: ReadPointer,
        pub uniforms: ReadPointer,
        pub positions: ReadPointer,
        pub seeds: ReadPointer,
        pub profiles: WritePointer,
        pub arrivals: WritePointer,
        pub target_row_stride: i64,
        pub draft_row_stride: i64,
        pub uniforms_row_stride: i64,
        pub seeds_row_stride: i64,
        pub valid: i32,
        pub mode: i32,
        pub is_logits: i32,
        pub is_sequential: i32,
        pub target_vectorised: i32,
        pub draft_vectorised: i32,
        pub seed_low: i32,
        pub seed_high: i32,
        pub sum_tolerance: f32,
    }
}

#[cfg(test)]
impl crate::backend::cuda::parameters::CType for ExitStatesParams {
    const C_TYPE: &'static str = "ExitStatesParams";
}

#[cfg(test)]
impl crate::backend::cuda::parameters::CType for VerificationParams {
    const C_TYPE: &'static str = "VerificationParams";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::parameters::assert_matches_header;

    const HEADER: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/early_exit/params.cuh"));

    #[test]
    fn structs_are_those_of_the_kernels() {
        assert_matches_header::<ExitPrepareParams>(HEADER);
        assert_matches_header::<ExitStatesParams>(HEADER);
        assert_matches_header::<ExitStatesWgmmaParams>(HEADER);
        assert_matches_header::<ExitMergeParams>(HEADER);
        assert_matches_header::<VerificationParams>(HEADER);
        assert_matches_header::<VerifyGreedyParams>(HEADER);
        assert_matches_header::<VerifyTreeParams>(HEADER);
        assert_matches_header::<VerifySampledParams>(HEADER);
    }

    #[test]
    fn structs_have_no_padding_inside() {
        assert_eq!(size_of::<ExitPrepareParams>(), 6 * 8 + 4 * 4);
        assert_eq!(size_of::<ExitStatesParams>(), 18 * 8 + 15 * 4 + 4);
        // Tensor maps want multiples of 64.
        let states = size_of::<ExitStatesParams>();
        assert_eq!(size_of::<ExitStatesWgmmaParams>(), (2 * 128 + states).next_multiple_of(64));
        assert_eq!(size_of::<ExitMergeParams>(), 17 * 8 + 2 * 4);
        assert_eq!(size_of::<VerificationParams>(), 11 * 8 + 4 * 4);
        assert_eq!(size_of::<VerifyGreedyParams>(), 12 * 8 + 4 * 4);
        assert_eq!(size_of::<VerifyTreeParams>(), 16 * 8 + 4 * 4);
        assert_eq!(size_of::<VerifySampledParams>(), 11 * 8 + 4 * 4 + 15 * 8 + 9 * 4 + 4);
    }
}
