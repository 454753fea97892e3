//! Which backends must be there, and how to run an operation on one.

use siluette::conformance::packed_weights;
use siluette::device::NamedTensors;
use siluette::{
    Backend, Cpu, Device, Error, InstructionSet, Parameters, Problem, Tensor, registry,
};

/// Whether the environment variable `SILUETTE_REQUIRE` (`wgpu,cuda`, say) names this requirement.
pub fn is_required(name: &str) -> bool {
    let required = std::env::var("SILUETTE_REQUIRE").unwrap_or_default();
    required.split(',').any(|word| word.trim() == name)
}

/// The backend's device, or `None`, said aloud, if this machine has none and none is required.
pub fn open(backend: Backend) -> Option<Device> {
    match Device::open(backend) {
        Ok(device) => Some(device),
        Err(error @ Error::Unavailable { .. }) if !is_required(backend.name()) => {
            println!("NOT RUN: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// That the argument was refused, and for what.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Error>, name: &str, expected: Problem) {
    match result.unwrap_err() {
        Error::Argument { argument, problem, .. } => {
            assert_eq!((argument.as_ref(), problem), (name, expected));
        }
        other => panic!("not about an argument: {other}"),
    }
}

/// That shapes and lengths are checked by the CPU and by the reference. `run` takes the shape of `out`, the lengths of two
/// texts of three tokens of two features, and whether the CPU computes.
pub fn assert_texts_are_checked(run: impl Fn(&[usize], &[i32], bool) -> Result<(), Error>) {
    for on_cpu in [true, false] {
        run(&[2, 3, 2], &[3, 1], on_cpu).unwrap();
        assert_refused(run(&[3, 2, 2], &[2, 2], on_cpu), "out", Problem::Shape);
        for (lengths, text) in [([0, 4], "4 for text 1"), ([-1, 9], "-1 for text 0")] {
            let error = run(&[2, 3, 2], &lengths, on_cpu).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_refused(Err::<(), _>(error), "lengths", Problem::Value);
        }
    }
}

/// The CPU, by each instruction set of this machine.
pub fn cpus() -> impl Iterator<Item = Device> {
    InstructionSet::available()
        .map(|set| Device::Cpu(Cpu::new().with_instruction_set(set).unwrap()))
}

/// The CPU with every instruction set, and the GPUs that there are.
pub fn devices() -> Vec<Device> {
    cpus().chain([Backend::Wgpu, Backend::Cuda].into_iter().filter_map(open)).collect()
}

pub fn parameters(pairs: &[(&str, &str)]) -> Parameters {
    pairs.iter().fold(Parameters::new(), |all, (name, value)| all.with(name, value))
}

/// Runs an operation into outputs that are full of something else.
pub fn run(
    device: &Device,
    op: &str,
    inputs: &NamedTensors,
    parameters: &Parameters,
) -> NamedTensors {
    run_with(device, op, inputs, parameters, NamedTensors::new())
}

/// As [`run`], with packed weights.
pub fn run_packed(
    device: &Device,
    op: &str,
    inputs: &NamedTensors,
    parameters: &Parameters,
) -> NamedTensors {
    run_with(device, op, inputs, parameters, packed_weights(inputs).unwrap())
}

fn run_with(
    device: &Device,
    op: &str,
    inputs: &NamedTensors,
    parameters: &Parameters,
    others: NamedTensors,
) -> NamedTensors {
    let prepared = registry::find(op).unwrap().prepare(inputs.clone(), parameters).unwrap();
    let poisoned = prepared.outputs().iter().map(|(name, layout)| {
        let mut tensor = Tensor::zeros(*layout);
        tensor.span_bytes_mut().fill(0x55);
        (name.clone(), tensor)
    });
    let mut loaded = prepared.load_with(device, others, poisoned.collect()).unwrap();
    loaded.run(1).unwrap();
    loaded.outputs().unwrap()
}

pub fn integers(values: &[i32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap()
}

pub fn ints(outputs: &NamedTensors, name: &str) -> Vec<i32> {
    outputs[name].view().as_slice().unwrap().to_vec()
}
