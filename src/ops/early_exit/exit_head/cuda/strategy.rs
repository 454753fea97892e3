//! Which kernels a head takes, and their launches: a pure function of its shape, its dtypes and the device.

use crate::backend::cuda::launch::{Kernel, Launch};
use crate::backend::cuda::{CudaCapabilities, wgmma};
use crate::dtype::DType;
use crate::error::Error;
use crate::ops::early_exit::config::HeadConfig;

/// When the heads take which kernel. Change it to tune, or to compare kernels.
///
/// `exit_states_wgmma` is for heads that are [not batch-invariant](crate::ExitHead::with_batch_invariance). It also needs
/// f16 or bf16 throughout, [`CudaCapabilities::wgmma`], rows of the weight that start on multiples of 16 bytes, and a
/// norm, or such rows of `hidden` without a selection.
///
/// The border is derived, not measured. A block of `exit_states_mma64` reads 5 KiB through L1 for each 65,536
/// operations, so that 128 bytes a cycle let a multiprocessor do 1,638 of its 4,096 a cycle: a device that could do 295
/// for each byte of memory, an H100 in 16-bit types, does 118. Up to 118 rows it waits for the weight's bytes, as
/// `wgmma` would; 128 are a whole tile of `wgmma`. The number of ids does not matter, so that parts of a vocabulary take
/// the kernel that the whole takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeadDispatch {
    /// From so many rows on, `exit_states_wgmma` where it can be had.
    pub wgmma_rows: usize,
}

impl Default for HeadDispatch {
    fn default() -> HeadDispatch {
        HeadDispatch { wgmma_rows: 128 }
    }
}

/// What a call's kernels depend on beside its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub rows: usize,
    /// Whether TMA could read the activations of the outputs' rows one after another, and the weight.
    pub mappable: bool,
}

/// The launches of a head's first half.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launches {
    pub prepare: Option<Launch>,
    pub states: Launch,
    /// Rows of one of the blocks that share a tile; means nothing to `wgmma`.
    pub rows_per_block: usize,
    /// Whether the states' kernel takes tensor maps.
    pub is_wgmma: bool,
}

impl Launches {
    /// One order of additions whatever the number of rows, unless the descriptor gives that up: tensor cores wherever
    /// the types and the device allow.
    pub fn new(
        config: &HeadConfig,
        batch: Batch,
        device: &CudaCapabilities,
        dispatch: &HeadDispatch,
    ) -> Result<Launches, Error> {
        const PREPARE_THREADS: u32 = 128;
        let kernel = |source, name| Kernel {
            source,
            name,
            activation: config.activation_dtype,
            weight: config.weight_dtype,
        };
        let prepare = kernel("early_exit/exit_prepare", "exit_prepare");
        let grid = [batch.rows, 1, 1];
        let prepare =
            config.norm.map(|_| Launch::new(config.op, prepare, grid, PREPARE_THREADS, 0, device));
        let prepare = prepare.transpose()?;
        if suits_wgmma(config, batch, device, dispatch) {
            let kernel = kernel("early_exit/exit_states_wgmma", "exit_states_wgmma");
            let tiles = wgmma::tiles(batch.rows, config.vocabulary);
            let states = wgmma::launch(config.op, kernel, tiles, device)?;
            return Ok(Launches { prepare, states, rows_per_block: batch.rows, is_wgmma: true });
        }
        let (name, rows_per_block) = invariant_kernel(config, batch.rows, device);
        let kernel = kernel("early_exit/exit_states", name);
        let blocks = batch.rows.div_ceil(rows_per_block).saturating_mul(config.tiles());
        let states = Launch::new(config.op, kernel, [blocks, 1, 1], TILE_THREADS, 0, device)?;
        Ok(Launches { prepare, states, rows_per_block, is_wgmma: false })
    }
}

/// Threads of a block of the kernels in `exit_states.cu`.
const TILE_THREADS: u32 = 256;

fn has_tensor_core_types(config: &HeadConfig) -> bool {
    config.activation_dtype == config.weight_dtype && config.activation_dtype != DType::F32
}

fn suits_wgmma(
    config: &HeadConfig,
    batch: Batch,
    device: &CudaCapabilities,
    dispatch: &HeadDispatch,
) -> bool {
    let largest = batch.rows.max(config.hidden).max(config.vocabulary);
    let fits = largest <= wgmma::MAX_DIMENSION
        && wgmma::tiles(batch.rows, config.vocabulary) <= wgmma::MAX_TILES;
    let can_run = has_tensor_core_types(config) && device.wgmma && batch.mappable && fits;
    can_run && !config.batch_invariant && batch.rows >= dispatch.wgmma_rows
}

/// One of the kernels that sum alike, and the rows of a block.
fn invariant_kernel(
    config: &HeadConfig,
    rows: usize,
    device: &CudaCapabilities,
) -> (&'static str, usize) {
    match (has_tensor_core_types(config) && device.has_tensor_cores(), rows) {
        (false, ..=1) => ("exit_states_dot1", 1),
        (false, _) => ("exit_states_dot8", 8),
        (true, ..=8) => ("exit_states_mma8", 8),
        (true, ..=16) => ("exit_states_mma16", 16),
        (true, ..=32) => ("exit_states_mma32", 32),
        (true, _) => ("exit_states_mma64", 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(dtype: DType, batch_invariant: bool) -> HeadConfig {
        let mut config = HeadConfig::new("exit_head", 64, 1_000, dtype).unwrap();
        config.batch_invariant = batch_invariant;
        config
    }

    fn states(config: &HeadConfig, batch: Batch, capability: (u32, u32)) -> (String, u32) {
        let device = CudaCapabilities::test_device(capability.0, capability.1);
        let launches = Launches::new(config, batch, &device, &HeadDispatch::default()).unwrap();
        (launches.states.kernel.symbol(), launches.states.grid[0])
    }

    #[test]
    fn kernels_follow_types_device_and_rows() {
        for (dtype, rows, capability, name, blocks) in [
            (DType::BF16, 1, (8, 0), "exit_states_mma8_bf16", 8),
            (DType::F16, 17, (9, 0), "exit_states_mma32_f16", 8),
            (DType::F16, 65, (9, 0), "exit_states_mma64_f16", 16),
            (DType::F16, 1, (7, 5), "exit_states_dot1_f16", 8),
            (DType::F32, 9, (9, 0), "exit_states_dot8_f32", 16),
        ] {
            for batch_invariant in [true, false] {
                let config = head(dtype, batch_invariant);
                let got = states(&config, Batch { rows, mappable: true }, capability);
                assert_eq!(got, (name.to_owned(), blocks));
            }
        }
    }

    #[test]
    fn many_rows_go_to_wgmma_where_nothing_forbids_it() {
        let many = |rows| Batch { rows, mappable: true };
        let free = head(DType::BF16, false);
        let expect = |name: &str, blocks| (name.to_owned(), blocks);
        assert_eq!(states(&free, many(127), (9, 0)), expect("exit_states_mma64_bf16", 16));
        assert_eq!(states(&free, many(128), (9, 0)), expect("exit_states_wgmma_bf16", 4));
        assert_eq!(states(&free, many(129), (9, 0)), expect("exit_states_wgmma_bf16", 8));
        // A block for each of the device's multiprocessors.
        assert_eq!(states(&free, many(4_000), (9, 0)), expect("exit_states_wgmma_bf16", 100));
        let (mut small, mut wide) = (free, free);
        (small.vocabulary, wide.hidden) = (100, wgmma::MAX_DIMENSION + 1);
        assert_eq!(states(&small, many(128), (9, 0)), expect("exit_states_wgmma_bf16", 1));
        for (config, batch, capability) in [
            (head(DType::BF16, true), many(4_000), (9, 0)),
            (free, Batch { mappable: false, ..many(4_000) }, (9, 0)),
            (free, many(4_000), (8, 9)),
            (free, many(4_000), (10, 0)),
            (wide, many(4_000), (9, 0)),
        ] {
            let (kernel, _) = states(&config, batch, capability);
            assert_eq!(kernel, "exit_states_mma64_bf16", "{config:?}");
        }
        let mixed = head(DType::F32, false).with_weight_dtype(DType::BF16).unwrap();
        assert_eq!(states(&mixed, many(128), (9, 0)).0, "exit_states_dot8_f32_bf16");
    }

    #[test]
    fn callers_move_the_border() {
        let mut device = CudaCapabilities::test_device(9, 0);
        let choose = |rows, wgmma_rows, device: &CudaCapabilities| {
            let (config, batch) = (head(DType::F16, false), Batch { rows, mappable: true });
            let launches = Launches::new(&config, batch, device, &HeadDispatch { wgmma_rows });
            launches.unwrap().is_wgmma
        };
        assert!(choose(1, 1, &device) && !choose(4_000, usize::MAX, &device));
        device.wgmma = false;
        assert!(!choose(4_000, 1, &device), "a driver without tensor maps");
    }

    #[test]
    fn more_blocks_than_a_grid_has_are_refused() {
        let config = HeadConfig::new("exit_head", 64, 1 << 30, DType::F32).unwrap();
        let device = CudaCapabilities::test_device(9, 0);
        let batch = Batch { rows: 1 << 20, mappable: true };
        assert!(Launches::new(&config, batch, &device, &HeadDispatch::default()).is_err());
    }
}
