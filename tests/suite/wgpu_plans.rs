//! The wgpu backend on the caller's device: what plans accept, what they refuse, how they are cut.

use siluette::conformance::{Case, Oracle, Purpose, Status, cases_for};
use siluette::wgpu;
use siluette::wgpu::{BufferUsages, Limits};
use siluette::{
    Backend, DType, Device, Error, GatedMlp, GatedMlpArgs, Layout, Operation, Plan, Problem,
    SiluMul, SiluMulArgs, Tensor, Wgpu, WgpuTensor, WgpuWorkspace, bf16,
};

use siluette::backend::wgpu::{MlpKernel, Reduction, WgpuDevice, WgpuDispatch};

use crate::support::is_required;

pub fn context() -> Option<Wgpu> {
    match Wgpu::open() {
        Ok(context) => Some(context),
        Err(error @ Error::Unavailable { .. }) if !is_required("wgpu") => {
            println!("NOT RUN: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A context on a device of the test's own, with limits below those of the adapter.
fn limited(context: &Wgpu, change: impl FnOnce(&mut Limits)) -> Result<Wgpu, Error> {
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let wanted = context.device().adapter_info().name;
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == wanted).unwrap();
    let mut required_limits = adapter.limits();
    change(&mut required_limits);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    Wgpu::new(&device, &queue)
}

fn buffer(context: &Wgpu, bytes: u64, usage: BufferUsages) -> wgpu::Buffer {
    context.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: bytes,
        usage,
        mapped_at_creation: false,
    })
}

pub fn storage(context: &Wgpu, contents: &[u8]) -> wgpu::Buffer {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
    let buffer = buffer(context, contents.len() as u64, usage);
    context.queue().write_buffer(&buffer, 0, contents);
    buffer
}

pub fn submit(context: &Wgpu, plan: &Plan) {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    plan.record(&mut pass);
    drop(pass);
    context.queue().submit([encoder.finish()]);
}

pub fn read(context: &Wgpu, buffer: &wgpu::Buffer) -> Vec<u8> {
    let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
    let staging = self::buffer(context, buffer.size(), usage);
    let mut encoder = context.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    context.queue().submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
    context.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    staging.get_mapped_range(..).unwrap().to_vec()
}

/// The buffers of a small MLP; tests replace one to see it refused.
struct Buffers {
    x: wgpu::Buffer,
    weights: wgpu::Buffer,
    residual: wgpu::Buffer,
    out: wgpu::Buffer,
    workspace: wgpu::Buffer,
}

const ROWS: usize = 3;
const HIDDEN: usize = 16;
const FFN: usize = 8;

fn op() -> GatedMlp {
    GatedMlp::new(HIDDEN, FFN, DType::F32).unwrap()
}

fn layout(shape: &[usize]) -> Layout {
    Layout::contiguous(DType::F32, shape).unwrap()
}

impl Buffers {
    fn new(context: &Wgpu) -> Buffers {
        let storage = |bytes| buffer(context, bytes, BufferUsages::STORAGE);
        Buffers {
            x: storage(4 * (ROWS * HIDDEN) as u64),
            weights: storage(4 * (HIDDEN * FFN) as u64),
            residual: storage(4 * (ROWS * HIDDEN) as u64),
            out: storage(4 * (ROWS * HIDDEN) as u64),
            workspace: storage(op().workspace_bytes(ROWS) as u64),
        }
    }

    fn args(&self) -> GatedMlpArgs<WgpuTensor<'_>, WgpuTensor<'_>> {
        let first = WgpuTensor::new(&self.weights, 0, layout(&[FFN, HIDDEN]));
        let second = WgpuTensor::new(&self.weights, 0, layout(&[HIDDEN, FFN]));
        let rows = |buffer| WgpuTensor::new(buffer, 0, layout(&[ROWS, HIDDEN]));
        GatedMlpArgs::new(rows(&self.x), first, first, second, rows(&self.out))
            .residual(rows(&self.residual))
    }

    fn plan(&self, context: &Wgpu) -> Result<Plan, Error> {
        context.plan_gated_mlp(&op(), self.args(), WgpuWorkspace::whole(&self.workspace))
    }
}

#[track_caller]
fn assert_refused(result: Result<Plan, Error>, wanted: &str, kind: Problem) {
    match result {
        Err(Error::Argument { argument, problem, .. }) => {
            assert_eq!((argument.as_ref(), problem), (wanted, kind));
        }
        other => panic!("expected {wanted} to be refused for its {kind:?}, got {other:?}"),
    }
}

#[test]
fn unsuitable_buffers_are_refused() {
    let Some(context) = context() else { return };
    let good = || Buffers::new(&context);
    drop(good().plan(&context).unwrap());

    let x = buffer(&context, 1024, BufferUsages::COPY_SRC);
    assert_refused(Buffers { x, ..good() }.plan(&context), "x", Problem::Value);
    let weights = buffer(&context, 16, BufferUsages::STORAGE);
    let plan = Buffers { weights, ..good() }.plan(&context);
    assert_refused(plan, "gate_weight", Problem::Length);
    let workspace = buffer(&context, 16, BufferUsages::STORAGE);
    let plan = Buffers { workspace, ..good() }.plan(&context);
    assert_refused(plan, "workspace", Problem::Length);
    let workspace = buffer(&context, 1024, BufferUsages::COPY_DST);
    let plan = Buffers { workspace, ..good() }.plan(&context);
    assert_refused(plan, "workspace", Problem::Value);

    let buffers = good();
    let plan = context.plan_gated_mlp(&op(), buffers.args(), WgpuWorkspace::none());
    assert_refused(plan, "workspace", Problem::Length);
    let large = buffer(&context, 4096, BufferUsages::STORAGE);
    let plan = context.plan_gated_mlp(&op(), buffers.args(), WgpuWorkspace::new(&large, 4, 4000));
    assert_refused(plan, "workspace", Problem::Alignment);
    let mut args = buffers.args();
    args.x = WgpuTensor::new(&large, 2, layout(&[ROWS, HIDDEN]));
    let plan = context.plan_gated_mlp(&op(), args, WgpuWorkspace::whole(&buffers.workspace));
    assert_refused(plan, "x", Problem::Alignment);
    let mut args = buffers.args();
    args.x = WgpuTensor::new(&large, u64::MAX - 3, layout(&[ROWS, HIDDEN]));
    let plan = context.plan_gated_mlp(&op(), args, WgpuWorkspace::whole(&buffers.workspace));
    assert_refused(plan, "x", Problem::Length);
}

#[test]
fn shared_buffers_are_refused() {
    let Some(context) = context() else { return };
    let good = Buffers::new(&context);
    let shared = good.out.clone();
    let plan = Buffers { residual: shared.clone(), ..Buffers::new(&context) };
    let plan = Buffers { out: shared.clone(), ..plan }.plan(&context);
    assert_refused(plan, "out", Problem::Overlap);
    let plan = Buffers { x: shared.clone(), out: shared, ..Buffers::new(&context) }.plan(&context);
    assert_refused(plan, "out", Problem::Overlap);
    let large = buffer(&context, 1 << 16, BufferUsages::STORAGE);
    for shared in ["x", "weights", "out", "residual"] {
        let mut buffers = Buffers { workspace: large.clone(), ..Buffers::new(&context) };
        match shared {
            "x" => buffers.x = large.clone(),
            "weights" => buffers.weights = large.clone(),
            "out" => buffers.out = large.clone(),
            _ => buffers.residual = large.clone(),
        }
        let workspace = WgpuWorkspace::new(&large, 1 << 15, 1 << 15);
        let result = context.plan_gated_mlp(&op(), buffers.args(), workspace);
        if shared == "residual" {
            // Read in a dispatch that only reads the workspace as well.
            drop(result.unwrap());
        } else {
            assert_eq!(result.unwrap_err().problem(), Some(Problem::Overlap), "{shared}");
        }
    }
}

#[test]
fn plans_are_bound_once_and_pipelines_compiled_once() {
    let Some(context) = context() else { return };
    let buffers = Buffers::new(&context);
    assert_eq!(buffers.plan(&context).unwrap().dispatches(), 2);
    let compiled = context.compiled_pipelines();
    assert_eq!(compiled, 2);
    let plan = Buffers::new(&context).plan(&context).unwrap();
    assert_eq!(context.compiled_pipelines(), compiled);
    for _ in 0..3 {
        submit(&context, &plan);
    }
}

/// Halves of words before and behind a tensor that starts in the middle of one belong to somebody else.
#[test]
fn neighbours_in_a_word_survive() {
    let Some(context) = context() else { return };
    let (rows, columns, stride, start) = (3usize, 5usize, 7usize, 3usize);
    let layout = Layout::strided(DType::BF16, &[rows, columns], &[stride, 1]).unwrap();
    let halves = start + layout.span() + 6;
    let sentinel = vec![0x5Au8; (2 * halves).next_multiple_of(4)];
    let values: Vec<bf16> =
        (0..halves + 1).map(|i| bf16::from_f32(i as f32 * 0.25 - 3.0)).collect();
    let inputs = storage(&context, bytemuck::cast_slice(&values[..halves / 2 * 2]));
    let out = storage(&context, &sentinel);
    let tensor = |buffer| WgpuTensor::new(buffer, 2 * start as u64, layout);
    let op = SiluMul::new(columns, DType::BF16).unwrap();
    let args = SiluMulArgs::new(tensor(&inputs), tensor(&inputs), tensor(&out));
    submit(&context, &context.plan_silu_mul(&op, args).unwrap());
    let result = read(&context, &out);
    for (index, half) in result.chunks_exact(2).enumerate() {
        let inside =
            index >= start && (index - start) / stride < rows && (index - start) % stride < columns;
        if inside {
            let value = values[index].to_f64();
            let expected = bf16::from_f64(value / (1.0 + (-value).exp()) * value);
            let got = bf16::from_le_bytes([half[0], half[1]]);
            let error = (got.to_f64() - expected.to_f64()).abs();
            assert!(error <= 0.008 * expected.to_f64().abs(), "{index}: {got} for {expected}");
        } else {
            assert_eq!(half, [0x5A, 0x5A], "element {index} is not the output's");
        }
    }
}

fn selection(wanted: &[&str]) -> Vec<Case> {
    let cases: Vec<Case> = cases_for(Purpose::Conformance)
        .into_iter()
        .filter(|case| {
            let id = format!("{} {} {}", case.op, case.dtype, case.name);
            wanted.iter().any(|wanted| id == *wanted)
        })
        .collect();
    assert_eq!(cases.len(), wanted.len(), "the case list has changed");
    cases
}

#[track_caller]
fn assert_passes(context: Wgpu, cases: &[Case], what: &str) {
    let device = Device::Wgpu(WgpuDevice::new(context));
    for case in cases {
        let status = Oracle::new(case).unwrap().check(&device).status;
        assert_eq!(status, Status::Pass, "{what}: {} {} {}", case.op, case.dtype, case.name);
    }
}

#[test]
fn every_variant_is_right() {
    if context().is_none() {
        return;
    }
    let cases = selection(&[
        "gated_mlp bf16 rows=5 hidden=96 ffn=40 biases norm residual round_gate_up",
        "silu_mlp f32/f16 rows=20 hidden=64 ffn=80 gap=1 biases norm residual",
        "gated_mlp f16 rows=8 hidden=256 ffn=130",
        "gather_norm f32/bf16 rows=3 features=261 selected=130 norm=selected gap=1",
        "gather_norm bf16 rows=33 features=96 selected=31",
        "scatter_add f16 rows=5 features=130 written=67 rank gap=1",
        "scatter_norm_gather bf16 rows=3 features=261 written=130 read=99 norm=full gap=1",
        "scatter_norm_gather f32 rows=2 features=24000 written=9000 read=7001 norm=full rank",
        "compact_weight f16 weight=20x300 rows=20 columns=300 pad=64 gap=1",
        "pruned_gated_mlp bf16 rows=5 hidden=96 inputs=48 ffn=40 outputs=60 norm=selected residual",
        "pruned_gated_mlp f32 rows=20 hidden=64 inputs=31 ffn=80 outputs=33 gap=1 norm=full residual",
        "pruned_linear bf16 rows=5 hidden=96 outputs=24 inputs=40 width=140 bias norm=full residual",
        "masked_gated_mlp f16 rows=5 hidden=96 ffn=40 norm=full residual soft",
        "sparse_gated_mlp bf16 rows=5 hidden=96 ffn=40 high threshold norm residual round_gate_up",
        "sparse_gated_mlp f16 rows=5 hidden=96 ffn=40 lists=0.4 transposed_down norm residual",
        "sparse_gated_mlp f32 rows=20 hidden=64 ffn=80 lists=0.4 gap=1 norm residual",
        "sparse_gated_mlp f32/f16 rows=20 hidden=64 ffn=80 high threshold transposed_down norm residual",
        "sparse_gated_mlp bf16 rows=1 hidden=512 ffn=1030 low threshold transposed_down",
        "exit_gate bf16 batch=17 hidden=264 gap=8 classifier=0.1 require=any",
        "exit_gate f16 batch=9 hidden=65 gap=3 classifier=0.1 require=any",
        "commit_cache f16 batch=12 capacity=48 page=6 drafts=6 nodes=11 groups=3 columns=67 gap=1 extremes",
        "feature_attention bf16 texts=3 tokens=9 features=136 reduced=20 biases lengths gap=8",
        "feature_attention f32/f16 texts=3 tokens=9 features=136 reduced=20 biases gap=3 out=bf16",
        "feature_attention f32 texts=2 tokens=300 features=3 reduced=2 biases lengths",
        "feature_attention f16 texts=3 tokens=2 features=8 reduced=2000 biases lengths",
    ]);
    type Change = fn(&mut WgpuDispatch);
    let set: [(&str, Change); 6] = [
        ("workgroup", |dispatch| dispatch.reduction = Some(Reduction::Workgroup)),
        ("scalar workgroup", |dispatch| {
            dispatch.reduction = Some(Reduction::Workgroup);
            dispatch.scalar_loads = true;
        }),
        ("scalar", |dispatch| dispatch.scalar_loads = true),
        ("gemv", |dispatch| dispatch.mlp = Some(MlpKernel::Gemv)),
        ("tile", |dispatch| dispatch.mlp = Some(MlpKernel::Tile)),
        ("checked", |dispatch| dispatch.bounds_checks = true),
    ];
    for (name, change) in set {
        let mut dispatch = WgpuDispatch::default();
        change(&mut dispatch);
        assert_passes(Wgpu::open().unwrap().with_dispatch(dispatch), &cases, name);
    }
}

#[test]
fn rows_do_not_depend_on_their_batch() {
    let Some(context) = context() else { return };
    let (hidden, ffn) = (40, 24);
    let op = GatedMlp::new(hidden, ffn, DType::F32).unwrap().with_batch_invariance(true);
    let device = Device::Wgpu(WgpuDevice::new(context));
    let values = |count: usize, seed: usize| -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed) % 101) as f32 / 50.0 - 1.0).collect()
    };
    let tensor = |data: &[f32], shape: [usize; 2]| Tensor::from_slice(data, &shape).unwrap();
    let gate = tensor(&values(ffn * hidden, 1), [ffn, hidden]);
    let up = tensor(&values(ffn * hidden, 2), [ffn, hidden]);
    let down = tensor(&values(hidden * ffn, 3), [hidden, ffn]);
    let x = values(64 * hidden, 4);
    let run = |rows: usize| -> Vec<f64> {
        let input = tensor(&x[..rows * hidden], [rows, hidden]);
        let mut out = Tensor::zeros(layout(&[rows, hidden]));
        device.run(&op, GatedMlpArgs::new(&input, &gate, &up, &down, &mut out)).unwrap();
        out.view().to_f64()
    };
    let alone = run(1);
    assert!(alone.iter().any(|&value| value != 0.0));
    for rows in [2, 8, 9, 64] {
        assert_eq!(run(rows)[..hidden], alone, "{rows} rows");
    }
}

#[test]
fn launches_are_cut_to_the_limits() {
    let Some(context) = context() else { return };
    let cases = selection(&[
        "gated_mlp bf16 rows=5 hidden=96 ffn=40 biases norm residual round_gate_up",
        "silu_mlp f32 rows=20 hidden=64 ffn=80 gap=1 biases norm residual",
        "silu_mul f16 rows=33 columns=1000",
        "pruned_gated_mlp bf16 rows=5 hidden=96 inputs=48 ffn=40 outputs=60 gap=1 norm=full residual",
        "pruned_gated_mlp f32 rows=20 hidden=64 inputs=31 ffn=80 outputs=33 norm=selected residual",
        "pruned_linear f32 rows=20 hidden=64 outputs=80 inputs=33 width=140 bias norm=full residual",
        "masked_gated_mlp f32 rows=20 hidden=64 ffn=80 gap=1 norm=full residual soft",
        "sparse_gated_mlp f32 rows=20 hidden=64 ffn=80 lists=0.4 gap=1 norm residual",
        "sparse_gated_mlp bf16 rows=20 hidden=64 ffn=80 high threshold gap=1 norm residual",
    ]);
    let small =
        limited(&context, |limits| limits.max_storage_buffer_binding_size = 3 << 10).unwrap();
    assert_passes(small, &cases, "bindings of 3 KiB");
    let few = limited(&context, |limits| limits.max_compute_workgroups_per_dimension = 7).unwrap();
    assert_passes(few, &cases, "7 workgroups a dimension");
    let narrow =
        limited(&context, |limits| limits.max_compute_workgroup_storage_size = 6 << 10).unwrap();
    assert_passes(narrow, &cases, "6 KiB of workgroup memory");
}

#[test]
fn movement_and_selections_are_cut_to_the_limits() {
    let Some(context) = context() else { return };
    for (bytes, names) in [
        (
            3 << 10,
            &[
                "gather_norm f32 rows=5 features=130 selected=67 gap=1 out=f32",
                "scatter_add f32 rows=5 features=130 written=67 rank gap=1 out=f32",
                "scatter_norm_gather f32 rows=3 features=261 written=130 read=99 norm=full rank",
                "compact_mask u8 mask=[300, 3] share=0.5",
                "compact_weight f32 weight=16x129 columns=1 pad=16 gap=0",
                "zero_entries f16 weight=[21, 205] k=500 gap=1 count",
                "exit_gate f32 batch=40 hidden=96 gap=0",
                "compact_rows f32 listed=130 rows=9 features=16 gap=0 below=130",
                "scatter_rows f32 listed=130 rows=9 features=16 gap=0 below=130",
            ][..],
        ),
        // The histogram's 8 KiB are not cut; scores of 40 KiB are.
        (
            28 << 10,
            &[
                "select_top f32 scores=[10007] k=500 extremes",
                "coupled_neurons f32 scores=[33, 305] p=0.2 q=0.4 gap=0 intersect",
            ],
        ),
        // Groups of 151 KiB are not cut; a cache of three is.
        (
            300 << 10,
            &[
                "commit_cache f32 batch=12 capacity=48 drafts=6 nodes=11 groups=3 columns=67 gap=1 extremes",
            ],
        ),
        // Texts of 4 KiB are not cut; a batch of four is.
        (10 << 10, &["feature_attention f32 texts=4 tokens=17 features=64 reduced=7 lengths"]),
        // Nor is a histogram of 256 KiB; scores of 4 MiB are.
        (300 << 10, &["select_top bf16 scores=[2200000] k=40000"]),
    ] {
        let small =
            limited(&context, |limits| limits.max_storage_buffer_binding_size = bytes).unwrap();
        assert_passes(small, &selection(names), &format!("bindings of {bytes} bytes"));
    }
    let few = limited(&context, |limits| limits.max_compute_workgroups_per_dimension = 4).unwrap();
    let names = [
        "gather_norm f32 rows=5 features=130 selected=67 gap=1 out=f32",
        "select_top f32 scores=[10007] k=500 extremes",
        "compact_mask u8 mask=[7, 33] share=0.5",
        "invert_indices u32 features=5003 selected=2501",
        "exit_gate f32 batch=9 hidden=33 gap=0",
        "compact_rows f32 listed=7 rows=9 features=128 gap=0 below=9",
        "commit_cache f32 batch=7 capacity=48 page=16 drafts=6 nodes=6 groups=2 columns=33 gap=0",
        "feature_attention f32 texts=9 tokens=6 features=129 reduced=1 biases",
    ];
    assert_passes(few, &selection(&names), "4 workgroups a dimension");
}

#[test]
fn recurrences_are_cut_to_the_limits() {
    let Some(context) = context() else { return };
    let cases = selection(&[
        "bigru f16 batch=3 length=7 input=10 hidden=12 layers=2 lengths h0 gap",
        "bigru f32 batch=9 length=6 input=10 hidden=8 layers=1 lengths",
        "bigru bf16 batch=2 length=5 input=9 hidden=15 layers=1 lengths",
    ]);
    // Gates of two or three texts of the first cases.
    let small =
        limited(&context, |limits| limits.max_storage_buffer_binding_size = 5 << 10).unwrap();
    assert_passes(small, &cases, "bindings of 5 KiB");
    let few = limited(&context, |limits| limits.max_compute_workgroups_per_dimension = 5).unwrap();
    assert_passes(few, &cases, "5 workgroups a dimension");
    let cases = selection(&[
        "selective_feature_attention f32 batch=33 length=2 features=10 reduced=8 squeezed=5 branches=3 lengths",
        "selective_feature_attention f32 batch=9 length=5 features=10 reduced=8 squeezed=5 branches=3 global sum lengths",
        "selective_feature_attention f32 batch=3 length=6 features=10 reduced=8 squeezed=5 branches=4 state chained \
         global sum lengths",
    ]);
    let small =
        limited(&context, |limits| limits.max_storage_buffer_binding_size = 2 << 10).unwrap();
    assert_passes(small, &cases, "bindings of 2 KiB");
    let few = limited(&context, |limits| limits.max_compute_workgroups_per_dimension = 9).unwrap();
    assert_passes(few, &cases, "9 workgroups a dimension");
    // Too few to keep the weights with their invocations.
    let narrow =
        limited(&context, |limits| limits.max_compute_invocations_per_workgroup = 64).unwrap();
    let cases = selection(&["bigru bf16 batch=2 length=5 input=9 hidden=50 layers=1 lengths"]);
    assert_passes(narrow, &cases, "64 invocations");
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let Some(context) = context() else { return };
    let refused = |context: Wgpu, words: &str| {
        let error = Buffers::new(&context).plan(&context).unwrap_err();
        assert!(matches!(error, Error::Unsupported { backend: Backend::Wgpu, .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let tiny = limited(&context, |limits| limits.max_storage_buffer_binding_size = 64).unwrap();
    refused(tiny, "max_storage_buffer_binding_size");
    let flat = limited(&context, |limits| limits.max_compute_workgroups_per_dimension = 1).unwrap();
    refused(flat, "max_compute_workgroups_per_dimension");
    let bare = limited(&context, |limits| limits.max_compute_workgroup_storage_size = 256).unwrap();
    refused(bare, "max_compute_workgroup_storage_size");
    let no_subgroups = limited(&context, |_| ()).unwrap();
    let mut dispatch = WgpuDispatch::default();
    dispatch.reduction = Some(Reduction::Subgroup);
    refused(no_subgroups.with_dispatch(dispatch), "subgroup");
    let starved = limited(&context, |limits| limits.max_storage_buffers_per_shader_stage = 4);
    assert!(matches!(starved, Err(Error::Unavailable { .. })), "{starved:?}");
}

#[test]
fn nothing_to_do_is_no_dispatch() {
    let Some(context) = context() else { return };
    let buffers = Buffers::new(&context);
    let mut args = buffers.args();
    args.x = WgpuTensor::new(&buffers.x, 0, layout(&[0, HIDDEN]));
    args.out = WgpuTensor::new(&buffers.out, 0, layout(&[0, HIDDEN]));
    args.residual = None;
    let plan = context.plan_gated_mlp(&op(), args, WgpuWorkspace::none()).unwrap();
    assert_eq!(plan.dispatches(), 0);
    assert_eq!(SiluMul::NAME, "silu_mul");
}
