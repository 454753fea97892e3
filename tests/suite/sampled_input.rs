//! What `verify_sampled` refuses, and what devices make of it where nobody has looked.

use siluette::device::NamedTensors;
use siluette::{
    Cpu, DType, Problem, SampledMode, Tensor, TensorMut, TensorRef, VerifySampled,
    VerifySampledArgs, Workspace, registry,
};

#[cfg(any(feature = "cuda", feature = "wgpu"))]
use crate::support::ints;
use crate::support::{integers, parameters};
use crate::verify_sampled::{P, PROBABILITIES, floats, indices, judged, matrix};

const INFINITY: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

#[track_caller]
fn refused(inputs: &NamedTensors, options: &[(&str, &str)], problem: Problem, words: &str) {
    let prepared =
        registry::find("verify_sampled").unwrap().prepare(inputs.clone(), &parameters(options));
    let error = prepared.err().expect("to be refused");
    assert_eq!(error.problem(), Some(problem), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn bad_input_is_refused_with_its_place() {
    let good = judged(P, &[1, 2], None, &[[0.5, 0.5]; 2]);
    let options = [("mode", "one_hot")];
    let with = |name: &str, tensor: Tensor| {
        let mut inputs = good.clone();
        inputs.insert(name.to_owned(), tensor);
        inputs
    };
    let without = |name: &str| {
        let mut inputs = good.clone();
        inputs.remove(name);
        inputs
    };
    refused(&with("draft", integers(&[1, 4])), &options, Problem::Value, "4 at position 1");
    refused(&with("draft", integers(&[-2, 1])), &options, Problem::Value, "-2 at position 0");
    refused(&with("offsets", indices(&[0, 2, 1])), &options, Problem::Value, "offsets");
    for value in [0.0, -1.0, NAN, INFINITY] {
        let inputs = with("temperature", floats(&[1.0, value]));
        refused(&inputs, &options, Problem::Value, "at position 1");
    }
    for value in [0.0, 1.1, NAN] {
        let inputs = with("top_p", floats(&[value, 1.0]));
        refused(&inputs, &options, Problem::Value, "at position 0");
    }
    for value in [-0.1, 1.0, NAN] {
        let inputs = with("min_p", floats(&[0.0, value]));
        refused(&inputs, &options, Problem::Value, "at position 1");
    }
    refused(&with("top_k", integers(&[0, -1])), &options, Problem::Value, "-1 at position 1");
    let mut uniforms = vec![0.5; 8];
    uniforms[5] = 1.0;
    let uniforms = Tensor::from_slice(&uniforms, &[4, 2]).unwrap();
    let place = "1 at row 2, column 1";
    refused(&with("uniforms", uniforms), &options, Problem::Value, place);
    refused(&without("uniforms"), &options, Problem::Missing, "positions");
    refused(
        &with("positions", integers(&[0, 0])),
        &[("mode", "match")],
        Problem::Unexpected,
        "uniforms",
    );
    let q = matrix(&[P, P]);
    refused(&with("draft_distribution", q), &options, Problem::Unexpected, "draft_distribution");
    refused(&good, &[("mode", "full")], Problem::Missing, "draft_distribution");
    refused(&good, &[], Problem::Missing, "mode");
    refused(&good, &[("mode", "greedy")], Problem::Value, "one_hot");
    refused(&good, &[("mode", "one_hot"), ("valid_vocab", "0")], Problem::Value, "valid_vocab");
    let temperature = with("temperature", floats(&[1.0, 1.0]));
    let options = [("mode", "one_hot"), PROBABILITIES];
    refused(&temperature, &options, Problem::Unexpected, "temperature");
    refused(&good, &[("mode", "match"), PROBABILITIES], Problem::Value, "values");
}

#[test]
fn a_refused_call_writes_nothing() {
    let op = VerifySampled::new(4, 1, DType::F32, SampledMode::OneHot).unwrap();
    let mut tokens = [7i32; 2];
    let mut call = |draft: &[i32; 1], positions: &[i32]| {
        let target = [P, P].concat();
        let args = VerifySampledArgs::new(
            TensorRef::new(&target, &[2, 4]).unwrap(),
            TensorRef::new(draft, &[1]).unwrap(),
            TensorRef::new(&[0u32, 1], &[2]).unwrap(),
        )
        .positions(TensorRef::new(positions, &[positions.len()]).unwrap())
        .tokens(TensorMut::new(&mut tokens, &[1, 2]).unwrap());
        Cpu::new().verify_sampled(&op, args, &mut Workspace::default()).map_err(|e| e.problem())
    };
    assert_eq!(call(&[4], &[0]), Err(Some(Problem::Value)));
    assert_eq!(call(&[1], &[0, 0]), Err(Some(Problem::Shape)));
    assert_eq!(tokens, [7; 2]);
}

/// What nobody has looked at beforehand.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
#[test]
fn devices_mark_sequences_that_are_not_valid() {
    use crate::unchecked::run_unchecked;
    let mut inputs = judged(P, &[1, 9, -7, i32::MAX], None, &[[0.0, 0.9]; 4]);
    inputs.insert("offsets".to_owned(), indices(&[0, 1, 2, 3, 4]));
    inputs.insert("temperature".to_owned(), floats(&[1.0, 1.0, 1.0, 1.0]));
    let options = parameters(&[("mode", "one_hot"), ("max_draft", "1")]);
    for (backend, outputs) in run_unchecked::<siluette::VerifySampled>(&inputs, &options) {
        assert_eq!(ints(&outputs, "finish"), [0; 4], "{backend}");
        assert_eq!(ints(&outputs, "accepted"), [1, 0, 0, 0], "{backend}");
    }
    for (name, tensor) in [
        ("temperature", floats(&[0.0, NAN, -1.0, INFINITY])),
        ("top_p", floats(&[0.0, NAN, -1.0, 1.5])),
        ("min_p", floats(&[1.0, NAN, -1.0, INFINITY])),
        ("top_k", integers(&[-1, i32::MIN, -2, -3])),
        ("offsets", indices(&[u32::MAX, 7, 5, 2, 0])),
    ] {
        let mut bad = inputs.clone();
        bad.insert(name.to_owned(), tensor);
        for (backend, outputs) in run_unchecked::<siluette::VerifySampled>(&bad, &options) {
            assert_eq!(ints(&outputs, "finish"), [4; 4], "{name} on {backend}");
            assert_eq!(ints(&outputs, "emitted"), [0; 4], "{name} on {backend}");
            assert_eq!(ints(&outputs, "tokens"), [-1; 8], "{name} on {backend}");
        }
    }
    // Uniforms that are none count as 0.
    let mut bad = inputs;
    let uniforms =
        [NAN, 1.0, 0.0, 0.0, -1.0, INFINITY, 0.0, 0.0, 2.0, -0.0, 0.0, 0.0, NAN, NAN, 0.0, 0.0];
    bad.insert("uniforms".to_owned(), Tensor::from_slice(&uniforms, &[8, 2]).unwrap());
    for (backend, outputs) in run_unchecked::<siluette::VerifySampled>(&bad, &options) {
        assert_eq!(ints(&outputs, "next_token"), [0; 4], "{backend}");
    }
}
