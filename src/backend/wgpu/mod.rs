//! The wgpu backend: Vulkan, Metal and DX12 through wgpu, on the caller's device.
//!
//! A [`Wgpu`] holds what belongs to a device: its capabilities and the pipelines compiled so far. An
//! operation is bound to buffers once, giving a [`Plan`], and the plan is recorded into the caller's compute
//! passes as often as wanted; recording allocates and compiles nothing.
//!
//! ```no_run
//! # fn example(device: &wgpu::Device, queue: &wgpu::Queue, buffers: [&wgpu::Buffer; 3])
//! #     -> Result<(), siluette::Error> {
//! use siluette::{DType, Layout, SiluMul, SiluMulArgs, Wgpu, WgpuTensor, wgpu};
//! let context = Wgpu::new(device, queue)?;
//! let layout = Layout::contiguous(DType::BF16, &[4, 11008])?;
//! let [gate, up, out] = buffers.map(|buffer| WgpuTensor::new(buffer, 0, layout));
//! let op = SiluMul::new(11008, DType::BF16)?;
//! let plan = context.plan_silu_mul(&op, SiluMulArgs::new(gate, up, out))?;
//!
//! let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
//! let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
//! plan.record(&mut pass);
//! drop(pass);
//! queue.submit([encoder.finish()]);
//! # Ok(())
//! # }
//! ```
//!
//! wgpu allows no buffer to be read and written in one dispatch, wherever in it the ranges lie. The output
//! and the workspace therefore need buffers of their own; a plan refuses anything else with
//! [`Problem::Overlap`](crate::Problem::Overlap).

mod binding;
mod capabilities;
mod context;
mod device;
mod matrices;
mod memory;
mod pipeline;
mod plan;
mod scope;
mod shader;
mod tensor;

pub(crate) use binding::{Bound, Operand, check_disjoint};
pub use capabilities::WgpuCapabilities;
pub use context::{MlpKernel, Reduction, Wgpu, WgpuDispatch};
pub use device::WgpuDevice;
pub use matrices::CooperativeMatrices;
pub use plan::Plan;
pub(crate) use plan::PlanBuilder;
pub(crate) use shader::{Shader, dtype_code, registry};
pub use shader::{ShaderSource, shader_sources};
pub use tensor::{WgpuTensor, WgpuWorkspace};
