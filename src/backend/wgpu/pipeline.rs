//! Compute pipelines, compiled once for each shader and set of constants.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::capabilities::WgpuCapabilities;
use super::scope::scoped;
use super::shader::{Access, Shader};
use crate::error::{Backend, Error};

/// Values of a shader's overrides, in the order of their declaration.
pub(super) type Constants = Vec<(&'static str, f64)>;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    shader: &'static str,
    constants: Vec<u64>,
}

/// A pipeline and the layout of its only bind group.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// The pipelines compiled so far. Shared by all plans of a context.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    compiled: Mutex<HashMap<Key, Arc<Pipeline>>>,
}

impl Pipelines {
    /// Pipelines compiled so far.
    pub fn len(&self) -> usize {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The shaders that they are of, each once, by name.
    pub fn shaders(&self) -> BTreeSet<&'static str> {
        let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.keys().map(|key| key.shader).collect()
    }

    /// Compiles a pipeline, unless it is there.
    pub fn get(
        &self,
        op: &'static str,
        device: &wgpu::Device,
        capabilities: &WgpuCapabilities,
        bounds_checks: bool,
        shader: &'static Shader,
        constants: &Constants,
    ) -> Result<Arc<Pipeline>, Error> {
        check_limits(op, capabilities, shader, constants)?;
        let key = Key {
            shader: shader.name,
            constants: constants.iter().map(|(_, value)| value.to_bits()).collect(),
        };
        // Nothing panics under the lock with the map half-changed, so a poisoned one is still good.
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = compiled.get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        tracing::debug!(shader = shader.name, ?constants, "compiling a compute pipeline");
        let pipeline = scoped(device, &format!("compiling {}", shader.name), || {
            Arc::new(compile(device, shader, constants, bounds_checks))
        })?;
        compiled.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }
}

fn check_limits(
    op: &'static str,
    capabilities: &WgpuCapabilities,
    shader: &Shader,
    constants: &Constants,
) -> Result<(), Error> {
    let unsupported = |reason: String, remedy: &'static str| {
        Err(Error::Unsupported { op, backend: Backend::Wgpu, reason, remedy: remedy.into() })
    };
    if shader.subgroups && !capabilities.subgroups {
        let reason = format!("{} needs subgroup operations", shader.name);
        return unsupported(reason, "request the device with Features::SUBGROUP");
    }
    if shader.cooperative_matrices && capabilities.matrices.is_none() {
        let reason = format!("{} needs cooperative matrices", shader.name);
        return unsupported(reason, "open the device by Wgpu::open_with_matrices");
    }
    let bytes = (shader.workgroup_bytes)(constants);
    if bytes > u64::from(capabilities.workgroup_bytes) {
        let reason = format!(
            "{} needs {bytes} bytes of workgroup memory, the device's \
             max_compute_workgroup_storage_size allows {}",
            shader.name, capabilities.workgroup_bytes
        );
        return unsupported(reason, "request the device with `required_limits: adapter.limits()`");
    }
    Ok(())
}

fn compile(
    device: &wgpu::Device,
    shader: &'static Shader,
    constants: &Constants,
    bounds_checks: bool,
) -> Pipeline {
    let module = module(device, shader, bounds_checks);
    let entries: Vec<_> = shader
        .bindings
        .iter()
        .map(|binding| wgpu::BindGroupLayoutEntry {
            binding: binding.index,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match binding.access {
                    Access::Uniform => wgpu::BufferBindingType::Uniform,
                    access => {
                        wgpu::BufferBindingType::Storage { read_only: access == Access::Read }
                    }
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let label = format!("siluette.{}", shader.name);
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(&label),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(&label),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&label),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(shader.entry_point),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants,
            // Every kernel writes its workgroup memory before it reads it.
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    });
    Pipeline { pipeline, layout }
}

#[allow(
    unsafe_code,
    reason = "wgpu's injected checks cost time and keep loops from being unrolled"
)]
fn module(device: &wgpu::Device, shader: &Shader, bounds_checks: bool) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(shader.name),
        source: wgpu::ShaderSource::Wgsl(shader.source.into()),
    };
    if bounds_checks {
        return device.create_shader_module(descriptor);
    }
    // SAFETY: the shaders are the crate's own. Each index stays below extents that validation compared with
    // the layouts and that `Operand` compared with the buffers; one that was read from a tensor is compared by
    // the shader itself. Loops count up to such extents; divisors are constants or counts that are at least
    // one.
    unsafe {
        device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
    }
}
