//! Kernels and their launches, independent of any device.

use std::fmt;

use super::capabilities::CudaCapabilities;
use crate::arguments::MAX_REPEATED;
use crate::dtype::DType;
use crate::error::{Backend, Error};

/// A kernel by the parts of its symbol, so that naming one allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    /// The source that holds it, `family/file`.
    pub source: &'static str,
    /// Everything before the dtypes.
    pub name: &'static str,
    /// Type of activations.
    pub activation: DType,
    /// Type of weights; the same as `activation` where there are none.
    pub weight: DType,
}

impl Kernel {
    /// The name in the image.
    pub fn symbol(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}_{}", self.name, self.activation)?;
        if self.weight == self.activation { Ok(()) } else { write!(formatter, "_{}", self.weight) }
    }
}

/// A kernel and the shape of its grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub kernel: Kernel,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, all along x.
    pub block: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl Launch {
    /// Checks a grid against the device's limits.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names the limit.
    pub fn new(
        op: &'static str,
        kernel: Kernel,
        grid: [usize; 3],
        block: u32,
        shared_bytes: usize,
        device: &CudaCapabilities,
    ) -> Result<Launch, Error> {
        let refuse = |reason: String| Error::Unsupported {
            op,
            backend: Backend::Cuda,
            reason,
            remedy: "use another kernel, see CudaOptions, or smaller tensors".into(),
        };
        let mut blocks = [0; 3];
        for axis in 0..3 {
            let limit = device.max_grid[axis];
            blocks[axis] = u32::try_from(grid[axis])
                .ok()
                .filter(|blocks| (1..=limit).contains(blocks))
                .ok_or_else(|| {
                    refuse(format!("{kernel} would need a grid of {grid:?} blocks; limit {limit}"))
                })?;
        }
        let shared_bytes = u32::try_from(shared_bytes)
            .ok()
            .filter(|bytes| *bytes <= device.shared_memory_per_block)
            .ok_or_else(|| {
                let limit = device.shared_memory_per_block;
                refuse(format!(
                    "{kernel} would need {shared_bytes} bytes of shared memory a block; limit {limit}"
                ))
            })?;
        Ok(Launch { kernel, grid: blocks, block, shared_bytes })
    }
}

/// The launches of one call of an operation, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CudaPlan {
    launches: [Option<Launch>; CudaPlan::MAX_LAUNCHES],
    length: usize,
}

impl CudaPlan {
    /// Two for each layer or branch, and what is before and behind them.
    pub(crate) const MAX_LAUNCHES: usize = 2 * MAX_REPEATED + 4;

    pub(crate) fn push(&mut self, launch: Launch) {
        self.launches[self.length] = Some(launch);
        self.length += 1;
    }

    pub(crate) fn launches(&self) -> impl Iterator<Item = &Launch> {
        self.launches.iter().flatten()
    }

    /// Names of the kernels; empty if the tensors are, and there is nothing to do.
    pub fn kernels(&self) -> Vec<String> {
        self.launches().map(|launch| launch.kernel.symbol()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Kernel = Kernel {
        source: "silu_mlp/silu_mul",
        name: "silu_mul",
        activation: DType::F32,
        weight: DType::F32,
    };

    #[test]
    fn symbols_name_two_dtypes_only_if_they_differ() {
        assert_eq!(KERNEL.symbol(), "silu_mul_f32");
        assert_eq!(Kernel { weight: DType::BF16, ..KERNEL }.symbol(), "silu_mul_f32_bf16");
    }

    #[test]
    fn grids_beyond_the_device_are_refused() {
        let device = CudaCapabilities::test_device(8, 6);
        let launch = |grid, shared| Launch::new("silu_mul", KERNEL, grid, 256, shared, &device);
        assert!(launch([1 << 30, 65_535, 65_535], 99 << 10).is_ok());
        for (grid, shared) in [
            ([1 << 31, 1, 1], 0),
            ([1, 65_536, 1], 0),
            ([1, 1, 65_536], 0),
            ([0, 1, 1], 0),
            ([1, usize::MAX, 1], 0),
            ([1, 1, 1], (99 << 10) + 1),
        ] {
            let error = launch(grid, shared).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{grid:?} {shared}");
        }
    }
}
