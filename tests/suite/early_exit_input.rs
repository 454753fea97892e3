//! Bad arguments of the heads and of the merge: each gives a typed error that names the argument.

use siluette::conformance::packed_weights;
use siluette::device::NamedTensors;
use siluette::{
    Backend, Cpu, DType, Error, ExitHead, ExitHeadArgs, ExitHeadStates, ExitHeadStatesArgs, Layout,
    MergeExitStates, MergeExitStatesArgs, Operation, PackedWeight, Parameters, Problem, Tensor,
    TensorMut, TensorRef, Workspace, registry,
};

use crate::support::open;

fn layout(dtype: DType, shape: &[usize]) -> Layout {
    Layout::contiguous(dtype, shape).unwrap()
}

fn f32s(shape: &[usize]) -> Layout {
    layout(DType::F32, shape)
}

fn i32s(shape: &[usize]) -> Layout {
    layout(DType::I32, shape)
}

#[track_caller]
fn assert_named(error: Error, expected_argument: &str, expected_problem: Problem) {
    match &error {
        Error::Argument { argument, problem, .. } => {
            let got = (argument.as_ref(), *problem);
            assert_eq!(got, (expected_argument, expected_problem), "{error}");
        }
        other => panic!("not about an argument: {other}"),
    }
}

fn op() -> ExitHead {
    ExitHead::new(4, 300, DType::F32).unwrap().with_top_k(2).unwrap().with_norm(1e-5).unwrap()
}

fn good() -> ExitHeadArgs<Layout, Layout> {
    ExitHeadArgs::new(f32s(&[3, 4]), f32s(&[300, 4]))
        .norm_weight(f32s(&[4]))
        .head_bias(f32s(&[300]))
        .rows(i32s(&[5]))
        .positions(i32s(&[5]))
        .gather_tokens(i32s(&[5]))
        .token(i32s(&[5]))
        .entropy(f32s(&[5]))
        .top_tokens(i32s(&[5, 2]))
        .gathered_logit(f32s(&[5]))
        .sampled_token(i32s(&[5]))
        .logits(f32s(&[5, 300]))
}

#[test]
fn arguments_of_a_head() {
    op().validate(&good()).unwrap();
    type Edit = fn(&mut ExitHeadArgs<Layout, Layout>);
    let refused = |edit: Edit, argument: &str, problem| {
        let mut args = good();
        edit(&mut args);
        assert_named(op().validate(&args).unwrap_err(), argument, problem);
    };
    refused(|args| args.hidden = f32s(&[3, 5]), "hidden", Problem::Shape);
    refused(|args| args.hidden = layout(DType::F16, &[3, 4]), "hidden", Problem::DType);
    refused(|args| args.head_weight = f32s(&[4, 300]), "head_weight", Problem::Shape);
    refused(
        |args| args.head_weight = layout(DType::BF16, &[300, 4]),
        "head_weight",
        Problem::DType,
    );
    refused(|args| args.norm_weight = None, "norm_weight", Problem::Missing);
    refused(|args| args.norm_weight = Some(f32s(&[3])), "norm_weight", Problem::Shape);
    refused(|args| args.head_bias = Some(f32s(&[4])), "head_bias", Problem::Shape);
    refused(|args| args.rows = Some(layout(DType::U32, &[5])), "rows", Problem::DType);
    refused(|args| args.seeds = Some(i32s(&[5, 2])), "seeds", Problem::DType);
    refused(|args| args.seeds = Some(layout(DType::U32, &[5])), "seeds", Problem::Shape);
    refused(|args| args.positions = Some(i32s(&[3])), "positions", Problem::Shape);
    refused(|args| args.positions = None, "positions", Problem::Missing);
    refused(|args| args.gather_tokens = None, "gather_tokens", Problem::Missing);
    refused(|args| args.token = Some(i32s(&[3])), "token", Problem::Shape);
    refused(|args| args.token = Some(f32s(&[5])), "token", Problem::DType);
    refused(|args| args.entropy = Some(layout(DType::F16, &[5])), "entropy", Problem::DType);
    refused(|args| args.top_tokens = Some(i32s(&[5, 3])), "top_tokens", Problem::Shape);
    refused(|args| args.logits = Some(f32s(&[5, 299])), "logits", Problem::Shape);
    let overlapping = |args: &mut ExitHeadArgs<Layout, Layout>| {
        args.head_weight = Layout::strided(DType::F32, &[300, 4], &[3, 1]).unwrap();
    };
    refused(overlapping, "head_weight", Problem::Stride);
    let plain = ExitHead::new(4, 300, DType::F32).unwrap().with_top_k(2).unwrap();
    assert_named(plain.validate(&good()).unwrap_err(), "norm_weight", Problem::Unexpected);
    let none = op().with_top_k(0).unwrap();
    assert_named(none.validate(&good()).unwrap_err(), "top_tokens", Problem::Unexpected);
}

/// The weight is taken packed by the CPU alone.
#[test]
fn packed_weights_of_a_head() {
    let mut args = good();
    args.head_weight = PackedWeight::layout(DType::F32, 300, 4).unwrap();
    op().validate(&args).unwrap();
    for wrong in [[19, 3, 16], [18, 4, 16], [19, 4, 8]] {
        args.head_weight = f32s(&wrong);
        assert_named(op().validate(&args).unwrap_err(), "head_weight", Problem::Shape);
    }
    args.head_weight = PackedWeight::layout(DType::F16, 300, 4).unwrap();
    assert_named(op().validate(&args).unwrap_err(), "head_weight", Problem::DType);
    args.head_weight = Layout::strided(DType::F32, &[19, 4, 16], &[80, 16, 1]).unwrap();
    assert_named(op().validate(&args).unwrap_err(), "head_weight", Problem::Stride);

    let (hidden, weight) = ([1f32; 8], [1f32; 20]);
    let packed = PackedWeight::new(TensorRef::new(&weight, &[5, 4]).unwrap()).unwrap();
    let op = ExitHead::new(4, 5, DType::F32).unwrap();
    let mut token = [7i32; 2];
    let args = ExitHeadArgs::new(TensorRef::new(&hidden, &[2, 4]).unwrap(), packed.view())
        .token(TensorMut::new(&mut token, &[2]).unwrap());
    assert_named(op.run_reference(args).unwrap_err(), "head_weight", Problem::Shape);
    assert_eq!(token, [7; 2]);
    let inputs = [
        ("hidden", Tensor::from_slice(&hidden, &[2, 4]).unwrap()),
        ("head_weight", Tensor::from_slice(&weight, &[5, 4]).unwrap()),
    ];
    let inputs: NamedTensors = inputs.map(|(name, tensor)| (name.to_owned(), tensor)).into();
    for backend in [Backend::Wgpu, Backend::Cuda] {
        let Some(device) = open(backend) else { continue };
        for op in ["exit_head", "exit_head_states"] {
            let prepared =
                registry::find(op).unwrap().prepare(inputs.clone(), &Parameters::new()).unwrap();
            let outputs = prepared
                .outputs()
                .iter()
                .map(|(name, &layout)| (name.clone(), Tensor::zeros(layout)));
            let loaded =
                prepared.load_with(&device, packed_weights(&inputs).unwrap(), outputs.collect());
            let error = loaded.and_then(|mut loaded| loaded.run(1)).unwrap_err();
            assert_named(error, "head_weight", Problem::Shape);
        }
    }
}

#[test]
fn arguments_of_states_and_their_merge() {
    let op = ExitHeadStates::new(4, 300, DType::F32).unwrap().with_top_k(2).unwrap();
    let states = |values: &[usize], tokens: &[usize]| {
        ExitHeadStatesArgs::new(f32s(&[5, 4]), f32s(&[300, 4]), f32s(values), i32s(tokens))
    };
    op.validate(&states(&[3, 5, 8], &[3, 5, 4])).unwrap();
    let error = op.validate(&states(&[2, 5, 8], &[3, 5, 4])).unwrap_err();
    assert_named(error, "state_values", Problem::Shape);
    let error = op.validate(&states(&[3, 5, 8], &[3, 5, 3])).unwrap_err();
    assert_named(error, "state_tokens", Problem::Shape);

    let op = MergeExitStates::new(2).unwrap();
    let merge = |values: &[usize], tokens: &[usize]| {
        MergeExitStatesArgs::new(f32s(values), i32s(tokens)).token(i32s(&[5]))
    };
    op.validate(&merge(&[3, 5, 8], &[3, 5, 4])).unwrap();
    let error = op.validate(&merge(&[3, 5, 7], &[3, 5, 4])).unwrap_err();
    assert_named(error, "state_values", Problem::Shape);
    let error = op.validate(&merge(&[15, 8], &[3, 5, 4])).unwrap_err();
    assert_named(error, "state_values", Problem::Shape);
    let error = op.validate(&merge(&[3, 5, 8], &[3, 4, 4])).unwrap_err();
    assert_named(error, "state_tokens", Problem::Shape);
    let error = op.validate(&merge(&[3, 6, 8], &[3, 6, 4])).unwrap_err();
    assert_named(error, "token", Problem::Shape);
    assert_named(MergeExitStates::new(65).unwrap_err(), "top_k", Problem::Value);
}

#[test]
fn a_refused_call_writes_nothing() {
    let (hidden, weight) = ([1f32; 8], [1f32; 20]);
    let (mut token, mut sampled) = ([7i32; 2], [7i32; 2]);
    let op = ExitHead::new(4, 5, DType::F32).unwrap();
    let args = ExitHeadArgs::new(
        TensorRef::new(&hidden, &[2, 4]).unwrap(),
        TensorRef::new(&weight, &[5, 4]).unwrap(),
    )
    .token(TensorMut::new(&mut token, &[2]).unwrap())
    .sampled_token(TensorMut::new(&mut sampled, &[2]).unwrap());
    let error = Cpu::new().exit_head(&op, args, &mut Workspace::default()).unwrap_err();
    assert_named(error, "positions", Problem::Missing);
    assert_eq!((token, sampled), ([7; 2], [7; 2]));
}
