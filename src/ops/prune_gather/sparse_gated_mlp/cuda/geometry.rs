//! Grids and the workspace of `sparse_gated_mlp` on CUDA.

use crate::backend::cuda::CudaCapabilities;
use crate::backend::cuda::launch::{Kernel, Launch};
use crate::dtype::DType;
use crate::error::{Backend, Error};
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::prune_gather::sparse_gated_mlp::SparseGatedMlp;
use crate::ops::silu_mlp::mlp::config::scratch_stride;

const NAME: &str = SparseGatedMlp::NAME;

/// What lies in the workspace, in parts of equal size: `h`, gates and ups of dense projections, and what those need.
pub(super) struct Scratch {
    /// Bytes of a part.
    pub part: usize,
    pub h: Layout,
    /// Of gates and ups.
    pub projection: Layout,
}

impl Scratch {
    pub fn new(op: &SparseGatedMlp, rows: usize) -> Result<Scratch, Error> {
        let (ffn, stride) = (op.ffn(), scratch_stride(op.ffn()));
        Ok(Scratch {
            part: (rows * stride * size_of::<f32>()).next_multiple_of(256),
            h: Layout::strided(op.config.activation_dtype, &[rows, ffn], &[stride, 1])?,
            projection: Layout::contiguous(DType::F32, &[rows, ffn])?,
        })
    }
}

/// Grids, by the contracts in the kernels' headers.
pub(super) struct Geometry<'a> {
    pub op: &'a SparseGatedMlp,
    pub rows: usize,
    pub device: &'a CudaCapabilities,
}

impl Geometry<'_> {
    /// Columns of `x` that a block keeps at a time: below 48 KiB with what it needs besides.
    pub fn x_tile(&self) -> usize {
        const X_BYTES: usize = 40 << 10;
        const X_STEP: usize = 256;
        let most = X_BYTES / self.op.config.activation_dtype.size() / X_STEP * X_STEP;
        self.op.hidden().next_multiple_of(X_STEP).min(most)
    }

    /// `h`, from `x` or from dense projections; nothing where there are no neurons.
    pub fn first(&self) -> Result<Option<Launch>, Error> {
        const NEURONS: usize = 16;
        let (op, config) = (self.op, &self.op.config);
        self.check_dimensions()?;
        if op.ffn() == 0 {
            return Ok(None);
        }
        if !op.is_sparse(self.rows) {
            let (source, name) = ("prune_gather/sparse_select", "sparse_gated_mlp_select");
            let kernel = self.kernel(source, name, config.activation_dtype);
            return Launch::new(NAME, kernel, [self.rows, 1, 1], 256, 0, self.device).map(Some);
        }
        let (source, name) = ("prune_gather/sparse_gate_up", "sparse_gated_mlp_gate_up");
        let kernel = self.kernel(source, name, config.weight_dtype);
        let grid = [op.ffn().div_ceil(NEURONS), self.rows, 1];
        let shared = self.x_tile() * config.activation_dtype.size();
        Launch::new(NAME, kernel, grid, 128, shared, self.device).map(Some)
    }

    /// `out` from rows of down weights, or the residual from none; nothing where the weights are those of a linear layer.
    pub fn down(&self) -> Result<Option<Launch>, Error> {
        const LANES: usize = 4;
        const MAX_GRID_Y: usize = 65_535;
        const VECTOR_BYTES: usize = 16;
        let op = self.op;
        if !op.transposed_down && op.ffn() > 0 {
            return Ok(None);
        }
        let weight = op.config.weight_dtype;
        let columns = LANES * VECTOR_BYTES / weight.size();
        let grid = [self.rows, op.hidden().div_ceil(columns).min(MAX_GRID_Y), 1];
        let (source, name) = ("prune_gather/sparse_down", "sparse_gated_mlp_down");
        Launch::new(NAME, self.kernel(source, name, weight), grid, 256, 0, self.device).map(Some)
    }

    fn kernel(&self, source: &'static str, name: &'static str, weight: DType) -> Kernel {
        Kernel { source, name, activation: self.op.config.activation_dtype, weight }
    }

    /// That kernels can add a tile to every index in 32 bits.
    fn check_dimensions(&self) -> Result<(), Error> {
        const MAX_DIMENSION: usize = 1 << 30;
        for (name, value) in
            [("rows", self.rows), ("hidden", self.op.hidden()), ("ffn", self.op.ffn())]
        {
            if value > MAX_DIMENSION {
                return Err(Error::Unsupported {
                    op: NAME,
                    backend: Backend::Cuda,
                    reason: format!("{name} is {value}; limit {MAX_DIMENSION}"),
                    remedy: "".into(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_those_of_the_contract() {
        let device = CudaCapabilities::test_device(9, 0);
        let op = SparseGatedMlp::by_threshold(4096, 11_008, DType::BF16, 0.1).unwrap();
        let shape = |launch: Option<Launch>| {
            let launch = launch.unwrap();
            (launch.kernel.symbol(), launch.grid, launch.block, launch.shared_bytes)
        };
        let name = |name: &str| name.to_owned();
        let few = Geometry { op: &op, rows: 8, device: &device };
        let gate_up = name("sparse_gated_mlp_gate_up_bf16");
        assert_eq!(shape(few.first().unwrap()), (gate_up, [688, 8, 1], 128, 8192));
        assert_eq!(few.down().unwrap(), None);
        let many = Geometry { op: &op, rows: 9, device: &device };
        let select = name("sparse_gated_mlp_select_bf16");
        assert_eq!(shape(many.first().unwrap()), (select, [9, 1, 1], 256, 0));
        let transposed = op.with_transposed_down(true);
        let many = Geometry { op: &transposed, rows: 9, device: &device };
        let down = name("sparse_gated_mlp_down_bf16");
        assert_eq!(shape(many.down().unwrap()), (down, [9, 128, 1], 256, 0));
        let wide = SparseGatedMlp::by_lists(100_000, 0, DType::F32).unwrap();
        let none = Geometry { op: &wide, rows: 1, device: &device };
        assert_eq!(none.first().unwrap(), None);
        assert_eq!(none.down().unwrap().unwrap().grid, [1, 6250, 1]);
        assert_eq!(none.x_tile(), 10_240);
    }

    #[test]
    fn the_workspace_holds_every_part() {
        for (rows, hidden, ffn) in [(1, 1, 1), (8, 33, 70), (9, 65, 31), (130, 64, 4096)] {
            for norm in [false, true] {
                let mut op = SparseGatedMlp::by_lists(hidden, ffn, DType::F32).unwrap();
                if norm {
                    op = op.with_norm(1e-5).unwrap();
                }
                let scratch = Scratch::new(&op, rows).unwrap();
                let left = op.workspace_bytes(rows) - 3 * scratch.part;
                assert!(left >= op.projection().workspace_bytes(rows));
                assert!(left >= op.last().workspace_bytes(rows));
                assert!(scratch.part >= scratch.h.span() * size_of::<f32>());
            }
        }
    }
}
