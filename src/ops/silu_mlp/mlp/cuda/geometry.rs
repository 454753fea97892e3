//! Grids, blocks and shared memory of the MLPs' kernels, by the contract in `kernels/silu_mlp/README.md`.

use super::strategy::{Choice, SkinnyRows};
use crate::backend::cuda::CudaCapabilities;
use crate::backend::cuda::launch::{Kernel, Launch};
use crate::dtype::DType;
use crate::error::{Backend, Error};
use crate::ops::silu_mlp::mlp::config::MlpConfig;

/// Kernels that loop over grid y take a smaller one; this is the most that CUDA allows.
const MAX_GRID_Y: usize = 65_535;
/// Kernels add a tile to indices of this size in 32 bits.
const MAX_DIMENSION: usize = 1 << 30;

const GEMV_THREADS: u32 = 128;
const GEMV_ROWS: usize = 2;
/// Columns of `x` that the GEMV keeps are a multiple of this.
const GEMV_X_STEP: usize = 256;
/// Shared memory of the GEMV's `x`: below 48 KiB with what it needs besides.
const GEMV_X_BYTES: usize = 40 << 10;
const GEMV_FIRST_FEATURES: usize = 8;
const GEMV_SECOND_FEATURES: usize = 4;
const PREPARE_THREADS: u32 = 128;
const PLAIN_THREADS: u32 = 256;
const PLAIN_TILE: usize = 64;
const SKINNY_THREADS: u32 = 128;
const TILE_THREADS: u32 = 128;
const TILE: usize = 128;
const TILE_PANEL: usize = 64;
const TILE_SHARED_BYTES: usize = 48 << 10;
const REDUCE_THREADS: u32 = 256;
/// Columns of `h` below which another split of the down projection is not worth its partial sums.
const MIN_SPLIT_COLUMNS: usize = 256;

/// The grids of one MLP on one device, for so many rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry<'a> {
    pub op: &'a MlpConfig,
    pub rows: usize,
    pub device: &'a CudaCapabilities,
}

impl Geometry<'_> {
    /// Dimensions that the kernels' 32-bit indices can take.
    pub fn check_dimensions(&self) -> Result<(), Error> {
        let op = self.op;
        for (name, value) in
            [("rows", self.rows), ("hidden", op.hidden), ("ffn", op.ffn), ("width", op.width)]
        {
            if value > MAX_DIMENSION {
                return Err(Error::Unsupported {
                    op: op.op,
                    backend: Backend::Cuda,
                    reason: format!("{name} is {value}; limit {MAX_DIMENSION}"),
                    remedy: "".into(),
                });
            }
        }
        Ok(())
    }

    /// `n` from `x`.
    pub fn prepare(&self) -> Result<Launch, Error> {
        let kernel = self.kernel("silu_mlp/prepare", "mlp_prepare");
        self.launch(kernel, [self.rows, 1, 1], PREPARE_THREADS, 0)
    }

    /// `h` from `n`, or from `x`.
    pub fn first(&self, choice: Choice) -> Result<Launch, Error> {
        let (rows, ffn, gated) = (self.rows, self.op.neurons(), self.op.is_gated());
        let kernel = self.first_kernel(choice);
        let matrices = if gated { 2 } else { 1 };
        match choice {
            Choice::Gemv => {
                let grid_y = ffn.div_ceil(GEMV_FIRST_FEATURES).min(MAX_GRID_Y);
                let shared = rows.min(GEMV_ROWS) * self.x_tile() * self.op.activation_dtype.size();
                self.launch(kernel, [rows.div_ceil(GEMV_ROWS), grid_y, 1], GEMV_THREADS, shared)
            }
            Choice::Skinny(tokens) => {
                let skinny = Skinny::first(tokens);
                let features = skinny.weight_rows / matrices;
                let grid = [rows.div_ceil(skinny.tokens), ffn.div_ceil(features), 1];
                self.launch(kernel, grid, SKINNY_THREADS, skinny.shared_bytes)
            }
            Choice::Tile => {
                let features = 2 * TILE_PANEL / matrices;
                let grid = [rows.div_ceil(TILE), ffn.div_ceil(features), 1];
                self.launch(kernel, grid, TILE_THREADS, TILE_SHARED_BYTES)
            }
            Choice::Wgmma => self.persistent(kernel, self.first_wgmma_tiles()),
            Choice::Plain => {
                let features = 2 * PLAIN_TILE / matrices;
                let grid = [rows.div_ceil(PLAIN_TILE), ffn.div_ceil(features), 1];
                self.launch(kernel, grid, PLAIN_THREADS, 0)
            }
        }
    }

    /// `out`, or its partial sums, from `h`.
    pub fn second(&self, choice: Choice) -> Result<Launch, Error> {
        // Features that no row is written to need somebody to copy them.
        let (rows, outputs) = (self.rows, self.op.outputs.max(1));
        let kernel = self.second_kernel(choice);
        match choice {
            Choice::Gemv => {
                let grid_y = outputs.div_ceil(GEMV_SECOND_FEATURES).min(MAX_GRID_Y);
                self.launch(kernel, [rows.div_ceil(GEMV_ROWS), grid_y, 1], GEMV_THREADS, 0)
            }
            Choice::Skinny(tokens) => {
                let skinny = Skinny::second(tokens);
                let grid = [rows.div_ceil(skinny.tokens), outputs.div_ceil(skinny.weight_rows), 1];
                self.launch(kernel, grid, SKINNY_THREADS, skinny.shared_bytes)
            }
            Choice::Tile => {
                let grid = [rows.div_ceil(TILE), outputs.div_ceil(TILE), self.splits(choice)];
                self.launch(kernel, grid, TILE_THREADS, TILE_SHARED_BYTES)
            }
            Choice::Wgmma => self.persistent(kernel, self.second_wgmma_tiles()),
            Choice::Plain => {
                let grid = [rows.div_ceil(PLAIN_TILE), outputs.div_ceil(2 * PLAIN_TILE), 1];
                self.launch(kernel, grid, PLAIN_THREADS, 0)
            }
        }
    }

    /// `out` from its partial sums.
    pub fn reduce(&self) -> Result<Launch, Error> {
        let kernel = self.kernel("silu_mlp/tile", "mlp_down_reduce");
        let grid_x = self.op.outputs.div_ceil(REDUCE_THREADS as usize);
        self.launch(kernel, [grid_x, self.rows.min(MAX_GRID_Y), 1], REDUCE_THREADS, 0)
    }

    /// Columns of `x` that a GEMV block keeps at a time.
    pub fn x_tile(&self) -> usize {
        let row_bytes = self.rows.min(GEMV_ROWS) * self.op.activation_dtype.size();
        let most = GEMV_X_BYTES / row_bytes / GEMV_X_STEP * GEMV_X_STEP;
        self.op.inputs.next_multiple_of(GEMV_X_STEP).min(most)
    }

    /// Parts that the second half's inner dimension is cut into.
    pub fn splits(&self, choice: Choice) -> usize {
        match choice {
            Choice::Tile | Choice::Wgmma => self
                .op
                .down_splits(self.rows)
                .min(self.op.depth().div_ceil(MIN_SPLIT_COLUMNS))
                .max(1),
            _ => 1,
        }
    }

    fn first_kernel(&self, choice: Choice) -> Kernel {
        use SkinnyRows::*;
        let (source, gated, plain) = match choice {
            Choice::Gemv => ("silu_mlp/gate_up_gemv", "gated_mlp_gate_up_gemv", "silu_mlp_up_gemv"),
            Choice::Skinny(tokens) => {
                let (gated, plain) = match tokens {
                    Eight => ("gated_mlp_gate_up_skinny8", "silu_mlp_up_skinny8"),
                    Sixteen => ("gated_mlp_gate_up_skinny16", "silu_mlp_up_skinny16"),
                    ThirtyTwo => ("gated_mlp_gate_up_skinny32", "silu_mlp_up_skinny32"),
                    SixtyFour => ("gated_mlp_gate_up_skinny64", "silu_mlp_up_skinny64"),
                };
                ("silu_mlp/skinny", gated, plain)
            }
            Choice::Tile => ("silu_mlp/tile", "gated_mlp_gate_up_tile", "silu_mlp_up_tile"),
            Choice::Wgmma => ("silu_mlp/wgmma", "gated_mlp_gate_up_wgmma", "silu_mlp_up_wgmma"),
            Choice::Plain => ("silu_mlp/plain", "gated_mlp_gate_up_plain", "silu_mlp_up_plain"),
        };
        self.kernel(source, if self.op.is_gated() { gated } else { plain })
    }

    fn second_kernel(&self, choice: Choice) -> Kernel {
        use SkinnyRows::*;
        let (source, name) = match choice {
            Choice::Gemv => ("silu_mlp/down_gemv", "mlp_down_gemv"),
            Choice::Skinny(Eight) => ("silu_mlp/skinny", "mlp_down_skinny8"),
            Choice::Skinny(Sixteen) => ("silu_mlp/skinny", "mlp_down_skinny16"),
            Choice::Skinny(ThirtyTwo) => ("silu_mlp/skinny", "mlp_down_skinny32"),
            Choice::Skinny(SixtyFour) => ("silu_mlp/skinny", "mlp_down_skinny64"),
            Choice::Tile => ("silu_mlp/tile", "mlp_down_tile"),
            Choice::Wgmma => ("silu_mlp/wgmma", "mlp_down_wgmma"),
            Choice::Plain => ("silu_mlp/plain", "mlp_down_plain"),
        };
        self.kernel(source, name)
    }

    fn kernel(&self, source: &'static str, name: &'static str) -> Kernel {
        let (activation, weight): (DType, DType) = (self.op.activation_dtype, self.op.weight_dtype);
        Kernel { source, name, activation, weight }
    }

    pub fn launch(
        &self,
        kernel: Kernel,
        grid: [usize; 3],
        block: u32,
        shared_bytes: usize,
    ) -> Result<Launch, Error> {
        Launch::new(self.op.op, kernel, grid, block, shared_bytes, self.device)
    }
}

/// The shape of a skinny kernel: tokens and rows of weights of a block, and its ring of stages.
struct Skinny {
    tokens: usize,
    weight_rows: usize,
    shared_bytes: usize,
}

impl Skinny {
    fn first(tokens: SkinnyRows) -> Skinny {
        match tokens {
            SkinnyRows::Eight => Skinny::new(8, 1, 48),
            SkinnyRows::Sixteen => Skinny::new(16, 2, 72),
            SkinnyRows::ThirtyTwo => Skinny::new(32, 4, 96),
            SkinnyRows::SixtyFour => Skinny::new(64, 4, 96),
        }
    }

    fn second(tokens: SkinnyRows) -> Skinny {
        match tokens {
            SkinnyRows::Eight | SkinnyRows::Sixteen => Skinny::first(tokens),
            SkinnyRows::ThirtyTwo => Skinny::new(32, 2, 96),
            SkinnyRows::SixtyFour => Skinny::new(64, 2, 96),
        }
    }

    /// `row_tiles` of 16 rows of weights; the stages in KiB.
    fn new(tokens: usize, row_tiles: usize, shared_kib: usize) -> Skinny {
        Skinny { tokens, weight_rows: 16 * row_tiles, shared_bytes: shared_kib << 10 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::silu_mlp::mlp::config::First;

    const CHOICES: [Choice; 8] = [
        Choice::Gemv,
        Choice::Skinny(SkinnyRows::Eight),
        Choice::Skinny(SkinnyRows::Sixteen),
        Choice::Skinny(SkinnyRows::ThirtyTwo),
        Choice::Skinny(SkinnyRows::SixtyFour),
        Choice::Tile,
        Choice::Wgmma,
        Choice::Plain,
    ];

    fn mlp(gated: bool, hidden: usize, ffn: usize, dtype: DType) -> MlpConfig {
        let first = if gated { First::Gated } else { First::Plain };
        MlpConfig::new("gated_mlp", first, hidden, ffn, dtype).unwrap()
    }

    #[test]
    fn grids_are_those_of_the_contract() {
        let device = CudaCapabilities::test_device(8, 6);
        let gated = mlp(true, 4096, 11_008, DType::BF16);
        let plain = mlp(false, 4096, 11_008, DType::BF16);
        let first = |op, rows, choice| {
            let launch = Geometry { op, rows, device: &device }.first(choice).unwrap();
            (launch.kernel.symbol(), launch.grid, launch.block, launch.shared_bytes)
        };
        let name = |name: &str| name.to_owned();
        assert_eq!(
            first(&gated, 1, Choice::Gemv),
            (name("gated_mlp_gate_up_gemv_bf16"), [1, 1376, 1], 128, 8192)
        );
        assert_eq!(
            first(&plain, 3, Choice::Gemv),
            (name("silu_mlp_up_gemv_bf16"), [2, 1376, 1], 128, 16_384)
        );
        assert_eq!(
            first(&gated, 7, Choice::Skinny(SkinnyRows::Eight)),
            (name("gated_mlp_gate_up_skinny8_bf16"), [1, 1376, 1], 128, 49_152)
        );
        assert_eq!(
            first(&plain, 64, Choice::Skinny(SkinnyRows::SixtyFour)),
            (name("silu_mlp_up_skinny64_bf16"), [1, 172, 1], 128, 98_304)
        );
        assert_eq!(
            first(&gated, 130, Choice::Tile),
            (name("gated_mlp_gate_up_tile_bf16"), [2, 172, 1], 128, 49_152)
        );
        assert_eq!(
            first(&plain, 65, Choice::Plain),
            (name("silu_mlp_up_plain_bf16"), [2, 86, 1], 256, 0)
        );
        let geometry = Geometry { op: &gated, rows: 130, device: &device };
        assert_eq!(geometry.prepare().unwrap().grid, [130, 1, 1]);
        assert_eq!(geometry.second(Choice::Gemv).unwrap().grid, [65, 1024, 1]);
        assert_eq!(geometry.second(Choice::Tile).unwrap().grid, [2, 32, 4]);
        assert_eq!(geometry.second(Choice::Plain).unwrap().grid, [3, 32, 1]);
        assert_eq!(geometry.reduce().unwrap().grid, [16, 130, 1]);
        let skinny = geometry.second(Choice::Skinny(SkinnyRows::ThirtyTwo)).unwrap();
        assert_eq!((skinny.grid, skinny.shared_bytes), ([5, 128, 1], 98_304));
    }

    #[test]
    fn every_row_and_feature_is_covered_or_the_launch_is_refused() {
        let sizes = [1, 2, 7, 8, 9, 63, 64, 65, 129, 4096, 70_000, 600_000, 5_000_000, 1 << 30];
        let device = CudaCapabilities::test_device(9, 0);
        for (rows, (gated, features)) in
            sizes.iter().flat_map(|&rows| sizes.map(|size| (rows, (rows % 2 == 0, size))))
        {
            let op = mlp(gated, features, features, DType::F16);
            let geometry = Geometry { op: &op, rows, device: &device };
            for choice in CHOICES {
                for launch in [geometry.first(choice), geometry.second(choice), geometry.prepare()]
                {
                    let Ok(launch) = launch else { continue };
                    let within = launch.grid.iter().zip(&device.max_grid).all(|(n, max)| n <= max);
                    assert!(within && launch.grid.iter().all(|&blocks| blocks > 0), "{launch:?}");
                    assert!(launch.shared_bytes <= device.shared_memory_per_block, "{launch:?}");
                    assert!(launch.block <= 1024, "{launch:?}");
                }
            }
            assert!(geometry.first(Choice::Gemv).is_ok() && geometry.second(Choice::Gemv).is_ok());
        }
        let wide = mlp(true, 64, 5_000_000, DType::F16);
        let refused = Geometry { op: &wide, rows: 1, device: &device }.first(Choice::Plain);
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
    }

    #[test]
    fn the_gemv_keeps_its_rows_of_x_in_40_kib() {
        let device = CudaCapabilities::test_device(7, 5);
        for dtype in DType::FLOATS {
            for (hidden, rows) in [(1, 1), (256, 2), (257, 1), (5120, 2), (20_480, 1), (100_000, 9)]
            {
                let op = mlp(true, hidden, 8, dtype);
                let geometry = Geometry { op: &op, rows, device: &device };
                let x_tile = geometry.x_tile();
                assert!(x_tile >= 256 && x_tile.is_multiple_of(256));
                let launch = geometry.first(Choice::Gemv).unwrap();
                assert_eq!(launch.shared_bytes as usize, rows.min(2) * x_tile * dtype.size());
                assert!(launch.shared_bytes as usize <= GEMV_X_BYTES);
            }
        }
    }

    #[test]
    fn splits_fit_the_workspace_and_are_never_empty() {
        let device = CudaCapabilities::test_device(9, 0);
        for (rows, hidden, ffn) in
            [(65, 64, 128), (65, 64, 4096), (128, 128, 700), (4096, 4096, 11_008)]
        {
            let op = mlp(true, hidden, ffn, DType::F16);
            let splits = Geometry { op: &op, rows, device: &device }.splits(Choice::Tile);
            assert!(splits >= 1 && splits <= op.down_splits(rows));
            assert!(splits == 1 || ffn > (splits - 1) * MIN_SPLIT_COLUMNS);
        }
    }

    #[test]
    fn dimensions_beyond_the_kernels_indices_are_refused() {
        let device = CudaCapabilities::test_device(9, 0);
        for (hidden, ffn, rows) in
            [((1 << 30) + 1, 1, 1), (1, (1 << 30) + 1, 1), (1, 1, (1 << 30) + 1)]
        {
            let op = mlp(true, hidden, ffn, DType::F16);
            assert!(Geometry { op: &op, rows, device: &device }.check_dimensions().is_err());
        }
    }
}
