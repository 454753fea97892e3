//! What fusion and tiles are worth on a wgpu adapter: the SwiGLU block in two dispatches against one dispatch for
//! each product and one for the activation; tiles against the naive product. f32, SmolLM2 135M's shape.
//!
//! `cargo bench --features wgpu --bench wgpu_silu_mlp`; on Mesa's software driver, times rank kernels only roughly.

use criterion::{Criterion, criterion_group, criterion_main};
use siluette::wgpu::util::{BufferInitDescriptor, DeviceExt};
use siluette::wgpu::{self, BufferUsages};
use siluette::{
    DType, GatedMlp, GatedMlpArgs, Layout, Plan, PrunedLinear, PrunedLinearArgs, SiluMul,
    SiluMulArgs, Wgpu, WgpuTensor, WgpuWorkspace,
};

const HIDDEN: usize = 576;
const FFN: usize = 1536;

type Failure = Box<dyn std::error::Error>;
type Record<'a> = dyn Fn(&mut wgpu::ComputePass<'_>) + 'a;

/// Buffers of a SwiGLU block for so many tokens.
struct Block {
    wgpu: Wgpu,
    rows: usize,
    x: wgpu::Buffer,
    gate_weight: wgpu::Buffer,
    up_weight: wgpu::Buffer,
    down_weight: wgpu::Buffer,
    gate: wgpu::Buffer,
    up: wgpu::Buffer,
    h: wgpu::Buffer,
    out: wgpu::Buffer,
    workspace: wgpu::Buffer,
}

impl Block {
    fn new(rows: usize) -> Result<Block, Failure> {
        let wgpu = Wgpu::open()?;
        let buffer = |elements: usize, seed: u32| {
            let values: Vec<f32> = random(seed).take(elements).collect();
            wgpu.device().create_buffer_init(&BufferInitDescriptor {
                label: None,
                contents: bytemuck::cast_slice(&values),
                usage: BufferUsages::STORAGE,
            })
        };
        let workspace = GatedMlp::new(HIDDEN, FFN, DType::F32)?.workspace_bytes(rows);
        Ok(Block {
            rows,
            x: buffer(rows * HIDDEN, 1),
            gate_weight: buffer(FFN * HIDDEN, 2),
            up_weight: buffer(FFN * HIDDEN, 3),
            down_weight: buffer(HIDDEN * FFN, 4),
            gate: buffer(rows * FFN, 5),
            up: buffer(rows * FFN, 5),
            h: buffer(rows * FFN, 5),
            out: buffer(rows * HIDDEN, 5),
            workspace: buffer(workspace.div_ceil(4), 5),
            wgpu,
        })
    }

    fn fused(&self) -> Result<Plan, Failure> {
        let args = GatedMlpArgs::new(
            tensor(&self.x, [self.rows, HIDDEN])?,
            tensor(&self.gate_weight, [FFN, HIDDEN])?,
            tensor(&self.up_weight, [FFN, HIDDEN])?,
            tensor(&self.down_weight, [HIDDEN, FFN])?,
            tensor(&self.out, [self.rows, HIDDEN])?,
        );
        let op = GatedMlp::new(HIDDEN, FFN, DType::F32)?;
        Ok(self.wgpu.plan_gated_mlp(&op, args, WgpuWorkspace::whole(&self.workspace))?)
    }

    /// Two products, the activation and the last product, each by this crate's best kernel.
    fn separate(&self) -> Result<Vec<Plan>, Failure> {
        let linear = |x, weight, out, inputs, outputs| -> Result<Plan, Failure> {
            let args = PrunedLinearArgs::new(
                tensor(x, [self.rows, inputs])?,
                tensor(weight, [outputs, inputs])?,
                tensor(out, [self.rows, outputs])?,
            );
            let op = PrunedLinear::new(inputs, outputs, DType::F32)?;
            let workspace = WgpuWorkspace::whole(&self.workspace);
            Ok(self.wgpu.plan_pruned_linear(&op, args, workspace)?)
        };
        Ok(vec![
            linear(&self.x, &self.gate_weight, &self.gate, HIDDEN, FFN)?,
            linear(&self.x, &self.up_weight, &self.up, HIDDEN, FFN)?,
            self.silu_mul()?,
            linear(&self.h, &self.down_weight, &self.out, FFN, HIDDEN)?,
        ])
    }

    fn silu_mul(&self) -> Result<Plan, Failure> {
        let shape = [self.rows, FFN];
        let args = SiluMulArgs::new(
            tensor(&self.gate, shape)?,
            tensor(&self.up, shape)?,
            tensor(&self.h, shape)?,
        );
        Ok(self.wgpu.plan_silu_mul(&SiluMul::new(FFN, DType::F32)?, args)?)
    }

    /// Runs what `record` records and waits.
    fn run(&self, record: &Record<'_>) {
        let mut encoder = self.wgpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        record(&mut pass);
        drop(pass);
        self.wgpu.queue().submit([encoder.finish()]);
        self.wgpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device works");
    }
}

/// The naive products, bound.
struct Naive {
    pipeline: wgpu::ComputePipeline,
    /// Bind group and grid of gate, up and down.
    products: [(wgpu::BindGroup, [u32; 2]); 3],
}

impl Naive {
    fn new(block: &Block) -> Naive {
        let device = block.wgpu.device();
        let module = device.create_shader_module(wgpu::include_wgsl!("naive_linear.wgsl"));
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let product =
            |x: &wgpu::Buffer, weight: &wgpu::Buffer, y: &wgpu::Buffer, inputs, outputs| {
                let shape = [block.rows as u32, inputs as u32, outputs as u32, 0];
                let shape = device.create_buffer_init(&BufferInitDescriptor {
                    label: None,
                    contents: bytemuck::cast_slice(&shape),
                    usage: BufferUsages::UNIFORM,
                });
                let buffers = [&shape, x, weight, y];
                let entries: Vec<_> = (0..)
                    .zip(buffers)
                    .map(|(binding, buffer)| wgpu::BindGroupEntry {
                        binding,
                        resource: buffer.as_entire_binding(),
                    })
                    .collect();
                let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &pipeline.get_bind_group_layout(0),
                    entries: &entries,
                });
                (group, [(outputs as u32).div_ceil(8), (block.rows as u32).div_ceil(8)])
            };
        let products = [
            product(&block.x, &block.gate_weight, &block.gate, HIDDEN, FFN),
            product(&block.x, &block.up_weight, &block.up, HIDDEN, FFN),
            product(&block.h, &block.down_weight, &block.out, FFN, HIDDEN),
        ];
        Naive { pipeline, products }
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>, product: usize) {
        let (group, grid) = &self.products[product];
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(grid[0], grid[1], 1);
    }
}

fn tensor(buffer: &wgpu::Buffer, shape: [usize; 2]) -> Result<WgpuTensor<'_>, Failure> {
    Ok(WgpuTensor::new(buffer, 0, Layout::contiguous(DType::F32, &shape)?))
}

/// Deterministic values in [-0.5, 0.5).
fn random(seed: u32) -> impl Iterator<Item = f32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    })
}

fn compare(criterion: &mut Criterion) {
    for rows in [1, 8, 64] {
        let block = match Block::new(rows) {
            Ok(block) => block,
            Err(error) => {
                println!("NOT RUN: {error}");
                return;
            }
        };
        let fused = block.fused().expect("the block fits any adapter");
        let separate = block.separate().expect("the block fits any adapter");
        let activation = block.silu_mul().expect("the block fits any adapter");
        let naive = Naive::new(&block);
        let mut group = criterion.benchmark_group(format!("gated_mlp/f32/rows={rows}"));
        group.sample_size(20);
        let mut measure = |name: &str, record: &Record<'_>| {
            // Drivers compile a pipeline when it first runs.
            block.run(record);
            group.bench_function(name, |bencher| bencher.iter(|| block.run(record)));
        };
        measure("fused", &|pass| fused.record(pass));
        measure("separate", &|pass| separate.iter().for_each(|plan| plan.record(pass)));
        measure("naive", &|pass| {
            naive.record(pass, 0);
            naive.record(pass, 1);
            activation.record(pass);
            naive.record(pass, 2);
        });
        group.finish();
    }
}

criterion_group!(benches, compare);
criterion_main!(benches);
