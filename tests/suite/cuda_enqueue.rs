//! Calls on streams and memory of the caller's.

use std::sync::Arc;

use siluette::backend::cuda::{Cuda, CudaOptions};
use siluette::cudarc::driver::sys::{
    CUgraphInstantiate_flags as GraphFlags, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use siluette::cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use siluette::{
    CudaTensor, CudaTensorMut, CudaWorkspace, DType, Device, Error, GatedMlp, GatedMlpArgs,
    HasLayout, Layout, Problem, SiluMul, SiluMulArgs, Tensor, f16,
};

use crate::cuda_support::{backend, random, upload};

const HIDDEN: usize = 40;
const FFN: usize = 72;

fn layout(shape: [usize; 2]) -> Layout {
    Layout::contiguous(DType::F16, &shape).unwrap()
}

/// A gated MLP in f16 with its tensors in host memory.
struct Model {
    op: GatedMlp,
    weights: [Tensor; 3],
}

impl Model {
    fn new() -> Model {
        let shapes = [[FFN, HIDDEN], [FFN, HIDDEN], [HIDDEN, FFN]];
        Model {
            op: GatedMlp::new(HIDDEN, FFN, DType::F16).unwrap(),
            weights: [0, 1, 2].map(|index| random(layout(shapes[index]), 0.3, index as u64)),
        }
    }

    fn x(&self, rows: usize, seed: u64) -> Tensor {
        random(layout([rows, HIDDEN]), 1.0, seed)
    }

    fn expected(&self, x: &Tensor) -> Vec<f64> {
        let [gate, up, down] = &self.weights;
        let mut out = Tensor::zeros(x.layout());
        let args = GatedMlpArgs::new(x, gate, up, down, &mut out);
        Device::Reference.run(&self.op, args).unwrap();
        out.view().to_f64()
    }
}

/// Elements between the start of an allocation and its tensor: gate, up and down weights, x, out.
type Offsets = [usize; 5];

/// A model's tensors on the device.
struct Memory {
    offsets: Offsets,
    weights: [CudaSlice<f16>; 3],
    x: CudaSlice<f16>,
    out: CudaSlice<f16>,
    workspace: CudaSlice<u8>,
}

impl Memory {
    fn new(stream: &Arc<CudaStream>, model: &Model, x: &Tensor) -> Memory {
        Memory::at(stream, model, x, [0; 5])
    }

    fn at(stream: &Arc<CudaStream>, model: &Model, x: &Tensor, offsets: Offsets) -> Memory {
        let rows = x.layout().shape()[0];
        Memory {
            offsets,
            weights: [0, 1, 2].map(|index| upload(stream, &model.weights[index], offsets[index])),
            x: upload(stream, x, offsets[3]),
            out: stream.alloc_zeros(offsets[4] + rows * HIDDEN).unwrap(),
            workspace: stream.alloc_zeros(model.op.workspace_bytes(rows)).unwrap(),
        }
    }

    fn call(&mut self, cuda: &Cuda, stream: &Arc<CudaStream>, op: &GatedMlp) -> Result<(), Error> {
        let rows = (self.x.len() - self.offsets[3]) / HIDDEN;
        let views: [_; 3] =
            std::array::from_fn(|index| self.weights[index].slice(self.offsets[index]..));
        let [gate, up, down] = &views;
        let x = self.x.slice(self.offsets[3]..);
        let mut out = self.out.slice_mut(self.offsets[4]..);
        let args = GatedMlpArgs::new(
            CudaTensor::new(&x, &[rows, HIDDEN])?,
            CudaTensor::new(gate, &[FFN, HIDDEN])?,
            CudaTensor::new(up, &[FFN, HIDDEN])?,
            CudaTensor::new(down, &[HIDDEN, FFN])?,
            CudaTensorMut::new(&mut out, &[rows, HIDDEN])?,
        );
        cuda.gated_mlp(stream, op, args, CudaWorkspace::new(&mut self.workspace))
    }

    fn result(&self, stream: &Arc<CudaStream>) -> Vec<f64> {
        let out = stream.clone_dtoh(&self.out).unwrap();
        stream.synchronize().unwrap();
        let (before, out) = out.split_at(self.offsets[4]);
        assert!(before.iter().all(|value| *value == f16::ZERO), "written before the start");
        out.iter().map(|value| value.to_f64()).collect()
    }
}

#[track_caller]
fn assert_close(result: &[f64], expected: &[f64]) {
    assert_eq!(result.len(), expected.len());
    for (result, expected) in result.iter().zip(expected) {
        assert!((result - expected).abs() <= 0.02 * expected.abs().max(1.0), "{result} {expected}");
    }
}

#[test]
fn views_at_any_offset_give_the_same_result() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let (model, stream) = (Model::new(), context.default_stream());
    for rows in [1, 2, 5, 70] {
        let x = model.x(rows, 9);
        let expected = model.expected(&x);
        // 8 elements of f16 are 16 bytes; the others rule out vector loads and tensor cores, together and each alone.
        let alone = (0..5).map(|tensor| std::array::from_fn(|index| usize::from(index == tensor)));
        for offsets in [[0; 5], [1; 5], [3; 5], [8; 5]].into_iter().chain(alone) {
            let mut memory = Memory::at(&stream, &model, &x, offsets);
            memory.call(&cuda, &stream, &model.op).unwrap();
            assert_close(&memory.result(&stream), &expected);
        }
    }
}

#[test]
fn uses_on_several_streams_are_ordered_by_the_slices_events() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let model = Model::new();
    let x = model.x(3, 11);
    let streams = [context.new_stream().unwrap(), context.new_stream().unwrap()];
    let mut memory = Memory::new(&streams[0], &model, &x);
    for stream in streams.iter().chain(&streams) {
        memory.call(&cuda, stream, &model.op).unwrap();
    }
    assert_close(&memory.result(&streams[0]), &model.expected(&x));
}

#[test]
fn memory_and_streams_of_other_owners_are_taken() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let owner = context.new_stream().unwrap();
    // SAFETY: `owner` outlives the wrapper, and all work below goes through it.
    let stream = unsafe { context.wrap_borrowed_stream(owner.cu_stream()) };
    let layout = Layout::strided(DType::F16, &[3, 10], &[24, 1]).unwrap();
    let [gate, up] = [1, 2].map(|seed| random(layout, 3.0, seed));
    let op = SiluMul::new(10, DType::F16).unwrap();
    let mut expected = Tensor::zeros(layout);
    Device::Reference.run(&op, SiluMulArgs::new(&gate, &up, &mut expected)).unwrap();
    let [gate, up] = [&gate, &up].map(|tensor| upload::<f16>(&stream, tensor, 0));
    let out: CudaSlice<f16> = stream.alloc_zeros(layout.span()).unwrap();
    let [gate_pointer, up_pointer, out_pointer] =
        [&gate, &up, &out].map(|slice| slice.device_ptr(&stream).0);
    // SAFETY: the slices are this long, live until the end, and are used on this stream alone.
    let args = unsafe {
        SiluMulArgs::new(
            CudaTensor::from_raw(gate_pointer, layout),
            CudaTensor::from_raw(up_pointer, layout),
            CudaTensorMut::from_raw(out_pointer, layout),
        )
    };
    cuda.silu_mul(&stream, &op, args).unwrap();
    let out = stream.clone_dtoh(&out).unwrap();
    let out = Tensor::copy_of(siluette::TensorRef::strided(&out, &[3, 10], &[24, 1]).unwrap());
    assert_close(&out.view().to_f64(), &expected.view().to_f64());
}

#[test]
fn shared_memory_is_refused() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let stream = context.default_stream();
    let op = SiluMul::new(8, DType::F16).unwrap();
    let slice: CudaSlice<f16> = stream.alloc_zeros(4 * 24).unwrap();
    let base = slice.device_ptr(&stream).0;
    // Columns of one [4, 24] matrix.
    let wide = Layout::strided(DType::F16, &[4, 8], &[24, 1]).unwrap();
    let call = |gate: u64, up: u64, out: u64| {
        // SAFETY: all columns lie within the slice; the check under test keeps them apart.
        let args = unsafe {
            SiluMulArgs::new(
                CudaTensor::from_raw(base + 2 * gate, wide),
                CudaTensor::from_raw(base + 2 * up, wide),
                CudaTensorMut::from_raw(base + 2 * out, wide),
            )
        };
        cuda.silu_mul(&stream, &op, args)
    };
    call(0, 8, 16).expect("three columns beside each other");
    call(0, 0, 16).expect("inputs may be one tensor");
    for (gate, up, out) in [(0, 8, 8), (0, 8, 0), (0, 8, 9), (4, 16, 8)] {
        let error = call(gate, up, out).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Overlap), "{error}");
    }
    stream.synchronize().unwrap();
}

#[test]
fn what_a_kernel_cannot_take_is_a_typed_error() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let (model, stream) = (Model::new(), context.default_stream());
    let x = model.x(2, 1);
    let mut memory = Memory::new(&stream, &model, &x);
    let bytes = model.op.workspace_bytes(2);

    memory.workspace = stream.alloc_zeros(bytes - 1).unwrap();
    let error = memory.call(&cuda, &stream, &model.op).unwrap_err();
    assert_eq!(error.problem(), Some(Problem::Length));
    assert!(error.to_string().contains(&format!("at least {bytes} bytes")), "{error}");

    let slice: CudaSlice<u8> = stream.alloc_zeros(64).unwrap();
    let odd = slice.device_ptr(&stream).0 + 1;
    let row = Layout::contiguous(DType::F16, &[1, 4]).unwrap();
    // SAFETY: within the slice; the address is refused before any use.
    let args = unsafe {
        SiluMulArgs::new(
            CudaTensor::from_raw(odd, row),
            CudaTensor::from_raw(odd + 15, row),
            CudaTensorMut::from_raw(odd + 31, row),
        )
    };
    let error = cuda.silu_mul(&stream, &SiluMul::new(4, DType::F16).unwrap(), args).unwrap_err();
    assert_eq!(error.problem(), Some(Problem::Alignment));

    let error = CudaTensor::new(&memory.x, &[3, HIDDEN]).unwrap_err();
    assert_eq!(error.problem(), Some(Problem::Length));
    let error = CudaTensor::strided(&memory.x, &[2, HIDDEN], &[HIDDEN + 1, 1]).unwrap_err();
    assert_eq!(error.problem(), Some(Problem::Length));
    assert!(memory.result(&stream).iter().all(|value| *value == 0.0), "nothing was launched");
}

#[test]
fn empty_tensors_launch_nothing() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let stream = context.default_stream();
    let empty: CudaSlice<f16> = stream.alloc_zeros(1).unwrap();
    let mut out: CudaSlice<f16> = stream.alloc_zeros(1).unwrap();
    let op = SiluMul::new(5, DType::F16).unwrap();
    let args = SiluMulArgs::new(
        CudaTensor::new(&empty, &[0, 5]).unwrap(),
        CudaTensor::new(&empty, &[0, 5]).unwrap(),
        CudaTensorMut::new(&mut out, &[0, 5]).unwrap(),
    );
    assert_eq!(cuda.plan(&op, &args.layouts()).unwrap().kernels(), Vec::<String>::new());
    cuda.silu_mul(&stream, &op, args).unwrap();
}

/// A context whose slices carry no events, and a stream to capture on.
fn capturable(context: &Arc<CudaContext>) -> Arc<CudaStream> {
    // SAFETY: the tests below use one stream each.
    unsafe { context.disable_event_tracking() };
    context.new_stream().unwrap()
}

/// Other tests may load kernels meanwhile, hence thread-local.
fn begin(stream: &CudaStream) {
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
}

#[test]
fn a_captured_graph_replays_the_call() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let (model, stream) = (Model::new(), capturable(&context));
    for rows in [1, 4, 66] {
        let first = model.x(rows, 21);
        let mut memory = Memory::new(&stream, &model, &first);
        let [x, weight, down] = [[rows, HIDDEN], [FFN, HIDDEN], [HIDDEN, FFN]].map(layout);
        let layouts = GatedMlpArgs::new(x, weight, weight, down, x);
        cuda.prepare(&model.op, &layouts).unwrap();
        begin(&stream);
        memory.call(&cuda, &stream, &model.op).unwrap();
        let graph = stream.end_capture(GraphFlags(0)).unwrap().expect("a graph");
        assert!(memory.result(&stream).iter().all(|value| *value == 0.0), "only captured");
        for seed in [21, 22] {
            let x = model.x(rows, seed);
            stream.memcpy_htod(x.view().as_slice::<f16>().unwrap(), &mut memory.x).unwrap();
            graph.launch().unwrap();
            assert_close(&memory.result(&stream), &model.expected(&x));
        }
    }
}

#[test]
fn a_kernel_that_is_not_prepared_leaves_the_capture_intact() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let (model, stream) = (Model::new(), capturable(&context));
    let mut memory = Memory::new(&stream, &model, &model.x(1, 1));
    begin(&stream);
    let error = memory.call(&cuda, &stream, &model.op).unwrap_err();
    assert!(error.to_string().contains("Cuda::prepare"), "{error}");
    let status = stream.capture_status().unwrap();
    assert_eq!(status, CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    stream.end_capture(GraphFlags(0)).unwrap();
}

#[test]
fn slices_with_events_are_refused_while_capturing() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let (model, stream) = (Model::new(), context.new_stream().unwrap());
    let mut memory = Memory::new(&stream, &model, &model.x(1, 1));
    memory.call(&cuda, &stream, &model.op).unwrap();
    begin(&stream);
    let error = memory.call(&cuda, &stream, &model.op).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let status = stream.capture_status().unwrap();
    assert_eq!(status, CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    stream.end_capture(GraphFlags(0)).unwrap();
}

#[test]
fn one_backend_serves_many_threads() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let model = Model::new();
    std::thread::scope(|scope| {
        for rows in [1, 3, 20, 70] {
            let (context, cuda, model) = (&context, &cuda, &model);
            scope.spawn(move || {
                let stream = context.new_stream().unwrap();
                let x = model.x(rows, rows as u64);
                let mut memory = Memory::new(&stream, model, &x);
                memory.call(cuda, &stream, &model.op).unwrap();
                assert_close(&memory.result(&stream), &model.expected(&x));
            });
        }
    });
}
