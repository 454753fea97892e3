//! A fused MLP in an engine that owns its adapter, its device, its buffers and its command encoder.
//!
//! `cargo run --features wgpu --example wgpu_own_device`

use siluette::wgpu::util::{BufferInitDescriptor, DeviceExt};
use siluette::wgpu::{self, BufferUsages};
use siluette::{
    Cpu, DType, GatedMlp, GatedMlpArgs, HasLayout, Layout, Tensor, Wgpu, WgpuTensor, WgpuWorkspace,
    Workspace, bf16,
};

const TOKENS: usize = 3;
const HIDDEN: usize = 64;
const FFN: usize = 96;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What an engine has already.
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter =
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features() & wgpu::Features::SUBGROUP,
        required_limits: adapter.limits(),
        ..wgpu::DeviceDescriptor::default()
    }))?;
    println!("adapter: {}", adapter.get_info().name);

    let x = tensor(&[TOKENS, HIDDEN], 1)?;
    let [gate, up, down] =
        [tensor(&[FFN, HIDDEN], 2)?, tensor(&[FFN, HIDDEN], 3)?, tensor(&[HIDDEN, FFN], 4)?];
    let upload = |tensor: &Tensor| {
        device.create_buffer_init(&BufferInitDescriptor {
            label: None,
            contents: tensor.view().span_bytes(),
            usage: BufferUsages::STORAGE,
        })
    };
    let buffers = [&x, &gate, &up, &down].map(upload);
    let buffer = |bytes: usize, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes as u64,
            usage,
            mapped_at_creation: false,
        })
    };
    let out_layout = Layout::contiguous(DType::F32, &[TOKENS, HIDDEN])?;
    let out_bytes = out_layout.elements() * size_of::<f32>();
    let out = buffer(out_bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC);
    let staging = buffer(out_bytes, BufferUsages::COPY_DST | BufferUsages::MAP_READ);

    // One backend for each device, one plan for each set of buffers: recorded as often as wanted.
    let wgpu = Wgpu::new(&device, &queue)?;
    let op = GatedMlp::new(HIDDEN, FFN, DType::BF16)?;
    let workspace = buffer(op.workspace_bytes(TOKENS), BufferUsages::STORAGE);
    let args = GatedMlpArgs::new(
        WgpuTensor::new(&buffers[0], 0, x.layout()),
        WgpuTensor::new(&buffers[1], 0, gate.layout()),
        WgpuTensor::new(&buffers[2], 0, up.layout()),
        WgpuTensor::new(&buffers[3], 0, down.layout()),
        WgpuTensor::new(&out, 0, out_layout),
    );
    let plan = wgpu.plan_gated_mlp(&op, args, WgpuWorkspace::whole(&workspace))?;
    println!("dispatches: {}", plan.dispatches());

    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    plan.record(&mut pass);
    drop(pass);
    encoder.copy_buffer_to_buffer(&out, 0, &staging, 0, None);
    queue.submit([encoder.finish()]);

    staging.map_async(wgpu::MapMode::Read, .., |_| {});
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let result: Vec<f32> = bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..)?);

    let mut expected = Tensor::zeros(out_layout);
    let args =
        GatedMlpArgs::new(x.view(), gate.view(), up.view(), down.view(), expected.view_mut());
    Cpu::new().gated_mlp(&op, args, &mut Workspace::default())?;
    let expected = expected.view().to_f64();
    let error = result.iter().zip(&expected).map(|(got, want)| (f64::from(*got) - want).abs());
    let largest = error.fold(0.0, f64::max);
    println!("out[0..4] = {:?}, at most {largest:.1e} from the CPU's", &result[..4]);
    if largest > 1e-3 {
        return Err("the backends disagree".into());
    }
    Ok(())
}

/// Deterministic values in [-0.5, 0.5).
fn tensor(shape: &[usize], seed: u32) -> Result<Tensor, siluette::Error> {
    let mut state = seed;
    let values: Vec<bf16> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bf16::from_f32((state >> 8) as f32 / (1 << 24) as f32 - 0.5)
    })
    .take(shape.iter().product())
    .collect();
    Tensor::from_slice(&values, shape)
}
