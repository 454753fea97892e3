//! The shaders, as the build script put them together.

use crate::dtype::DType;

/// How a shader uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The parameters.
    Uniform,
    /// A read-only storage buffer.
    Read,
    /// A storage buffer that is, or might be, written.
    ReadWrite,
}

/// A binding of group 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BindingInfo {
    pub index: u32,
    pub access: Access,
}

/// One variant of a kernel.
#[derive(Debug)]
pub(crate) struct Shader {
    /// Kernel and variant: `gate_up_gemv.subgroup.vector`.
    pub name: &'static str,
    pub entry_point: &'static str,
    pub source: &'static str,
    /// Whether the device must have [`wgpu::Features::SUBGROUP`].
    pub subgroups: bool,
    /// Whether it must have [`wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX`] and [`wgpu::Features::SHADER_F16`].
    pub cooperative_matrices: bool,
    /// By index.
    pub bindings: &'static [BindingInfo],
    /// Workgroup memory for these override constants; wgpu does not check it against the limit.
    pub workgroup_bytes: fn(&[(&'static str, f64)]) -> u64,
}

/// Generated: a module for each kernel with its `Parameters`, `Constants`, `Bindings` and variants.
#[allow(clippy::identity_op, reason = "array sizes in the shaders may be 1")]
pub(crate) mod registry {
    use super::{Access, BindingInfo, Shader};

    include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
}

/// The WGSL of one variant of a kernel, for tools and for WebGPU implementations other than wgpu.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ShaderSource {
    /// Kernel and variant, `gate_up_gemv.subgroup.vector`.
    pub name: &'static str,
    /// The complete source. Where WGSL proper is spoken, as in browsers, a shader that needs subgroups must
    /// be preceded by `enable subgroups;`, which wgpu does not take.
    pub source: &'static str,
    /// Whether it needs subgroups.
    pub subgroups: bool,
    /// Whether it needs cooperative matrices, in words that wgpu alone understands: such a shader is of no use anywhere else.
    pub cooperative_matrices: bool,
}

/// Every shader of the crate.
pub fn shader_sources() -> impl Iterator<Item = ShaderSource> {
    registry::SHADERS.iter().map(|shader| ShaderSource {
        name: shader.name,
        source: shader.source,
        subgroups: shader.subgroups,
        cooperative_matrices: shader.cooperative_matrices,
    })
}

/// The code of a floating-point type in `kernels/shared/numeric.wgsl`.
pub(crate) fn dtype_code(dtype: DType) -> u32 {
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

    #[test]
    fn dtype_codes_are_those_of_the_shaders() {
        for dtype in DType::FLOATS {
            let name = dtype.name().to_uppercase();
            let declaration = format!("const {name}: u32 = {}u;", dtype_code(dtype));
            // Shaders of indices alone have no codes.
            let declares = format!("const {name}: u32");
            let mut shaders = registry::SHADERS
                .iter()
                .filter(|shader| shader.source.contains(&declares))
                .peekable();
            assert!(shaders.peek().is_some());
            for shader in shaders {
                assert!(shader.source.contains(&declaration), "{}: {declaration}", shader.name);
            }
        }
    }

    #[test]
    fn workgroup_memory_follows_the_constants() {
        use registry::{gate_up_gemv, gate_up_tile};
        let constants = gate_up_gemv::Constants { threads: 64, ..Default::default() };
        let bytes = (gate_up_gemv::WORKGROUP_VECTOR.workgroup_bytes)(&constants.values());
        assert_eq!(bytes, 64 * 64 + 256);
        let bytes = (gate_up_gemv::SUBGROUP_VECTOR.workgroup_bytes)(&constants.values());
        assert_eq!(bytes, 64 * 64 + 256);
        let constants = gate_up_tile::Constants {
            threads_m: 8,
            threads_n: 16,
            depth: 16,
            ..Default::default()
        };
        let bytes = (gate_up_tile::SCALAR.workgroup_bytes)(&constants.values());
        assert_eq!(bytes, 16 * (8 + 2 * 16) * 16);
    }

    #[test]
    fn shaders_say_what_they_need() {
        for source in shader_sources() {
            let needs =
                ["subgroupAdd", "subgroup_id"].iter().any(|word| source.source.contains(word));
            assert_eq!(source.subgroups, needs, "{}", source.name);
            let needs = source.source.contains("coopMultiplyAdd");
            assert_eq!(source.cooperative_matrices, needs, "{}", source.name);
        }
    }
}
