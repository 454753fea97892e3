//! What a time loop inside the shader is worth on a wgpu adapter: `bigru` in two dispatches against the usual two for each
//! step and direction. Both get the input's share of the gates from this crate's kernels. f32, one layer.
//!
//! `cargo bench --features wgpu --bench wgpu_bigru`; on Mesa's software driver, times rank kernels only roughly.

use criterion::{Criterion, criterion_group, criterion_main};
use siluette::arguments::Repeated;
use siluette::wgpu::util::{BufferInitDescriptor, DeviceExt};
use siluette::wgpu::{self, BufferUsages};
use siluette::{
    BiGru, BiGruArgs, DType, Layout, Plan, PrunedLinear, PrunedLinearArgs, Wgpu, WgpuTensor,
    WgpuWorkspace,
};

type Failure = Box<dyn std::error::Error>;
type Record<'a> = dyn Fn(&mut wgpu::ComputePass<'_>) + 'a;

/// Texts, tokens of a text, features of a token, hidden units.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    steps: usize,
    input: usize,
    hidden: usize,
}

/// Weights, and what a direction of the usual way needs.
struct Direction {
    weight_ih: wgpu::Buffer,
    weight_hh: wgpu::Buffer,
    input_gates: wgpu::Buffer,
    gates: wgpu::Buffer,
    state: wgpu::Buffer,
}

struct Layer {
    wgpu: Wgpu,
    shape: Shape,
    x: wgpu::Buffer,
    directions: [Direction; 2],
    outs: [wgpu::Buffer; 2],
    workspace: wgpu::Buffer,
}

impl Layer {
    fn new(shape: Shape) -> Result<Layer, Failure> {
        let wgpu = Wgpu::open()?;
        let Shape { batch, steps, input, hidden } = shape;
        let buffer = |elements: usize, seed: u32| {
            let values: Vec<f32> = random(seed).take(elements).collect();
            wgpu.device().create_buffer_init(&BufferInitDescriptor {
                label: None,
                contents: bytemuck::cast_slice(&values),
                usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST,
            })
        };
        let direction = |seed| Direction {
            weight_ih: buffer(3 * hidden * input, seed),
            weight_hh: buffer(3 * hidden * hidden, seed + 1),
            input_gates: buffer(batch * steps * 3 * hidden, 9),
            gates: buffer(batch * 3 * hidden, 9),
            state: buffer(batch * hidden, 9),
        };
        let workspace = BiGru::new(input, hidden, 1, DType::F32)?.workspace_bytes(batch, steps);
        let out = || buffer(batch * steps * 2 * hidden, 9);
        Ok(Layer {
            shape,
            x: buffer(batch * steps * input, 1),
            directions: [direction(2), direction(4)],
            outs: [out(), out()],
            workspace: buffer(workspace.div_ceil(4), 9),
            wgpu,
        })
    }

    fn persistent(&self) -> Result<Plan, Failure> {
        let Shape { batch, steps, input, hidden } = self.shape;
        let [forward, reverse] = &self.directions;
        let shapes = [[3 * hidden, input], [3 * hidden, hidden]];
        let weight =
            |buffer, shape: usize| tensor(buffer, &shapes[shape]).map(|one| Repeated::from([one]));
        let args = BiGruArgs::new(
            tensor(&self.x, &[batch, steps, input])?,
            tensor(&self.outs[0], &[batch, steps, 2 * hidden])?,
        )
        .weight_ih(weight(&forward.weight_ih, 0)?)
        .weight_hh(weight(&forward.weight_hh, 1)?)
        .weight_ih_reverse(weight(&reverse.weight_ih, 0)?)
        .weight_hh_reverse(weight(&reverse.weight_hh, 1)?);
        let op = BiGru::new(input, hidden, 1, DType::F32)?;
        Ok(self.wgpu.plan_bigru(&op, args, WgpuWorkspace::whole(&self.workspace))?)
    }

    /// The input's product for a direction.
    fn input_gates(&self, direction: &Direction) -> Result<Plan, Failure> {
        let Shape { batch, steps, input, hidden } = self.shape;
        let args = PrunedLinearArgs::new(
            tensor(&self.x, &[batch * steps, input])?,
            tensor(&direction.weight_ih, &[3 * hidden, input])?,
            tensor(&direction.input_gates, &[batch * steps, 3 * hidden])?,
        );
        let op = PrunedLinear::new(input, 3 * hidden, DType::F32)?;
        let workspace = WgpuWorkspace::whole(&self.workspace);
        Ok(self.wgpu.plan_pruned_linear(&op, args, workspace)?)
    }

    /// Runs from states of zero and waits.
    fn run(&self, record: &Record<'_>) {
        let mut encoder = self.wgpu.device().create_command_encoder(&Default::default());
        for direction in &self.directions {
            encoder.clear_buffer(&direction.state, 0, None);
        }
        let mut pass = encoder.begin_compute_pass(&Default::default());
        record(&mut pass);
        drop(pass);
        self.wgpu.queue().submit([encoder.finish()]);
        self.wgpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device works");
    }

    /// The largest difference between both outputs.
    fn difference(&self) -> f32 {
        let device = self.wgpu.device();
        let read = |out: &wgpu::Buffer| {
            let copy = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: out.size(),
                usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut encoder = device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(out, 0, &copy, 0, out.size());
            self.wgpu.queue().submit([encoder.finish()]);
            copy.slice(..).map_async(wgpu::MapMode::Read, |_| {});
            device.poll(wgpu::PollType::wait_indefinitely()).expect("the device works");
            let bytes = copy.slice(..).get_mapped_range().expect("mapped").to_vec();
            bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)
        };
        let [persistent, per_step] = self.outs.each_ref().map(read);
        let pairs = persistent.iter().zip(&per_step);
        pairs.map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
    }
}

/// Two dispatches a step and direction, bound.
struct PerStep {
    input_gates: Vec<Plan>,
    pipelines: [wgpu::ComputePipeline; 2],
    /// In the order of the dispatches, the pipeline's number, the grid and the bind group.
    dispatches: Vec<(usize, [u32; 2], wgpu::BindGroup)>,
}

impl PerStep {
    fn new(layer: &Layer) -> Result<PerStep, Failure> {
        let device = layer.wgpu.device();
        let (group_layout, pipelines) = per_step_pipelines(device);
        let Shape { batch, steps, hidden, .. } = layer.shape;
        let mut dispatches = Vec::new();
        for step in 0..steps {
            for (index, direction) in layer.directions.iter().enumerate() {
                let token = if index == 0 { step } else { steps - 1 - step };
                let uniforms =
                    [batch, steps, hidden, token, index * hidden].map(|value| value as u32);
                let uniforms = device.create_buffer_init(&BufferInitDescriptor {
                    label: None,
                    contents: bytemuck::cast_slice(&uniforms),
                    usage: BufferUsages::UNIFORM,
                });
                let Direction { weight_hh, input_gates, gates, state, .. } = direction;
                let buffers = [&uniforms, weight_hh, input_gates, gates, state, &layer.outs[1]];
                let group = bind_group(device, &group_layout, &buffers);
                for (pipeline, units) in [(0, 3 * hidden), (1, hidden)] {
                    let grid = [(units as u32).div_ceil(64), batch as u32];
                    dispatches.push((pipeline, grid, group.clone()));
                }
            }
        }
        let input_gates = layer.directions.iter().map(|direction| layer.input_gates(direction));
        Ok(PerStep { input_gates: input_gates.collect::<Result<_, _>>()?, pipelines, dispatches })
    }

    fn dispatches(&self) -> usize {
        self.input_gates.iter().map(Plan::dispatches).sum::<usize>() + self.dispatches.len()
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.input_gates.iter().for_each(|plan| plan.record(pass));
        for (pipeline, grid, group) in &self.dispatches {
            pass.set_pipeline(&self.pipelines[*pipeline]);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(grid[0], grid[1], 1);
        }
    }
}

/// The products of a step, and its cells.
fn per_step_pipelines(
    device: &wgpu::Device,
) -> (wgpu::BindGroupLayout, [wgpu::ComputePipeline; 2]) {
    let module = device.create_shader_module(wgpu::include_wgsl!("gru_per_step.wgsl"));
    let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
    let uniform = wgpu::BufferBindingType::Uniform;
    let types =
        [uniform, storage(true), storage(true), storage(false), storage(false), storage(false)];
    let entries: Vec<_> = (0..)
        .zip(types)
        .map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        })
        .collect();
    let group_layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &entries,
    });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group_layout)],
        immediate_size: 0,
    });
    let pipelines = ["products", "cell"].map(|entry_point| {
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&layout),
            module: &module,
            entry_point: Some(entry_point),
            compilation_options: Default::default(),
            cache: None,
        })
    });
    (group_layout, pipelines)
}

fn bind_group(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    buffers: &[&wgpu::Buffer],
) -> wgpu::BindGroup {
    let entries: Vec<_> = (0..)
        .zip(buffers)
        .map(|(binding, buffer)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}

fn tensor<'a>(buffer: &'a wgpu::Buffer, shape: &[usize]) -> Result<WgpuTensor<'a>, Failure> {
    Ok(WgpuTensor::new(buffer, 0, Layout::contiguous(DType::F32, shape)?))
}

/// Deterministic values in [-0.25, 0.25).
fn random(seed: u32) -> impl Iterator<Item = f32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 25) as f32 - 0.25
    })
}

fn compare(criterion: &mut Criterion) {
    let shapes = [
        Shape { batch: 1, steps: 50, input: 100, hidden: 50 },
        Shape { batch: 32, steps: 50, input: 100, hidden: 50 },
        Shape { batch: 32, steps: 32, input: 300, hidden: 150 },
    ];
    for shape in shapes {
        let layer = match Layer::new(shape) {
            Ok(layer) => layer,
            Err(error) => {
                println!("NOT RUN: {error}");
                return;
            }
        };
        let persistent = layer.persistent().expect("the layer fits any adapter");
        let per_step = PerStep::new(&layer).expect("the layer fits any adapter");
        let Shape { batch, steps, input, hidden } = shape;
        let name = format!("bigru/f32/B={batch} L={steps} I={input} h={hidden}");
        // Drivers compile a pipeline when it first runs.
        layer.run(&|pass| persistent.record(pass));
        layer.run(&|pass| per_step.record(pass));
        let difference = layer.difference();
        assert!(difference < 1e-5, "{name}: both ways must give the same, not {difference} apart");
        let counts = [persistent.dispatches(), per_step.dispatches()];
        println!("{name}: {} dispatches against {}", counts[0], counts[1]);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        group.bench_function("persistent", |bencher| {
            bencher.iter(|| layer.run(&|pass| persistent.record(pass)));
        });
        group.bench_function("per_step", |bencher| {
            bencher.iter(|| layer.run(&|pass| per_step.record(pass)));
        });
        group.finish();
    }
}

criterion_group!(benches, compare);
criterion_main!(benches);
