//! Which kernels run a layer, and with which grids: a function of its shape, its types and the device alone.

use crate::backend::cuda::CudaCapabilities;
use crate::backend::cuda::launch::{Kernel, Launch};
use crate::dtype::DType;
use crate::error::Error;
use crate::ops::feature_attention::gru::GruExtent;

/// The kernels of the recurrence. None depends on the batch or on the number of steps: a row's bits must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recurrence {
    /// Recurrent weights in registers, so many threads a unit; a block a row.
    Registers { lanes: usize },
    /// Recurrent weights from L2 at every step; a block four rows.
    Wide,
}

/// Each thread keeps 32 columns of its unit's three rows; more threads than 512 would leave it too few registers.
const MOST_UNITS: [(usize, usize); 2] = [(64, 2), (128, 4)];

impl Recurrence {
    pub fn of(hidden: usize) -> Recurrence {
        match MOST_UNITS.into_iter().find(|(units, _)| hidden <= *units) {
            Some((_, lanes)) => Recurrence::Registers { lanes },
            None => Recurrence::Wide,
        }
    }
}

/// The launches of a layer over at least one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launches {
    /// None if texts have no tokens: there may be states to copy.
    pub input: Option<Launch>,
    pub recurrence: Launch,
}

impl Launches {
    pub fn new(extent: &GruExtent, device: &CudaCapabilities) -> Result<Launches, Error> {
        let tokens = extent.batch * extent.steps;
        let input = (tokens > 0).then(|| input(extent, tokens, device)).transpose()?;
        Ok(Launches { input, recurrence: recurrence(extent, device)? })
    }

    pub fn iter(&self) -> impl Iterator<Item = Launch> {
        self.input.into_iter().chain([self.recurrence])
    }
}

fn input(extent: &GruExtent, tokens: usize, device: &CudaCapabilities) -> Result<Launch, Error> {
    product(extent.op, tokens, 6 * extent.hidden, [extent.activation, extent.weight], device)
}

/// A product of at least one token with `rows` rows of weights; `types` are those of activations and weights.
pub(crate) fn product(
    op: &'static str,
    tokens: usize,
    rows: usize,
    types: [DType; 2],
    device: &CudaCapabilities,
) -> Result<Launch, Error> {
    let [activation, weight] = types;
    let source = "feature_attention/gru_input";
    let kernel = Kernel { source, name: "gru_input", activation, weight };
    Launch::new(op, kernel, product_grid(tokens, rows), PRODUCT_THREADS, 0, device)
}

/// The threads that own a tile of `product_tile.cuh`.
pub(crate) const PRODUCT_THREADS: u32 = 128;

/// A block for each of those tiles.
pub(crate) fn product_grid(tokens: usize, rows: usize) -> [usize; 3] {
    const TOKENS: usize = 32;
    const ROWS: usize = 64;
    [tokens.div_ceil(TOKENS), rows.div_ceil(ROWS), 1]
}

fn recurrence(extent: &GruExtent, device: &CudaCapabilities) -> Result<Launch, Error> {
    const WARP: usize = 32;
    const WIDE_THREADS: usize = 512;
    const WIDE_ROWS: usize = 4;
    let hidden = extent.hidden;
    let (name, rows, threads, shared_bytes) = match Recurrence::of(hidden) {
        Recurrence::Registers { lanes } => {
            let name = if lanes == 2 { "gru_recurrence_64" } else { "gru_recurrence_128" };
            (name, 1, (hidden * lanes).next_multiple_of(WARP), 0)
        }
        Recurrence::Wide => {
            let states = 2 * WIDE_ROWS * hidden.next_multiple_of(4);
            ("gru_recurrence_wide", WIDE_ROWS, WIDE_THREADS, states * size_of::<f32>())
        }
    };
    let weight = extent.weight;
    let source = "feature_attention/gru_recurrence";
    let kernel = Kernel { source, name, activation: weight, weight };
    let grid = [extent.batch.div_ceil(rows), 2, 1];
    Launch::new(extent.op, kernel, grid, threads as u32, shared_bytes, device)
}

/// The code of a floating-point type in `store_as`.
pub(super) fn dtype_code(dtype: DType) -> i32 {
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

    fn extent(hidden: usize) -> GruExtent {
        GruExtent {
            op: "bigru",
            batch: 5,
            steps: 20,
            features: 600,
            hidden,
            activation: DType::F32,
            weight: DType::F16,
        }
    }

    fn launches(extent: &GruExtent, device: (u32, u32)) -> Result<Launches, Error> {
        Launches::new(extent, &CudaCapabilities::test_device(device.0, device.1))
    }

    #[test]
    fn weights_stay_in_registers_while_they_fit() {
        for (hidden, expected) in [
            (1, Recurrence::Registers { lanes: 2 }),
            (64, Recurrence::Registers { lanes: 2 }),
            (65, Recurrence::Registers { lanes: 4 }),
            (128, Recurrence::Registers { lanes: 4 }),
            (129, Recurrence::Wide),
            (1000, Recurrence::Wide),
        ] {
            assert_eq!(Recurrence::of(hidden), expected, "{hidden}");
        }
    }

    #[test]
    fn launches_cover_batch_and_units() {
        for (hidden, symbol, grid, block, shared) in [
            (50, "gru_recurrence_64_f16", [5, 2, 1], 128, 0),
            (3, "gru_recurrence_64_f16", [5, 2, 1], 32, 0),
            (100, "gru_recurrence_128_f16", [5, 2, 1], 416, 0),
            (1001, "gru_recurrence_wide_f16", [2, 2, 1], 512, 2 * 4 * 1004 * 4),
        ] {
            let launches = launches(&extent(hidden), (8, 0)).unwrap();
            let recurrence = launches.recurrence;
            assert_eq!(recurrence.kernel.symbol(), symbol);
            let got = (recurrence.grid, recurrence.block, recurrence.shared_bytes);
            assert_eq!(got, (grid, block, shared), "{hidden}");
            let input = launches.input.unwrap();
            assert_eq!(input.kernel.symbol(), "gru_input_f32_f16");
            assert_eq!(input.grid, [4, (6 * hidden as u32).div_ceil(64), 1]);
        }
        let empty = GruExtent { steps: 0, ..extent(50) };
        assert_eq!(launches(&empty, (8, 0)).unwrap().input, None);
    }

    #[test]
    fn states_that_exceed_shared_memory_are_refused() {
        assert!(launches(&extent(2048), (7, 5)).is_ok());
        let error = launches(&extent(2049), (7, 5)).unwrap_err().to_string();
        assert!(error.contains("bytes of shared memory a block; limit 65536"), "{error}");
        assert!(launches(&extent(7000), (9, 0)).is_ok());
    }
}
