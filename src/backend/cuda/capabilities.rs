//! What a device can do, as far as the choice of kernels depends on it.

use cudarc::driver::CudaContext;
use cudarc::driver::sys::CUdevice_attribute as Attribute;

use super::driver::{device_error, driver_version};
use super::modules::images_are_specific;
use crate::error::Error;

/// What the choice of kernels and their launches depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaCapabilities {
    /// Compute capability, major and minor: `(9, 0)` is sm_90.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory that one block can ask for, in bytes.
    pub shared_memory_per_block: u32,
    /// Largest grid, in blocks, along x, y and z.
    pub max_grid: [u32; 3],
    /// The CUDA version that the driver supports, as `1000 * major + 10 * minor`.
    pub driver_version: u32,
    /// Whether the kernels for sm_90a can run: that device, a driver with tensor maps (CUDA 12.0), and, if kernels
    /// were compiled ahead of time for sm_90, the same for sm_90a. Compiled at run time, they need NVRTC 12.0.
    pub wgmma: bool,
}

impl CudaCapabilities {
    pub(crate) fn of(
        context: &CudaContext,
        driver_has_tensor_maps: bool,
    ) -> Result<CudaCapabilities, Error> {
        let get = |attribute: Attribute| {
            context
                .attribute(attribute)
                .map(i32::unsigned_abs)
                .map_err(|error| device_error("asking for the device's limits", error))
        };
        let compute_capability = (
            get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        Ok(CudaCapabilities {
            compute_capability,
            multiprocessors: get(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_memory_per_block: get(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            max_grid: [
                get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
                get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
                get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
            ],
            driver_version: driver_version()?,
            wgmma: compute_capability == (9, 0)
                && driver_has_tensor_maps
                && images_are_specific(compute_capability),
        })
    }

    /// Whether `cp.async` and `mma.sync.m16n8k16` exist.
    pub fn has_tensor_cores(&self) -> bool {
        self.compute_capability >= (8, 0)
    }

    /// Whether a kernel may start while its predecessor ends (programmatic dependent launch), in captured
    /// graphs too.
    pub fn has_dependent_launches(&self) -> bool {
        const GRAPHS_WITH_DEPENDENT_LAUNCHES: u32 = 12_030;
        self.compute_capability >= (9, 0) && self.driver_version >= GRAPHS_WITH_DEPENDENT_LAUNCHES
    }

    /// Devices for the tests of what depends on them.
    #[cfg(test)]
    pub(crate) fn test_device(major: u32, minor: u32) -> CudaCapabilities {
        let shared_memory_per_block = match (major, minor) {
            (7, 5) => 64 << 10,
            (8, 0) => 163 << 10,
            (8, _) => 99 << 10,
            _ => 227 << 10,
        };
        CudaCapabilities {
            compute_capability: (major, minor),
            multiprocessors: 100,
            shared_memory_per_block,
            max_grid: [i32::MAX.unsigned_abs(), 65_535, 65_535],
            driver_version: 12_080,
            wgmma: (major, minor) == (9, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_follow_the_architecture_and_the_driver() {
        let turing = CudaCapabilities::test_device(7, 5);
        assert!(!turing.has_tensor_cores() && !turing.has_dependent_launches());
        let ampere = CudaCapabilities::test_device(8, 6);
        assert!(ampere.has_tensor_cores() && !ampere.has_dependent_launches());
        let mut hopper = CudaCapabilities::test_device(9, 0);
        assert!(hopper.has_dependent_launches());
        hopper.driver_version = 12_020;
        assert!(!hopper.has_dependent_launches());
    }
}
