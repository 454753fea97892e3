//! Twins of the structs in `kernels/prune_gather/params.cuh`.

use crate::backend::cuda::parameters::{ReadPointer, WritePointer, kernel_parameters};

kernel_parameters! {
    /// `out[r, c] = x[rows[r], columns[c]]`.
    pub(crate) struct GatherPlainParams {
        pub x: ReadPointer,
        pub rows: ReadPointer,
        pub columns: ReadPointer,
        pub out: WritePointer,
        pub x_row_stride: i64,
        pub out_row_stride: i64,
        pub x_rows: i64,
        pub out_rows: i64,
        pub x_columns: i32,
        pub selected: i32,
        pub out_columns: i32,
        pub x_vectorised: i32,
        pub out_vectorised: i32,
        pub out_dtype: i32,
    }

    /// `out[m, i] = rms_norm(x[m, :])[indices[i]]`.
    pub(crate) struct GatherNormParams {
        pub x: ReadPointer,
        pub indices: ReadPointer,
        pub norm_weight: ReadPointer,
        pub out: WritePointer,
        pub x_row_stride: i64,
        pub out_row_stride: i64,
        pub features: i32,
        pub selected: i32,
        pub norm_scope: i32,
        pub x_vectorised: i32,
        pub out_vectorised: i32,
        pub out_dtype: i32,
        pub norm_epsilon: f32,
    }

    /// `out = residual + scatter(y)`.
    pub(crate) struct ScatterAddParams {
        pub residual: ReadPointer,
        pub y: ReadPointer,
        pub indices: ReadPointer,
        pub rank: ReadPointer,
        pub out: WritePointer,
        pub residual_row_stride: i64,
        pub y_row_stride: i64,
        pub out_row_stride: i64,
        pub rows: i64,
        pub features: i32,
        pub selected: i32,
        pub vectorised: i32,
        pub out_dtype: i32,
    }

    /// `residual_out = residual + scatter(y)`, `gathered[m, i] = rms_norm(residual_out[m, :])[in_indices[i]]`.
    pub(crate) struct ScatterNormGatherParams {
        pub residual: ReadPointer,
        pub y: ReadPointer,
        pub out_indices: ReadPointer,
        pub out_rank: ReadPointer,
        pub norm_weight: ReadPointer,
        pub in_indices: ReadPointer,
        pub residual_out: WritePointer,
        pub gathered: WritePointer,
        pub residual_row_stride: i64,
        pub y_row_stride: i64,
        pub residual_out_row_stride: i64,
        pub gathered_row_stride: i64,
        pub features: i32,
        pub out_selected: i32,
        pub in_selected: i32,
        pub norm_scope: i32,
        pub staged: i32,
        pub residual_vectorised: i32,
        pub residual_out_vectorised: i32,
        pub gathered_vectorised: i32,
        pub residual_out_dtype: i32,
        pub gathered_dtype: i32,
        pub norm_epsilon: f32,
    }

    /// `h = silu(n Wg^T) * (n Wu^T)` of the neurons that each token selects.
    pub(crate) struct SparseGateUpParams {
        pub x: ReadPointer,
        pub norm_weight: ReadPointer,
        pub gate_weight: ReadPointer,
        pub up_weight: ReadPointer,
        pub neurons: ReadPointer,
        pub neuron_offsets: ReadPointer,
        pub h: WritePointer,
        pub x_row_stride: i64,
        pub gate_row_stride: i64,
        pub up_row_stride: i64,
        pub h_row_stride: i64,
        pub listed: i64,
        pub hidden: i32,
        pub ffn: i32,
        pub x_tile: i32,
        pub vectorised: i32,
        pub round_gate_up: i32,
        pub norm_epsilon: f32,
        pub threshold: f32,
    }

    /// `h = silu(gate) * up` of the neurons that each token selects.
    pub(crate) struct SparseSelectParams {
        pub gate: ReadPointer,
        pub up: ReadPointer,
        pub neurons: ReadPointer,
        pub neuron_offsets: ReadPointer,
        pub h: WritePointer,
        pub h_row_stride: i64,
        pub listed: i64,
        pub ffn: i32,
        pub round_gate_up: i32,
        pub threshold: f32,
    }

    /// `out = residual + h Wd`, with a row of `Wd` for each neuron.
    pub(crate) struct SparseDownParams {
        pub h: ReadPointer,
        pub down_weight: ReadPointer,
        pub residual: ReadPointer,
        pub out: WritePointer,
        pub h_row_stride: i64,
        pub down_row_stride: i64,
        pub residual_row_stride: i64,
        pub out_row_stride: i64,
        pub hidden: i32,
        pub ffn: i32,
        pub vectorised: i32,
        pub out_dtype: i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::parameters::assert_matches_header;

    const HEADER: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/prune_gather/params.cuh"));

    #[test]
    fn structs_are_those_of_the_kernels() {
        assert_matches_header::<GatherPlainParams>(HEADER);
        assert_matches_header::<GatherNormParams>(HEADER);
        assert_matches_header::<ScatterAddParams>(HEADER);
        assert_matches_header::<ScatterNormGatherParams>(HEADER);
        assert_matches_header::<SparseGateUpParams>(HEADER);
        assert_matches_header::<SparseSelectParams>(HEADER);
        assert_matches_header::<SparseDownParams>(HEADER);
    }

    #[test]
    fn structs_have_no_padding_inside() {
        assert_eq!(size_of::<GatherPlainParams>(), 8 * 8 + 6 * 4);
        assert_eq!(size_of::<GatherNormParams>(), 6 * 8 + 7 * 4 + 4);
        assert_eq!(size_of::<ScatterAddParams>(), 9 * 8 + 4 * 4);
        assert_eq!(size_of::<ScatterNormGatherParams>(), 12 * 8 + 11 * 4 + 4);
        assert_eq!(size_of::<SparseGateUpParams>(), 12 * 8 + 7 * 4 + 4);
        assert_eq!(size_of::<SparseSelectParams>(), 7 * 8 + 3 * 4 + 4);
        assert_eq!(size_of::<SparseDownParams>(), 8 * 8 + 4 * 4);
    }
}
