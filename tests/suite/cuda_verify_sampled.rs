//! `verify_sampled` in one launch: what it counts in the workspace holds whatever was there before, and in a graph.

use std::sync::Arc;

use siluette::backend::cuda::CudaOptions;
use siluette::cudarc::driver::sys::{CUgraphInstantiate_flags as GraphFlags, CUstreamCaptureMode};
use siluette::cudarc::driver::{CudaSlice, CudaStream};
use siluette::device::NamedTensors;
use siluette::{
    Cuda, CudaTensor, CudaTensorMut, CudaWorkspace, DType, Device, Error, Layout, Operation,
    SampledMode, Tensor, VerifySampled, VerifySampledArgs,
};

use crate::cuda_support::{backend, random, upload};
use crate::support::{integers, ints, parameters, run};

const SEQUENCES: usize = 3;
const DRAFTS: usize = 6;
const MAX_DRAFT: usize = 4;
const VOCABULARY: usize = 37;

/// What changes from call to call.
struct Batch {
    draft: [i32; DRAFTS],
    offsets: [u32; SEQUENCES + 1],
    positions: [i32; SEQUENCES],
}

const BATCHES: [Batch; 3] = [
    Batch { draft: [3, 1, 4, 1, 5, 9], offsets: [0, 2, 2, 6], positions: [0, 10, 20] },
    Batch { draft: [2, 6, 5, 3, 5, 8], offsets: [0, 3, 6, 6], positions: [7, 7, 7] },
    Batch { draft: [9, 7, 9, 3, 2, 3], offsets: [0, 1, 2, 6], positions: [1, 2, 3] },
];

fn layout(rows: usize) -> Layout {
    Layout::contiguous(DType::F32, &[rows, VOCABULARY]).unwrap()
}

/// Small, so that most drafts have a chance.
fn logits() -> [Tensor; 2] {
    [random(layout(DRAFTS + SEQUENCES), 1.0, 5), random(layout(DRAFTS), 1.0, 6)]
}

fn expected(mode: &str, batch: &Batch) -> Vec<i32> {
    let [target, draft_distribution] = logits();
    let mut inputs: NamedTensors = [
        ("target", target),
        ("draft", integers(&batch.draft)),
        ("offsets", Tensor::from_slice(&batch.offsets, &[SEQUENCES + 1]).unwrap()),
        ("positions", integers(&batch.positions)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into();
    if mode != "one_hot" {
        inputs.insert("draft_distribution".to_owned(), draft_distribution);
    }
    let options = parameters(&[("mode", mode), ("max_draft", &MAX_DRAFT.to_string())]);
    ints(&run(&Device::Reference, "verify_sampled", &inputs, &options), "tokens")
}

struct Memory {
    op: VerifySampled,
    target: CudaSlice<f32>,
    draft_distribution: Option<CudaSlice<f32>>,
    draft: CudaSlice<i32>,
    offsets: CudaSlice<u32>,
    positions: CudaSlice<i32>,
    tokens: CudaSlice<i32>,
    workspace: CudaSlice<u8>,
}

impl Memory {
    fn new(stream: &Arc<CudaStream>, mode: SampledMode) -> Memory {
        let [target, draft_distribution] = logits().map(|tensor| upload(stream, &tensor, 0));
        let op = VerifySampled::new(VOCABULARY, MAX_DRAFT, DType::F32, mode).unwrap();
        let mut memory = Memory {
            op,
            target,
            draft_distribution: (mode != SampledMode::OneHot).then_some(draft_distribution),
            draft: stream.alloc_zeros(DRAFTS).unwrap(),
            offsets: stream.alloc_zeros(SEQUENCES + 1).unwrap(),
            positions: stream.alloc_zeros(SEQUENCES).unwrap(),
            tokens: stream.alloc_zeros(SEQUENCES * (MAX_DRAFT + 1)).unwrap(),
            workspace: stream.alloc_zeros(1).unwrap(),
        };
        let bytes = memory.args().map(|(args, _)| op.workspace_bytes(&args.layouts())).unwrap();
        memory.workspace = stream.alloc_zeros(bytes).unwrap();
        memory
    }

    #[allow(clippy::type_complexity, reason = "the two arguments of one call")]
    fn args(
        &mut self,
    ) -> Result<(VerifySampledArgs<CudaTensor<'_>, CudaTensorMut<'_>>, CudaWorkspace<'_>), Error>
    {
        let rows = DRAFTS + SEQUENCES;
        let mut args = VerifySampledArgs::new(
            CudaTensor::new(&self.target, &[rows, VOCABULARY])?,
            CudaTensor::new(&self.draft, &[DRAFTS])?,
            CudaTensor::new(&self.offsets, &[SEQUENCES + 1])?,
        )
        .positions(CudaTensor::new(&self.positions, &[SEQUENCES])?)
        .tokens(CudaTensorMut::new(&mut self.tokens, &[SEQUENCES, MAX_DRAFT + 1])?);
        if let Some(q) = &self.draft_distribution {
            args = args.draft_distribution(CudaTensor::new(q, &[DRAFTS, VOCABULARY])?);
        }
        Ok((args, CudaWorkspace::new(&mut self.workspace)))
    }

    fn enqueue(&mut self, cuda: &Cuda, stream: &Arc<CudaStream>) {
        let op = self.op;
        let (args, workspace) = self.args().unwrap();
        cuda.verify_sampled(stream, &op, args, workspace).unwrap();
    }

    /// The batch's inputs, and in the workspace what another call, or one that was aborted, may leave.
    fn set(&mut self, stream: &Arc<CudaStream>, batch: &Batch, left: u8) {
        stream.memcpy_htod(&batch.draft, &mut self.draft).unwrap();
        stream.memcpy_htod(&batch.offsets, &mut self.offsets).unwrap();
        stream.memcpy_htod(&batch.positions, &mut self.positions).unwrap();
        stream.memcpy_htod(&vec![left; self.workspace.len()], &mut self.workspace).unwrap();
    }

    fn tokens(&self, stream: &Arc<CudaStream>) -> Vec<i32> {
        stream.clone_dtoh(&self.tokens).unwrap()
    }
}

const MODES: [(SampledMode, &str); 3] =
    [(SampledMode::OneHot, "one_hot"), (SampledMode::Full, "full"), (SampledMode::Block, "block")];

#[test]
fn one_kernel_does_it_whatever_the_workspace_holds() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let stream = context.default_stream();
    for (mode, name) in MODES {
        let mut memory = Memory::new(&stream, mode);
        let op = memory.op;
        let layouts = memory.args().unwrap().0.layouts();
        let plan = cuda.plan(&op, &layouts).unwrap();
        assert_eq!(plan.kernels(), ["verify_sampled_f32"]);
        for (batch, left) in BATCHES.iter().zip([0, 1, 0xff]) {
            memory.set(&stream, batch, left);
            for _ in 0..2 {
                memory.enqueue(&cuda, &stream);
                assert_eq!(memory.tokens(&stream), expected(name, batch), "{name}, {left}");
                stream.memset_zeros(&mut memory.tokens).unwrap();
            }
        }
    }
}

#[test]
#[allow(unsafe_code, reason = "events cannot cross the border of a graph")]
fn a_graph_counts_anew_each_time() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    // SAFETY: one stream.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    for (mode, name) in MODES {
        let mut memory = Memory::new(&stream, mode);
        let layouts = memory.args().unwrap().0.layouts();
        cuda.prepare(&memory.op, &layouts).unwrap();
        let capture = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(capture).unwrap();
        memory.enqueue(&cuda, &stream);
        let graph = stream.end_capture(GraphFlags(0)).unwrap().expect("a graph");
        assert!(memory.tokens(&stream).iter().all(|&token| token == 0), "only captured");
        for (batch, left) in BATCHES.iter().chain(&BATCHES).zip([0, 0, 0, 1, 2, 0xff]) {
            memory.set(&stream, batch, left);
            graph.launch().unwrap();
            assert_eq!(memory.tokens(&stream), expected(name, batch), "{name}, {left}");
        }
    }
}
