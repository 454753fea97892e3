//! The pruned MLP block of every layer of a model and the exit head behind each, with weights that stay on the device,
//! recorded into one command encoder.
//!
//! ```sh
//! cargo run --release --features wgpu,safetensors --example wgpu_layers
//! ```
//!
//! Nothing attends here, so that the tokens are no text: they and their logits are compared with the CPU's.

use std::error::Error;
use std::path::Path;

use safetensors::SafeTensors;
use siluette::wgpu::util::{BufferInitDescriptor, DeviceExt as _};
use siluette::wgpu::{self, Buffer, BufferUsages};
use siluette::{
    CompactWeight, CompactWeightArgs, Cpu, DType, ExitHead, ExitHeadArgs, HasLayout as _, IndexSet,
    Layout, ModelIndexSets, Operation, Plan, PrunedGatedMlp, PrunedGatedMlpArgs, Tensor, TensorRef,
    Wgpu, WgpuTensor, WgpuWorkspace, Workspace, bf16,
};

const TOKENS: [usize; 4] = [300, 1200, 2500, 4000];
const NORM_EPS: f32 = 1e-5;

/// A layer's MLP, without what its index sets leave out.
struct Layer {
    mlp: PrunedGatedMlp,
    norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    mlp_in: IndexSet,
    mlp_out: IndexSet,
}

struct Model {
    layers: Vec<Layer>,
    norm: Tensor,
    head: ExitHead,
    embedding: Tensor,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/layerskip"));
    let model = Model::read(folder)?;
    let x = model.embedded(&TOKENS)?;
    let wgpu = Wgpu::open()?;
    println!("adapter: {}", wgpu.name());
    let on_device = Resident::new(&wgpu, &model, &x)?;
    let plans = on_device.plans(&wgpu, &model)?;
    let dispatches: usize = plans.iter().map(Plan::dispatches).sum();
    println!("{} layers, {dispatches} dispatches in one command buffer\n", model.layers.len());

    let (tokens, logits) = on_device.run(&wgpu, &plans)?;
    let (expected_tokens, expected_logits) = model.run_on_cpu(x)?;
    for (layer, tokens) in tokens.chunks(TOKENS.len()).enumerate() {
        println!("behind layer {}: tokens {tokens:?}", layer + 1);
    }
    let differences = logits.iter().zip(&expected_logits).map(|(got, want)| (got - want).abs());
    let largest = differences.fold(0.0, f32::max);
    let same = tokens.iter().zip(&expected_tokens).filter(|(got, want)| got == want).count();
    println!("\n{same} of {} tokens are the CPU's; logits differ by {largest:.1e}", tokens.len());
    if largest > 1e-3 {
        return Err("the backends disagree".into());
    }
    Ok(())
}

impl Model {
    fn read(folder: &Path) -> Result<Model, Box<dyn Error>> {
        let bytes = std::fs::read(folder.join("model.safetensors"))?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let sets =
            ModelIndexSets::from_safetensors(&std::fs::read(folder.join("masks_50.safetensors"))?)?;
        let get = |name: &str| read_bf16(&tensors, name);
        let embedding = get("model.embed_tokens.weight")?;
        let [vocabulary, hidden] = embedding.layout().shape().try_into()?;
        let mut layers = Vec::new();
        for (index, sets) in sets.layers().iter().enumerate() {
            let get = |name: &str| get(&format!("model.layers.{index}.{name}.weight"));
            let (mlp_in, mid, mlp_out) = (&sets.mlp_in, &sets.mlp_mid, &sets.mlp_out);
            layers.push(Layer {
                mlp: PrunedGatedMlp::new(hidden, mid.len(), DType::F32)?
                    .with_weight_dtype(DType::BF16)?
                    .with_inputs(mlp_in.len())?
                    .with_outputs(mlp_out.len())?
                    .with_norm(NORM_EPS)?,
                norm: get("post_attention_layernorm")?,
                gate: compacted(&get("mlp.gate_proj")?, mid, mlp_in)?,
                up: compacted(&get("mlp.up_proj")?, mid, mlp_in)?,
                down: compacted(&get("mlp.down_proj")?, mlp_out, mid)?,
                mlp_in: mlp_in.clone(),
                mlp_out: mlp_out.clone(),
            });
        }
        let head = ExitHead::new(hidden, vocabulary, DType::F32)?
            .with_weight_dtype(DType::BF16)?
            .with_norm(NORM_EPS)?;
        Ok(Model { layers, norm: get("model.norm.weight")?, head, embedding })
    }

    /// The embeddings of tokens, in f32.
    fn embedded(&self, tokens: &[usize]) -> Result<Tensor, siluette::Error> {
        let width = self.embedding.layout().columns();
        let all = self.embedding.view().to_f64();
        let rows = tokens.iter().flat_map(|token| &all[token * width..][..width]).copied();
        Ok(Tensor::from_f64(states(tokens.len(), width)?, rows))
    }

    /// Tokens and their logits, layer after layer.
    fn run_on_cpu(&self, mut x: Tensor) -> Result<(Vec<i32>, Vec<f32>), siluette::Error> {
        let (cpu, mut workspace) = (Cpu::new(), Workspace::default());
        let rows = TOKENS.len();
        let (mut tokens, mut logits) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            let mut out = Tensor::zeros(x.layout());
            let args = PrunedGatedMlpArgs::new(
                x.view(),
                layer.mlp_in.indices_tensor(),
                layer.gate.view(),
                layer.up.view(),
                layer.down.view(),
                layer.mlp_out.indices_tensor(),
                out.view_mut(),
            );
            let args = args.norm_weight(layer.norm.view());
            cpu.pruned_gated_mlp(&layer.mlp, args, &mut workspace)?;
            x = out;
            let mut token = Tensor::zeros(Layout::contiguous(DType::I32, &[rows])?);
            let mut logit = Tensor::zeros(Layout::contiguous(DType::F32, &[rows])?);
            let args = ExitHeadArgs::new(x.view(), self.embedding.view())
                .norm_weight(self.norm.view())
                .token(token.view_mut())
                .max_logit(logit.view_mut());
            cpu.exit_head(&self.head, args, &mut workspace)?;
            tokens.extend_from_slice(token.view().as_slice().expect("one piece"));
            logits.extend_from_slice(logit.view().as_slice().expect("one piece"));
        }
        Ok((tokens, logits))
    }
}

/// The model in the device's memory, and what it computes there.
struct Resident {
    layers: Vec<[Buffer; 6]>,
    norm: Buffer,
    embedding: Buffer,
    /// Before the first layer and behind each.
    states: Vec<Buffer>,
    /// `[layers, rows]`.
    tokens: Buffer,
    /// `[layers, rows]`.
    logits: Buffer,
    workspace: Buffer,
}

impl Resident {
    fn new(wgpu: &Wgpu, model: &Model, x: &Tensor) -> Result<Resident, siluette::Error> {
        let upload = |view: TensorRef<'_>| {
            wgpu.device().create_buffer_init(&BufferInitDescriptor {
                label: None,
                contents: view.span_bytes(),
                usage: BufferUsages::STORAGE,
            })
        };
        let layer = |layer: &Layer| {
            let (mlp_in, mlp_out) = (layer.mlp_in.indices_tensor(), layer.mlp_out.indices_tensor());
            let Layer { norm, gate, up, down, .. } = layer;
            [norm.view(), mlp_in, gate.view(), up.view(), down.view(), mlp_out].map(upload)
        };
        let bytes = x.layout().elements() * size_of::<f32>();
        let results = model.layers.len() * TOKENS.len() * 4;
        let output = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
        // Plans run one after the other: they share what the largest needs.
        let of_layers = model.layers.iter().map(|layer| layer.mlp.workspace_bytes(TOKENS.len()));
        let of_head = ExitHeadArgs::new(x.layout(), model.embedding.layout());
        let of_head = Operation::workspace_bytes(&model.head, &of_head);
        let workspace = of_layers.max().unwrap_or(0).max(of_head);
        let states = model.layers.iter().map(|_| buffer(wgpu, bytes, BufferUsages::STORAGE));
        Ok(Resident {
            layers: model.layers.iter().map(layer).collect(),
            norm: upload(model.norm.view()),
            embedding: upload(model.embedding.view()),
            states: std::iter::once(upload(x.view())).chain(states).collect(),
            tokens: buffer(wgpu, results, output),
            logits: buffer(wgpu, results, output),
            workspace: buffer(wgpu, workspace, BufferUsages::STORAGE),
        })
    }

    /// Made once for these buffers, recorded as often as wanted.
    fn plans(&self, wgpu: &Wgpu, model: &Model) -> Result<Vec<Plan>, siluette::Error> {
        let rows = TOKENS.len();
        let x = states(rows, model.embedding.layout().columns())?;
        let workspace = WgpuWorkspace::whole(&self.workspace);
        let mut plans = Vec::new();
        for (index, (layer, buffers)) in model.layers.iter().zip(&self.layers).enumerate() {
            let [norm, mlp_in, gate, up, down, mlp_out] = buffers;
            let args = PrunedGatedMlpArgs::new(
                WgpuTensor::new(&self.states[index], 0, x),
                WgpuTensor::new(mlp_in, 0, layer.mlp_in.indices_tensor().layout()),
                WgpuTensor::new(gate, 0, layer.gate.layout()),
                WgpuTensor::new(up, 0, layer.up.layout()),
                WgpuTensor::new(down, 0, layer.down.layout()),
                WgpuTensor::new(mlp_out, 0, layer.mlp_out.indices_tensor().layout()),
                WgpuTensor::new(&self.states[index + 1], 0, x),
            );
            let args = args.norm_weight(WgpuTensor::new(norm, 0, layer.norm.layout()));
            plans.push(wgpu.plan_pruned_gated_mlp(&layer.mlp, args, workspace)?);

            let result = |buffer, dtype| {
                let layout = Layout::contiguous(dtype, &[rows])?;
                Ok::<_, siluette::Error>(WgpuTensor::new(buffer, (index * rows * 4) as u64, layout))
            };
            let args = ExitHeadArgs::new(
                WgpuTensor::new(&self.states[index + 1], 0, x),
                WgpuTensor::new(&self.embedding, 0, model.embedding.layout()),
            )
            .norm_weight(WgpuTensor::new(&self.norm, 0, model.norm.layout()))
            .token(result(&self.tokens, DType::I32)?)
            .max_logit(result(&self.logits, DType::F32)?);
            plans.push(wgpu.plan_exit_head(&model.head, args, workspace)?);
        }
        Ok(plans)
    }

    fn run(&self, wgpu: &Wgpu, plans: &[Plan]) -> Result<(Vec<i32>, Vec<f32>), Box<dyn Error>> {
        let bytes = self.tokens.size();
        let staging =
            buffer(wgpu, 2 * bytes as usize, BufferUsages::COPY_DST | BufferUsages::MAP_READ);
        let mut encoder =
            wgpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for plan in plans {
            plan.record(&mut pass);
        }
        drop(pass);
        encoder.copy_buffer_to_buffer(&self.tokens, 0, &staging, 0, bytes);
        encoder.copy_buffer_to_buffer(&self.logits, 0, &staging, bytes, bytes);
        wgpu.queue().submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        wgpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok((
            bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..bytes)?),
            bytemuck::pod_collect_to_vec(&staging.get_mapped_range(bytes..)?),
        ))
    }
}

fn buffer(wgpu: &Wgpu, bytes: usize, usage: BufferUsages) -> Buffer {
    wgpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        // No buffer may be empty.
        size: bytes.max(4) as u64,
        usage,
        mapped_at_creation: false,
    })
}

fn states(rows: usize, width: usize) -> Result<Layout, siluette::Error> {
    Layout::contiguous(DType::F32, &[rows, width])
}

fn read_bf16(tensors: &SafeTensors<'_>, name: &str) -> Result<Tensor, Box<dyn Error>> {
    let view = tensors.tensor(name)?;
    if view.dtype() != safetensors::Dtype::BF16 {
        return Err(format!("{name} is {:?}, expected BF16", view.dtype()).into());
    }
    // The file may put it at an odd address.
    let values: Vec<bf16> = bytemuck::pod_collect_to_vec(view.data());
    Ok(Tensor::from_slice(&values, view.shape())?)
}

fn compacted(
    weight: &Tensor,
    rows: &IndexSet,
    columns: &IndexSet,
) -> Result<Tensor, siluette::Error> {
    let [all_rows, all_columns] = [rows.domain(), columns.domain()];
    let op = CompactWeight::new(all_rows, all_columns, DType::BF16)?
        .with_rows(rows.len())?
        .with_columns(columns.len())?;
    let mut out = Tensor::zeros(Layout::contiguous(DType::BF16, &[rows.len(), columns.len()])?);
    let args = CompactWeightArgs::new(weight.view(), out.view_mut())
        .rows(rows.indices_tensor())
        .columns(columns.indices_tensor());
    Cpu::new().compact_weight(&op, args)?;
    Ok(out)
}
