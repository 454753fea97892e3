//! Golden vectors of the feature-attention family (`scripts/feature_attention_reference.py`).

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use serde::Deserialize;
use siluette::conformance::{Comparison, Tolerance};
use siluette::device::NamedTensors;
use siluette::{
    Backend, DType, Device, FeatureAttentionWeights, HasLayout, Parameters, Tensor, registry,
};

use crate::goldens::{tensor, test_data};
use crate::support::open;

/// Operations that are held to their vectors.
const OPERATIONS: [&str; 1] = ["feature_attention"];
const OUTPUTS: [&str; 2] = ["out", "h_n"];

/// An entry of the file's own list of cases.
#[derive(Debug, Deserialize)]
struct Golden {
    op: String,
    case: String,
    parameters: BTreeMap<String, String>,
    /// Whether the weights are those of the PyTorch module.
    module: bool,
}

#[test]
fn reference_reproduces_pytorch() {
    // Two f64 computations, both rounded to f32 at the end; a folded batch norm is rounded before that.
    let tolerance = |golden: &Golden| {
        let inner = if golden.module { 1.2e-7 } else { 1e-12 };
        Tolerance::Rounded { inner, outer: 1.2e-7, nmse: 1e-13 }
    };
    assert!(check_all(&Device::Reference, tolerance) >= 4);
}

#[test]
fn backends_reproduce_pytorch() {
    for backend in [Backend::Cpu, Backend::Wgpu, Backend::Cuda] {
        let Some(device) = open(backend) else { continue };
        let f32_sum = 32.0 * f64::from(f32::EPSILON);
        let nmse = f32_sum * f32_sum;
        check_all(&device, |_| Tolerance::Rounded { inner: f32_sum, outer: 0.0, nmse });
    }
}

fn check_all(device: &Device, tolerance: impl Fn(&Golden) -> Tolerance) -> usize {
    let path = test_data().join("goldens_feature_attention.safetensors");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let list = &metadata.metadata().as_ref().unwrap()["cases"];
    let goldens: Vec<Golden> = serde_json::from_str(list).unwrap();
    let mut failures = Vec::new();
    let mut compared = 0;
    for golden in goldens.iter().filter(|golden| OPERATIONS.contains(&golden.op.as_str())) {
        for (output, comparison) in compare(device, &bytes, golden, tolerance(golden)) {
            compared += 1;
            if !comparison.passes(tolerance(golden)) {
                failures.push(format!("{} {} {output}: {comparison:?}", golden.op, golden.case));
            }
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", device.name(), failures.join("\n"));
    compared
}

/// Each output against PyTorch's.
fn compare(
    device: &Device,
    bytes: &[u8],
    golden: &Golden,
    tolerance: Tolerance,
) -> Vec<(String, Comparison)> {
    let prefix = format!("{}.{}.", golden.op, golden.case);
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut tensors: NamedTensors = file
        .iter()
        .filter_map(|(name, view)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor(&view))))
        .collect();
    if golden.module {
        fold(&mut tensors, bytes, &prefix);
    }
    let expected: NamedTensors =
        OUTPUTS.iter().filter_map(|&name| tensors.remove_entry(name)).collect();
    let parameters = golden.parameters.iter();
    let parameters = parameters
        .fold(Parameters::new(), |parameters, (name, value)| parameters.with(name, value));
    let prepared = registry::find(&golden.op).unwrap().prepare(tensors, &parameters).unwrap();
    let outputs = prepared.outputs().iter();
    let outputs = outputs.map(|(name, layout)| (name.clone(), Tensor::zeros(*layout))).collect();
    let mut loaded = prepared.load(device, outputs).unwrap();
    loaded.run(1).unwrap();
    let got = loaded.outputs().unwrap();
    expected
        .into_iter()
        .map(|(name, expected)| {
            let got = &got[&name];
            assert_eq!(got.layout(), expected.layout(), "{prefix}{name}");
            let (got, want) = (got.view().to_f64(), expected.view().to_f64());
            let magnitude = prepared.magnitude(&name);
            let comparison = Comparison::new(tolerance, DType::F32, &got, &want, &magnitude);
            (name, comparison)
        })
        .collect()
}

/// The operation's weights in place of the module's.
fn fold(tensors: &mut NamedTensors, bytes: &[u8], prefix: &str) {
    tensors.retain(|name, _| !name.starts_with("dense_"));
    let (dtype, weight) = (DType::F32, DType::F32);
    let weights = FeatureAttentionWeights::from_safetensors(bytes, prefix, dtype, weight).unwrap();
    for (name, weight) in
        [("w1", weights.w1()), ("b1", weights.b1()), ("w2", weights.w2()), ("b2", weights.b2())]
    {
        tensors.insert(name.to_owned(), Tensor::copy_of(weight));
    }
}
