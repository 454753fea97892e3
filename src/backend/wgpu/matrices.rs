//! Cooperative matrices: products that the invocations of a subgroup compute together, on matrix units where there are some.

use crate::error::{Backend, Error};

/// The cooperative matrices of an adapter that kernels use: square, with operands in f16 and sums in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CooperativeMatrices {
    /// Rows and columns of every matrix: 8 or 16.
    pub size: u32,
    /// Invocations that share a matrix: 8 or 32.
    pub subgroup: u32,
}

impl CooperativeMatrices {
    /// The features that a device with these matrices is requested with.
    pub const FEATURES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
        .union(wgpu::Features::SHADER_F16)
        .union(wgpu::Features::SUBGROUP);

    /// What an adapter has, the largest first; `None` if it lacks a feature, or has matrices or subgroups of sizes that
    /// there are no kernels for.
    pub fn of(adapter: &wgpu::Adapter) -> Option<CooperativeMatrices> {
        if !adapter.features().contains(Self::FEATURES) {
            return None;
        }
        let info = adapter.get_info();
        let subgroup = match info.backend {
            // Metal gives a range for all devices; those with matrices have subgroups of 32.
            wgpu::Backend::Metal => Some(32),
            _ => {
                (info.subgroup_min_size == info.subgroup_max_size).then_some(info.subgroup_min_size)
            }
        };
        Self::choose(&adapter.cooperative_matrix_properties(), subgroup?)
    }

    fn choose(
        properties: &[wgpu::CooperativeMatrixProperties],
        subgroup: u32,
    ) -> Option<CooperativeMatrices> {
        use wgpu::CooperativeScalarType::{F16, F32};
        const KERNELS: [CooperativeMatrices; 3] = [
            CooperativeMatrices { size: 16, subgroup: 32 },
            CooperativeMatrices { size: 8, subgroup: 32 },
            CooperativeMatrices { size: 8, subgroup: 8 },
        ];
        let has = |size: u32| {
            properties.iter().any(|matrix| {
                [matrix.m_size, matrix.n_size, matrix.k_size] == [size; 3]
                    && (matrix.ab_type, matrix.cr_type) == (F16, F32)
            })
        };
        KERNELS.into_iter().find(|kernel| kernel.subgroup == subgroup && has(kernel.size))
    }

    /// Those of an adapter.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it has none.
    pub(super) fn required(adapter: &wgpu::Adapter) -> Result<CooperativeMatrices, Error> {
        Self::of(adapter).ok_or_else(|| {
            let info = adapter.get_info();
            Error::Unavailable {
                backend: Backend::Wgpu,
                reason: format!(
                    "{} ({:?}, {} {}) has no cooperative matrices of f16 with sums in f32, 8 by 8 for subgroups of 8 or 32 \
                     or 16 by 16 for subgroups of 32",
                    info.name, info.backend, info.driver, info.driver_info
                ),
                remedy: "do without them, by Wgpu::open or Wgpu::new, or install a driver with VK_KHR_cooperative_matrix"
                    .into(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use wgpu::CooperativeScalarType::{self, F16, F32};

    use super::*;

    fn matrix(
        [m_size, n_size, k_size]: [u32; 3],
        ab_type: CooperativeScalarType,
        cr_type: CooperativeScalarType,
    ) -> wgpu::CooperativeMatrixProperties {
        let saturating_accumulation = false;
        wgpu::CooperativeMatrixProperties {
            m_size,
            n_size,
            k_size,
            ab_type,
            cr_type,
            saturating_accumulation,
        }
    }

    #[test]
    fn square_matrices_of_halves_with_sums_in_f32_are_found() {
        let all = [
            matrix([8; 3], F32, F32),
            matrix([16, 8, 16], F16, F32),
            matrix([8; 3], F16, F32),
            matrix([16; 3], F16, F32),
        ];
        let found = |size, subgroup| Some(CooperativeMatrices { size, subgroup });
        assert_eq!(CooperativeMatrices::choose(&all, 32), found(16, 32));
        assert_eq!(CooperativeMatrices::choose(&all, 8), found(8, 8));
        assert_eq!(CooperativeMatrices::choose(&all[..3], 32), found(8, 32));
        assert_eq!(CooperativeMatrices::choose(&all[3..], 8), None);
        assert_eq!(CooperativeMatrices::choose(&all, 64), None);
        assert_eq!(CooperativeMatrices::choose(&all[..2], 32), None);
        assert_eq!(CooperativeMatrices::choose(&[matrix([8; 3], F16, F16)], 32), None);
    }
}
