//! Golden vectors made by PyTorch (`scripts/goldens.py`): the oracle is not its own judge.

use std::path::PathBuf;

use serde::Deserialize;
use siluette::conformance::{Comparison, Tolerance};
use siluette::device::NamedTensors;
use siluette::registry;
use siluette::{Backend, DType, Device, HasLayout, Layout, Parameters, Tensor};

use crate::support::open;

/// An entry of the file's own list of cases.
#[derive(Debug, Deserialize)]
struct Golden {
    op: String,
    case: String,
    activation_dtype: String,
    rounding: String,
    eps: Option<f64>,
}

#[test]
fn reference_reproduces_pytorch() {
    // Two f64 computations, both rounded to f32 at the end; sums differ in their order only.
    let tolerance = |_| Tolerance::Rounded { inner: 1e-12, outer: 1.2e-7, nmse: 1e-14 };
    assert!(check_all(&Device::Reference, tolerance) >= 70);
}

#[test]
fn backends_reproduce_pytorch() {
    for backend in [Backend::Cpu, Backend::Wgpu, Backend::Cuda] {
        let Some(device) = open(backend) else { continue };
        // As in the case list: a unit of the activation type in each intermediate result, f32 sums.
        let tolerance = |activation: DType| {
            let epsilon = activation.epsilon().unwrap();
            let f32_sum = 32.0 * f64::from(f32::EPSILON);
            let nmse = epsilon * epsilon + f32_sum * f32_sum;
            Tolerance::Rounded { inner: epsilon + f32_sum, outer: 0.0, nmse }
        };
        check_all(&device, tolerance);
    }
}

fn check_all(device: &Device, tolerance: impl Fn(DType) -> Tolerance) -> usize {
    let path = test_data().join("goldens_silu_mlp.safetensors");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let list = &metadata.metadata().as_ref().unwrap()["cases"];
    let goldens: Vec<Golden> = serde_json::from_str(list).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut failures = Vec::new();
    for golden in &goldens {
        let activation = DType::from_name(&golden.activation_dtype).unwrap();
        let comparison = compare(device, &file, golden, tolerance(activation));
        if !comparison.passes(tolerance(activation)) {
            failures.push(format!("{} {}: {comparison:?}", golden.op, golden.case));
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", device.name(), failures.join("\n"));
    goldens.len()
}

/// `SILUETTE_TEST_DATA`, for a test program that was built elsewhere, or the source tree's folder.
pub fn test_data() -> PathBuf {
    let built = || concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data").into();
    std::env::var_os("SILUETTE_TEST_DATA").unwrap_or_else(built).into()
}

fn compare(
    device: &Device,
    file: &safetensors::SafeTensors<'_>,
    golden: &Golden,
    tolerance: Tolerance,
) -> Comparison {
    let prefix = format!("{}.{}.", golden.op, golden.case);
    let mut tensors: NamedTensors = file
        .iter()
        .filter_map(|(name, view)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor(&view))))
        .collect();
    let expected = tensors.remove("out").unwrap();
    // PyTorch's own result in the storage type, which the script compares with `out`.
    tensors.remove("torch_out");
    let mut parameters = Parameters::new().with("out_dtype", "f32");
    if golden.op != "silu_mul" {
        parameters = parameters.with("rounding", &golden.rounding);
    }
    if let Some(eps) = golden.eps {
        parameters = parameters.with("eps", &eps.to_string());
    }
    let prepared = registry::find(&golden.op).unwrap().prepare(tensors, &parameters).unwrap();
    let out = Tensor::zeros(prepared.outputs()["out"]);
    let mut loaded = prepared.load(device, [("out".to_owned(), out)].into()).unwrap();
    loaded.run(1).unwrap();
    let out = &loaded.outputs().unwrap()["out"];
    assert_eq!(out.layout(), expected.layout(), "{prefix}");
    let (got, want) = (out.view().to_f64(), expected.view().to_f64());
    Comparison::new(tolerance, DType::F32, &got, &want, &prepared.magnitude("out"))
}

/// A copy of a file's tensor.
pub fn tensor(view: &safetensors::tensor::TensorView<'_>) -> Tensor {
    let dtype = match view.dtype() {
        safetensors::Dtype::F32 => DType::F32,
        safetensors::Dtype::F16 => DType::F16,
        safetensors::Dtype::BF16 => DType::BF16,
        safetensors::Dtype::I32 => DType::I32,
        other => panic!("no golden is of type {other:?}"),
    };
    let layout = Layout::contiguous(dtype, view.shape()).unwrap();
    let mut tensor = Tensor::zeros(layout);
    tensor.span_bytes_mut().copy_from_slice(view.data());
    tensor
}
