//! Twins of the structs in `kernels/silu_mlp/params.cuh`.

#[cfg(test)]
use crate::backend::cuda::parameters::{CType, KernelParameters as _};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer, kernel_parameters};
use crate::backend::cuda::tensor_map::TensorMap;
use crate::dtype::DType;

kernel_parameters! {
    /// `out = silu(gate) * up`.
    pub(crate) struct SiluMulParams {
        pub gate: ReadPointer,
        pub up: ReadPointer,
        pub out: WritePointer,
        pub gate_row_stride: i64,
        pub up_row_stride: i64,
        pub out_row_stride: i64,
        pub rows: i64,
        pub columns: i64,
        pub vectorised: i32,
        pub out_dtype: i32,
    }

    /// `n = mask * rms_norm(x)`, of the features that indices name.
    pub(crate) struct PrepareParams {
        pub x: ReadPointer,
        pub norm_weight: ReadPointer,
        pub in_indices: ReadPointer,
        pub in_mask: ReadPointer,
        pub n: WritePointer,
        pub x_row_stride: i64,
        pub n_row_stride: i64,
        pub rows: i32,
        pub hidden: i32,
        pub inputs: i32,
        pub norms_selection: i32,
        pub norm_divisor: i32,
        pub vectorised: i32,
        pub norm_epsilon: f32,
    }

    /// `h = silu(n Wg^T + bg) * (n Wu^T + bu)`, or of the plain MLP, whose only projection goes by `gate`.
    pub(crate) struct GateUpParams {
        pub x: ReadPointer,
        pub norm_weight: ReadPointer,
        pub in_indices: ReadPointer,
        pub in_mask: ReadPointer,
        pub mid_mask: ReadPointer,
        pub gate_weight: ReadPointer,
        pub up_weight: ReadPointer,
        pub gate_bias: ReadPointer,
        pub up_bias: ReadPointer,
        pub h: WritePointer,
        pub x_row_stride: i64,
        pub gate_row_stride: i64,
        pub up_row_stride: i64,
        pub h_row_stride: i64,
        pub rows: i32,
        pub hidden: i32,
        pub inputs: i32,
        pub ffn: i32,
        pub norms_selection: i32,
        pub norm_divisor: i32,
        pub x_tile: i32,
        pub vectorised: i32,
        pub round_gate_up: i32,
        pub norm_epsilon: f32,
    }

    /// `out = residual + mask * (h Wd^T + bd)`, written to the features that indices name.
    pub(crate) struct DownParams {
        pub h: ReadPointer,
        pub down_weight: ReadPointer,
        pub down_bias: ReadPointer,
        pub residual: ReadPointer,
        pub out_indices: ReadPointer,
        pub out_mask: ReadPointer,
        pub out: WritePointer,
        pub partials: WritePointer,
        pub h_row_stride: i64,
        pub down_row_stride: i64,
        pub residual_row_stride: i64,
        pub out_row_stride: i64,
        pub rows: i32,
        pub outputs: i32,
        pub depth: i32,
        pub width: i32,
        pub splits: i32,
        pub vectorised: i32,
        pub out_dtype: i32,
    }
}

#[cfg(test)]
impl CType for GateUpParams {
    const C_TYPE: &'static str = Self::NAME;
}

#[cfg(test)]
impl CType for DownParams {
    const C_TYPE: &'static str = Self::NAME;
}

kernel_parameters! {
    /// What the wgmma kernels of the first half take.
    pub(crate) struct GateUpWgmmaParams {
        pub n: TensorMap,
        pub gate_weight: TensorMap,
        pub up_weight: TensorMap,
        pub other: GateUpParams,
    }

    /// What the wgmma kernel of the second half takes.
    pub(crate) struct DownWgmmaParams {
        pub h: TensorMap,
        pub down_weight: TensorMap,
        pub other: DownParams,
    }
}

/// How kernels that store in any type are told which.
pub(crate) fn dtype_code(dtype: DType) -> i32 {
    match dtype {
        DType::F16 => 1,
        DType::BF16 => 2,
        // Validation lets only floating-point types through.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::parameters::assert_matches_header;

    const HEADER: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/silu_mlp/params.cuh"));

    #[test]
    fn structs_are_those_of_the_kernels() {
        assert_matches_header::<SiluMulParams>(HEADER);
        assert_matches_header::<PrepareParams>(HEADER);
        assert_matches_header::<GateUpParams>(HEADER);
        assert_matches_header::<DownParams>(HEADER);
        assert_matches_header::<GateUpWgmmaParams>(HEADER);
        assert_matches_header::<DownWgmmaParams>(HEADER);
    }

    #[test]
    fn structs_have_no_padding_inside() {
        // Fields of 8 bytes come first; only the end may be padded, to a multiple of 8.
        assert_eq!(size_of::<SiluMulParams>(), 8 * 8 + 8);
        assert_eq!(size_of::<PrepareParams>(), 7 * 8 + 7 * 4 + 4);
        assert_eq!(size_of::<GateUpParams>(), 14 * 8 + 10 * 4);
        assert_eq!(size_of::<DownParams>(), 12 * 8 + 7 * 4 + 4);
        // Tensor maps want multiples of 64.
        assert_eq!(
            size_of::<GateUpWgmmaParams>(),
            (3 * 128 + 14 * 8 + 10 * 4usize).next_multiple_of(64)
        );
        assert_eq!(
            size_of::<DownWgmmaParams>(),
            (2 * 128 + 12 * 8 + 8 * 4usize).next_multiple_of(64)
        );
    }
}
