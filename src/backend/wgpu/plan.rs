//! Dispatches bound to their buffers.

use std::sync::Arc;

use super::binding::{Bound, overlap};
use super::context::Wgpu;
use super::pipeline::Pipeline;
use super::scope::scoped;
use super::shader::{Access, Shader};
use crate::error::{Backend, Error};

/// An operation bound to buffers: dispatches to be recorded as often as wanted.
///
/// Holds on to the buffers. Recording it reads the buffers' contents of that time.
#[derive(Debug)]
#[must_use]
pub struct Plan {
    dispatches: Vec<Dispatch>,
}

#[derive(Debug)]
struct Dispatch {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    grid: [u32; 2],
}

impl Plan {
    /// Records the dispatches into a compute pass of the device that the plan was made for.
    ///
    /// Changes the pass's pipeline and its bind group 0. Allocates nothing; wgpu orders dispatches that
    /// depend on each other.
    pub fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        for dispatch in &self.dispatches {
            pass.set_pipeline(&dispatch.pipeline.pipeline);
            pass.set_bind_group(0, &dispatch.bind_group, &[]);
            pass.dispatch_workgroups(dispatch.grid[0], dispatch.grid[1], 1);
        }
    }

    /// How many dispatches the plan records.
    pub fn dispatches(&self) -> usize {
        self.dispatches.len()
    }
}

/// A dispatch whose uniform buffer is not there yet.
struct Pending<'a> {
    shader: &'static Shader,
    pipeline: Arc<Pipeline>,
    parameters: Vec<u8>,
    bindings: Vec<Bound<'a>>,
    grid: [u32; 2],
}

/// Collects dispatches, then binds them all at once.
pub(crate) struct PlanBuilder<'a> {
    wgpu: &'a Wgpu,
    op: &'static str,
    pending: Vec<Pending<'a>>,
}

impl<'a> PlanBuilder<'a> {
    pub fn new(wgpu: &'a Wgpu, op: &'static str) -> PlanBuilder<'a> {
        PlanBuilder { wgpu, op, pending: Vec::new() }
    }

    /// Adds a launch of `workgroups` workgroups; `bindings` as the shader's generated `Bindings` order them.
    pub fn dispatch(
        &mut self,
        shader: &'static Shader,
        constants: Vec<(&'static str, f64)>,
        parameters: &impl bytemuck::Pod,
        bindings: impl IntoIterator<Item = Bound<'a>>,
        workgroups: u64,
    ) -> Result<(), Error> {
        let bindings: Vec<_> = bindings.into_iter().collect();
        check_sharing(self.op, shader, &bindings)?;
        let grid = self.grid(shader, workgroups)?;
        let pipeline = self.wgpu.pipeline(self.op, shader, &constants)?;
        let parameters = bytemuck::bytes_of(parameters).to_vec();
        self.pending.push(Pending { shader, pipeline, parameters, bindings, grid });
        Ok(())
    }

    /// Binds everything.
    pub fn finish(self) -> Result<Plan, Error> {
        if self.pending.is_empty() {
            return Ok(Plan { dispatches: Vec::new() });
        }
        let device = self.wgpu.device();
        scoped(device, &format!("binding {}", self.op), || {
            let alignment = u64::from(self.wgpu.capabilities().uniform_offset_alignment);
            let slot = |pending: &Pending<'_>| {
                (pending.parameters.len() as u64).next_multiple_of(alignment)
            };
            let uniforms = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("siluette.parameters"),
                size: self.pending.iter().map(slot).sum(),
                usage: wgpu::BufferUsages::UNIFORM,
                mapped_at_creation: true,
            });
            let mut offset = 0;
            let mut dispatches = Vec::new();
            for pending in &self.pending {
                // Fails only if the creation of the buffer has, which the scope reports.
                let bytes = pending.parameters.len() as u64;
                if let Ok(mut view) = uniforms.slice(offset..offset + bytes).get_mapped_range_mut()
                {
                    view.copy_from_slice(&pending.parameters);
                }
                dispatches.push(self.bind(pending, &uniforms, offset));
                offset += slot(pending);
            }
            uniforms.unmap();
            Plan { dispatches }
        })
    }

    fn bind(&self, pending: &Pending<'_>, uniforms: &wgpu::Buffer, offset: u64) -> Dispatch {
        let mut bound = pending.bindings.iter();
        let entries: Vec<_> = pending
            .shader
            .bindings
            .iter()
            .map(|info| {
                let whole = |buffer| wgpu::BufferBinding { buffer, offset: 0, size: None };
                let binding = match info.access {
                    Access::Uniform => wgpu::BufferBinding {
                        buffer: uniforms,
                        offset,
                        // The uniform address space rounds the size of a struct up to 16 bytes.
                        size: (pending.parameters.len() as u64)
                            .next_multiple_of(16)
                            .try_into()
                            .ok(),
                    },
                    access => match bound.next() {
                        Some(&Bound { buffer: Some(buffer), offset, bytes, .. }) => {
                            wgpu::BufferBinding { buffer, offset, size: bytes.try_into().ok() }
                        }
                        _ => whole(self.wgpu.absent(access == Access::ReadWrite)),
                    },
                };
                wgpu::BindGroupEntry {
                    binding: info.index,
                    resource: wgpu::BindingResource::Buffer(binding),
                }
            })
            .collect();
        let bind_group = self.wgpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(pending.shader.name),
            layout: &pending.pipeline.layout,
            entries: &entries,
        });
        Dispatch { pipeline: Arc::clone(&pending.pipeline), bind_group, grid: pending.grid }
    }

    fn grid(&self, shader: &Shader, workgroups: u64) -> Result<[u32; 2], Error> {
        let limit = self.wgpu.capabilities().workgroups_per_dimension;
        grid(workgroups, limit).ok_or_else(|| Error::Unsupported {
            op: self.op,
            backend: Backend::Wgpu,
            reason: format!(
                "{} would need {workgroups} workgroups, the device's \
                 max_compute_workgroups_per_dimension allows {limit} along each of two dimensions",
                shader.name
            ),
            remedy: "split the batch".into(),
        })
    }
}

/// A one-dimensional launch over two dimensions; shaders count as `launch_index` does.
fn grid(workgroups: u64, limit: u32) -> Option<[u32; 2]> {
    let limit = u64::from(limit);
    let y = workgroups.div_ceil(limit).max(1);
    let x = workgroups.div_ceil(y);
    // The index of the last workgroup, the excess of the last row included, is a u32.
    if y > limit || x * y > u64::from(u32::MAX) {
        return None;
    }
    Some([x as u32, y as u32])
}

/// What wgpu would refuse at submission: a buffer written by a dispatch that uses it otherwise as well.
fn check_sharing(op: &'static str, shader: &Shader, bindings: &[Bound<'_>]) -> Result<(), Error> {
    let storage = shader.bindings.iter().filter(|info| info.access != Access::Uniform);
    let given: Vec<_> = storage
        .zip(bindings)
        .filter_map(|(info, bound)| Some((info.access, bound.buffer?, bound)))
        .collect();
    for (index, (access, buffer, bound)) in given.iter().enumerate() {
        for (other_access, other_buffer, other) in &given[index + 1..] {
            let written = [*access, *other_access].contains(&Access::ReadWrite);
            let apart = access == other_access
                && (bound.offset + bound.bytes <= other.offset
                    || other.offset + other.bytes <= bound.offset);
            if written && buffer == other_buffer && !apart {
                let (output, input) = match access {
                    Access::ReadWrite => (bound, other),
                    _ => (other, bound),
                };
                return Err(overlap(op, output.argument, input.argument));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::grid;

    #[test]
    fn long_launches_take_a_second_dimension() {
        assert_eq!(grid(1, 65_535), Some([1, 1]));
        assert_eq!(grid(65_535, 65_535), Some([65_535, 1]));
        assert_eq!(grid(65_536, 65_535), Some([32_768, 2]));
        let [x, y] = grid(1_000_003, 65_535).unwrap();
        assert!(x <= 65_535 && u64::from(x) * u64::from(y) >= 1_000_003);
        assert_eq!(grid(17, 4), None);
        assert_eq!(grid(1 << 32, 65_535), None);
    }
}
