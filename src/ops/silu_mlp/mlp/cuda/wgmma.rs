//! What the kernels for sm_90a need beyond the others: tiles that a persistent grid takes in turn, and tensor maps.

use super::geometry::Geometry;
use super::strategy::Choice;
use crate::backend::cuda::launch::{Kernel, Launch};
use crate::backend::cuda::parameters::ReadPointer;
use crate::backend::cuda::{Cuda, wgmma};
use crate::dtype::DType;
use crate::error::Error;
use crate::ops::silu_mlp::cuda_parameters::{
    DownParams, DownWgmmaParams, GateUpParams, GateUpWgmmaParams,
};

impl Geometry<'_> {
    /// Tiles of the `wgmma` kernel of the first half.
    pub fn first_wgmma_tiles(&self) -> usize {
        let matrices = if self.op.is_gated() { 2 } else { 1 };
        wgmma::tiles(self.rows, matrices * self.op.neurons())
    }

    /// The same of the second half, for each of its splits.
    pub fn second_wgmma_tiles(&self) -> usize {
        wgmma::tiles(self.rows, self.op.outputs).saturating_mul(self.splits(Choice::Wgmma))
    }

    /// A block for each multiprocessor, or for each tile where there are fewer.
    pub fn persistent(&self, kernel: Kernel, tiles: usize) -> Result<Launch, Error> {
        wgmma::launch(self.op.op, kernel, tiles, self.device)
    }
}

impl GateUpWgmmaParams {
    pub fn new(cuda: &Cuda, dtype: DType, other: GateUpParams) -> Result<Self, Error> {
        // The plan has checked that no dimension is 0 or negative, and that rows are aligned.
        let map = |matrix, rows, row_stride| {
            wgmma::map(cuda, dtype, matrix, [rows, other.inputs], row_stride)
        };
        let gate_weight = map(other.gate_weight, other.ffn, other.gate_row_stride)?;
        let up_weight = match other.up_weight {
            ReadPointer(0) => gate_weight,
            up_weight => map(up_weight, other.ffn, other.up_row_stride)?,
        };
        let n = map(other.x, other.rows, other.x_row_stride)?;
        Ok(GateUpWgmmaParams { n, gate_weight, up_weight, other })
    }
}

impl DownWgmmaParams {
    pub fn new(cuda: &Cuda, dtype: DType, other: DownParams) -> Result<Self, Error> {
        // As above.
        let map = |matrix, rows, row_stride| {
            wgmma::map(cuda, dtype, matrix, [rows, other.depth], row_stride)
        };
        Ok(DownWgmmaParams {
            h: map(other.h, other.rows, other.h_row_stride)?,
            down_weight: map(other.down_weight, other.outputs, other.down_row_stride)?,
            other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::CudaCapabilities;
    use crate::ops::silu_mlp::mlp::config::{First, MlpConfig};

    fn mlp(gated: bool, hidden: usize, ffn: usize, dtype: DType) -> MlpConfig {
        let first = if gated { First::Gated } else { First::Plain };
        MlpConfig::new("gated_mlp", first, hidden, ffn, dtype).unwrap()
    }

    #[test]
    fn a_persistent_grid_has_a_block_a_multiprocessor_at_most() {
        let device = CudaCapabilities::test_device(9, 0);
        let (gated, plain) =
            (mlp(true, 4096, 11_008, DType::F16), mlp(false, 576, 1536, DType::F16));
        let geometry = Geometry { op: &gated, rows: 130, device: &device };
        let first = geometry.first(Choice::Wgmma).unwrap();
        assert_eq!(first.kernel.symbol(), "gated_mlp_gate_up_wgmma_f16");
        assert_eq!((first.grid, first.block, first.shared_bytes), ([100, 1, 1], 384, 196_672));
        assert_eq!(geometry.first_wgmma_tiles(), 2 * 86);
        assert_eq!(
            (geometry.splits(Choice::Wgmma), geometry.second_wgmma_tiles()),
            (4, 2 * 16 * 4)
        );
        let small = Geometry { op: &plain, rows: 128, device: &device };
        assert_eq!(small.first(Choice::Wgmma).unwrap().grid, [6, 1, 1]);
        assert_eq!(small.second(Choice::Wgmma).unwrap().grid, [3 * 6, 1, 1]);
        let huge = mlp(true, 1 << 30, 1 << 30, DType::F16);
        let refused = Geometry { op: &huge, rows: 1 << 20, device: &device }.first(Choice::Wgmma);
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
    }
}
