//! Every operation in a CUDA graph: a call that is captured does nothing yet, and the graph gives the call's bits.

use std::collections::BTreeMap;
use std::sync::Arc;

use siluette::arguments::{Arguments, Role};
use siluette::backend::cuda::{CudaOptions, MlpKernel};
use siluette::conformance::{Case, Purpose, cases_for};
use siluette::cudarc::driver::sys::{CUgraphInstantiate_flags as GraphFlags, CUstreamCaptureMode};
use siluette::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use siluette::device::Loaded;
use siluette::{
    BiGru, CommitCache, CompactMask, CompactRows, CompactWeight, CoupledNeurons, Cuda, CudaTensor,
    CudaTensorMut, CudaWorkspace, Error, ExitGate, ExitHead, ExitHeadStates, FeatureAttention,
    GatedMlp, GatherNorm, HasLayout, InvertIndices, Layout, MaskedGatedMlp, MergeExitStates,
    NamedLayouts, Operation, PrunedGatedMlp, PrunedLinear, ScatterAdd, ScatterNormGather,
    ScatterRows, SelectTop, SelectiveFeatureAttention, SiluMlp, SiluMul, SparseGatedMlp, Tensor,
    VerifyGreedy, VerifySampled, VerifyTree, ZeroEntries, registry,
};

use crate::cuda_support::{backend, device};

/// What outputs hold before a call: in no type a likely result.
const POISON: u8 = 0xa5;

type Tensors = BTreeMap<String, (Layout, CudaSlice<u8>)>;

/// A case's operation with its tensors on the device.
struct Call<O> {
    op: O,
    inputs: Tensors,
    outputs: Tensors,
    workspace: CudaSlice<u8>,
}

impl<O: Operation> Call<O> {
    fn new(stream: &Arc<CudaStream>, case: &Case) -> Result<Call<O>, Error> {
        let mut inputs = case.inputs()?;
        let layouts: NamedLayouts =
            inputs.iter().map(|(name, tensor)| (name.clone(), tensor.layout())).collect();
        let op = O::describe(&layouts, &case.parameters)?;
        let memory = |layout: Layout, bytes: &[u8]| {
            let bytes = if bytes.is_empty() { &[0] } else { bytes };
            (layout, stream.clone_htod(bytes).expect("enough memory"))
        };
        let outputs = op.outputs(&layouts, &case.parameters)?;
        let info = registry::find(O::NAME)?.arguments;
        let updates: Vec<_> = info
            .iter()
            .filter(|info| info.role == Role::Update)
            .filter_map(|info| inputs.remove_entry(info.name))
            .collect();
        let mut call = Call {
            op,
            inputs: inputs
                .iter()
                .map(|(name, tensor)| {
                    (name.clone(), memory(tensor.layout(), tensor.view().span_bytes()))
                })
                .collect(),
            outputs: outputs
                .iter()
                .map(|(name, layout)| {
                    let bytes = layout.span() * layout.dtype().size();
                    (name.clone(), memory(*layout, &vec![POISON; bytes]))
                })
                .chain(updates.iter().map(|(name, tensor)| {
                    (name.clone(), memory(tensor.layout(), tensor.view().span_bytes()))
                }))
                .collect(),
            workspace: stream.alloc_zeros(1).expect("enough memory"),
        };
        let bytes = op.workspace_bytes(&call.layouts()?).max(1);
        call.workspace = stream.alloc_zeros(bytes).expect("enough memory");
        Ok(call)
    }

    fn layouts(&self) -> Result<O::Args<Layout, Layout>, Error> {
        let layout = |tensors: &Tensors, name| tensors.get(name).map(|(layout, _)| *layout);
        Arguments::collect(
            O::NAME,
            |info| Ok(layout(&self.inputs, info.name)),
            |info| Ok(layout(&self.outputs, info.name)),
        )
    }

    #[allow(unsafe_code, reason = "tensors of any type over bytes")]
    fn enqueue(&mut self, cuda: &Cuda, stream: &Arc<CudaStream>) -> Result<(), Error> {
        let pointer = |memory: &CudaSlice<u8>| memory.device_ptr(stream).0;
        let args = Arguments::collect(
            O::NAME,
            |info| {
                let tensor = self.inputs.get(info.name);
                // SAFETY: filled from a tensor of this layout, kept by `self`, used on one stream.
                Ok(tensor.map(|(layout, memory)| unsafe {
                    CudaTensor::from_raw(pointer(memory), *layout)
                }))
            },
            |info| {
                let tensor = self.outputs.get(info.name);
                // SAFETY: as above; nothing else uses it.
                Ok(tensor.map(|(layout, memory)| unsafe {
                    CudaTensorMut::from_raw(pointer(memory), *layout)
                }))
            },
        )?;
        let workspace = CudaWorkspace::new(&mut self.workspace);
        self.op.enqueue_cuda(cuda, stream, args, workspace)
    }

    fn results(&self, stream: &Arc<CudaStream>) -> BTreeMap<String, Vec<u8>> {
        let host = |memory| stream.clone_dtoh::<u8, _>(memory).expect("copied");
        self.outputs.iter().map(|(name, (_, memory))| (name.clone(), host(memory))).collect()
    }
}

/// Captures one case of each dtype; says how many. Cases that a forced kernel cannot do are left out.
#[allow(unsafe_code, reason = "events cannot cross the border of a graph")]
fn capture_cases_of<O: Operation>(options: CudaOptions) -> Option<usize> {
    let forced = options.mlp.forced.is_some();
    let (context, cuda) = backend(options)?;
    // SAFETY: one stream each.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for case in cases_for(Purpose::Conformance).into_iter().filter(|case| case.op == O::NAME) {
        // The last of the list: neither the smallest, nor empty, nor slow.
        let elements = |case: &Case| case.tensors.iter().map(|t| t.shape.iter().product()).min();
        let elements: Option<usize> = elements(&case);
        if !elements.is_some_and(|elements| (1..5_000).contains(&elements)) {
            continue;
        }
        let supported = || {
            let call = Call::<O>::new(&stream, &case).unwrap();
            cuda.supports(&call.op, &call.layouts().unwrap()).is_ok()
        };
        if !forced || supported() {
            cases.insert(case.dtype.clone(), case);
        }
    }
    for case in cases.values() {
        let id = format!("{} {} {}", case.op, case.dtype, case.name);
        let mut direct = Call::<O>::new(&stream, case).unwrap();
        // Twice: what a first run leaves in the workspace must not matter, what it updates does.
        let expected = [0, 1].map(|_| {
            direct.enqueue(&cuda, &stream).unwrap_or_else(|error| panic!("{id}: {error}"));
            direct.results(&stream)
        });

        let mut call = Call::<O>::new(&stream, case).unwrap();
        let before = call.results(&stream);
        assert_ne!(expected[0], before, "{id}: nothing to compute");
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).unwrap();
        call.enqueue(&cuda, &stream).unwrap_or_else(|error| panic!("{id}: {error}"));
        let graph = stream.end_capture(GraphFlags(0)).unwrap().expect("a graph");
        assert_eq!(call.results(&stream), before, "{id}: done while it was captured");
        for expected in &expected {
            graph.launch().unwrap();
            assert_eq!(call.results(&stream), *expected, "{id}");
        }
    }
    Some(cases.len())
}

macro_rules! capture_all {
    ($($operation:ty),* $(,)?) => {{
        let names = [$(<$operation as Operation>::NAME),*];
        for info in registry::OPERATIONS {
            assert!(names.contains(&info.name), "{} is missing from this test", info.name);
        }
        $(
            if let Some(captured) = capture_cases_of::<$operation>(CudaOptions::default()) {
                assert!(captured > 0, "no case of {}", <$operation as Operation>::NAME);
            }
        )*
    }};
}

/// Maps are made while the stream is capturing, and the graph keeps them.
#[test]
fn kernels_that_take_tensor_maps_can_be_captured() {
    let mut options = CudaOptions::default();
    options.mlp.forced = Some(MlpKernel::Wgmma);
    let Some((_, cuda)) = backend(options.clone()) else { return };
    if !cuda.capabilities().wgmma {
        println!("NOT RUN: the device has no wgmma");
        return;
    }
    for captured in [
        capture_cases_of::<GatedMlp>(options.clone()),
        capture_cases_of::<SiluMlp>(options.clone()),
        capture_cases_of::<PrunedGatedMlp>(options),
    ] {
        assert!(captured.is_some_and(|cases| cases > 0), "no case with aligned rows");
    }
}

#[test]
fn every_operation_can_be_captured() {
    capture_all!(
        SiluMul,
        GatedMlp,
        SiluMlp,
        PrunedLinear,
        PrunedGatedMlp,
        MaskedGatedMlp,
        SparseGatedMlp,
        GatherNorm,
        ScatterAdd,
        ScatterNormGather,
        CompactWeight,
        CompactMask,
        InvertIndices,
        SelectTop,
        CoupledNeurons,
        ZeroEntries,
        ExitHead,
        ExitHeadStates,
        MergeExitStates,
        VerifyGreedy,
        VerifyTree,
        VerifySampled,
        ExitGate,
        CompactRows,
        ScatterRows,
        CommitCache,
        BiGru,
        FeatureAttention,
        SelectiveFeatureAttention,
    );
}

/// A recording holds each operation's launches in turn, as often as asked, and starts none of them before it is run.
#[test]
fn a_recording_gives_the_bits_of_runs() {
    let Some(device) = device(CudaOptions::default()) else { return };
    // It adds to one of its arguments: each run changes the result.
    let is_fit = |case: &Case| case.op == ScatterAdd::NAME && case.tensors.len() > 2;
    let cases = cases_for(Purpose::Conformance);
    let case = cases.iter().rfind(|case| is_fit(case)).expect("a case that adds");
    let load = || {
        let inputs = case.inputs().unwrap();
        let prepared = registry::find(case.op).unwrap().prepare(inputs, &case.parameters).unwrap();
        let outputs = prepared.outputs().iter();
        let outputs = outputs.map(|(name, layout)| (name.clone(), Tensor::zeros(*layout)));
        prepared.load(&device, outputs.collect()).unwrap()
    };
    let results = |loaded: &mut Box<dyn Loaded>| loaded.outputs().unwrap();
    let mut expected = load();
    let start = results(&mut expected);
    expected.run(6).unwrap();
    let expected = results(&mut expected);
    assert_ne!(expected, start, "{}: nothing to compute", case.name);

    let mut loaded = [load(), load()];
    let mut recorded = device.record(&mut loaded, 3).unwrap().expect("a graph");
    recorded.run().unwrap();
    recorded.run().unwrap();
    drop(recorded);
    for loaded in &mut loaded {
        assert_eq!(results(loaded), expected, "{}", case.name);
    }
    let _unstarted = device.record(&mut loaded, 1).unwrap();
    drop(_unstarted);
    assert_eq!(results(&mut loaded[0]), expected, "{}: run while it was recorded", case.name);
}
