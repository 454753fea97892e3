//! What a device can do, as far as the choice of kernels depends on it.

use super::matrices::CooperativeMatrices;
use crate::error::{Backend, Error};

/// Limits and features of a device that decide which kernel runs and how a launch is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WgpuCapabilities {
    /// Whether subgroup operations are enabled on the device.
    pub subgroups: bool,
    /// The cooperative matrices that kernels may use: none unless asked for, by [`Wgpu::with_matrices`] or
    /// [`Wgpu::open_with_matrices`].
    ///
    /// [`Wgpu::with_matrices`]: super::Wgpu::with_matrices
    /// [`Wgpu::open_with_matrices`]: super::Wgpu::open_with_matrices
    pub matrices: Option<CooperativeMatrices>,
    /// Whether the device is the CPU in disguise, and treated as such.
    pub cpu: bool,
    /// Workgroup memory, in bytes.
    pub workgroup_bytes: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Workgroups along one dimension of a dispatch.
    pub workgroups_per_dimension: u32,
    /// Storage buffers that a shader may bind: at least the 8 that WebGPU promises.
    pub storage_buffers: u32,
    /// Bytes of a storage buffer that can be bound at once.
    pub storage_binding_bytes: u64,
    /// Offsets of storage bindings are multiples of this many bytes.
    pub storage_offset_alignment: u32,
    /// Offsets of uniform bindings are multiples of this many bytes.
    pub uniform_offset_alignment: u32,
}

impl WgpuCapabilities {
    /// What WebGPU promises, and with what every operation can do.
    pub(super) const FEWEST_STORAGE_BUFFERS: u32 = 8;

    pub(super) fn is_software(device: &wgpu::Device) -> bool {
        device.adapter_info().device_type == wgpu::DeviceType::Cpu
    }

    pub(super) fn of(device: &wgpu::Device) -> Result<WgpuCapabilities, Error> {
        let (info, limits) = (device.adapter_info(), device.limits());
        refuse_broken_driver(&info)?;
        if limits.max_storage_buffers_per_shader_stage < Self::FEWEST_STORAGE_BUFFERS
            || limits.max_compute_workgroups_per_dimension == 0
        {
            return Err(Error::Unavailable {
                backend: Backend::Wgpu,
                reason: format!(
                    "the device allows {} storage buffers a shader and {} workgroups a dispatch, \
                     the kernels need {} and some",
                    limits.max_storage_buffers_per_shader_stage,
                    limits.max_compute_workgroups_per_dimension,
                    Self::FEWEST_STORAGE_BUFFERS,
                ),
                remedy: "request the device with `required_limits: adapter.limits()`".into(),
            });
        }
        Ok(WgpuCapabilities {
            subgroups: device.features().contains(wgpu::Features::SUBGROUP),
            matrices: None,
            cpu: Self::is_software(device),
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            invocations: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            // Shaders count in u32, so no binding may exceed what one can address.
            storage_binding_bytes: limits
                .max_storage_buffer_binding_size
                .min(u64::from(u32::MAX) / 16 * 16),
            storage_offset_alignment: limits.min_storage_buffer_offset_alignment.max(16),
            uniform_offset_alignment: limits.min_uniform_buffer_offset_alignment.max(16),
        })
    }
}

/// Mesa's software driver before version 23 silently ends loops after 65,535 iterations.
fn refuse_broken_driver(info: &wgpu::AdapterInfo) -> Result<(), Error> {
    if !is_broken_driver(&info.driver, &info.driver_info) {
        return Ok(());
    }
    Err(Error::Unavailable {
        backend: Backend::Wgpu,
        reason: format!(
            "{} ({} {}) gives wrong results: it ends long loops early",
            info.name, info.driver, info.driver_info
        ),
        remedy: "update Mesa to version 23 or later, for example from the distribution's backports"
            .into(),
    })
}

fn is_broken_driver(driver: &str, driver_info: &str) -> bool {
    const FIRST_GOOD: u32 = 23;
    let version = driver_info.strip_prefix("Mesa ").and_then(|rest| rest.split('.').next());
    driver == "llvmpipe"
        && version.and_then(|major| major.parse().ok()).is_some_and(|major: u32| major < FIRST_GOOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_software_drivers_are_refused() {
        assert!(is_broken_driver("llvmpipe", "Mesa 22.3.6 (LLVM 15.0.6)"));
        assert!(!is_broken_driver("llvmpipe", "Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)"));
        assert!(!is_broken_driver("radv", "Mesa 22.3.6"));
        assert!(!is_broken_driver("NVIDIA", "550.54"));
    }
}
