//! Bad arguments: each gives a typed error that names the argument, and leaves the output alone.

use siluette::{
    Cpu, DType, Error, GatedMlp, GatedMlpArgs, Layout, Operation, Problem, SiluMlp, SiluMul,
    SiluMulArgs, TensorMut, TensorRef, Workspace, bf16,
};

const ROWS: usize = 2;
const HIDDEN: usize = 4;
const FFN: usize = 3;

fn layout(shape: &[usize]) -> Layout {
    Layout::contiguous(DType::F32, shape).unwrap()
}

fn good() -> GatedMlpArgs<Layout, Layout> {
    GatedMlpArgs::new(
        layout(&[ROWS, HIDDEN]),
        layout(&[FFN, HIDDEN]),
        layout(&[FFN, HIDDEN]),
        layout(&[HIDDEN, FFN]),
        layout(&[ROWS, HIDDEN]),
    )
}

fn op() -> GatedMlp {
    GatedMlp::new(HIDDEN, FFN, DType::F32).unwrap()
}

#[track_caller]
fn assert_refused(args: GatedMlpArgs<Layout, Layout>, argument: &str, problem: Problem) {
    assert_named(op().validate(&args).unwrap_err(), argument, problem);
}

#[track_caller]
fn assert_named(error: Error, expected_argument: &str, expected_problem: Problem) {
    match &error {
        Error::Argument { argument, problem, .. } => {
            assert_eq!(
                (argument.as_ref(), *problem),
                (expected_argument, expected_problem),
                "{error}"
            );
        }
        other => panic!("not about an argument: {other}"),
    }
}

#[test]
fn good_arguments_are_accepted() {
    op().validate(&good()).unwrap();
    let all = good()
        .gate_bias(layout(&[FFN]))
        .up_bias(layout(&[FFN]))
        .down_bias(layout(&[HIDDEN]))
        .residual(layout(&[ROWS, HIDDEN]));
    op().validate(&all).unwrap();
    op().with_norm(1e-5).unwrap().validate(&all.norm_weight(layout(&[HIDDEN]))).unwrap();
}

#[test]
fn wrong_ranks_and_shapes() {
    type Edit = fn(&mut GatedMlpArgs<Layout, Layout>);
    let change = |edit: Edit| {
        let mut args = good();
        edit(&mut args);
        args
    };
    let cases: [(&str, Edit); 9] = [
        ("x", |args| args.x = layout(&[HIDDEN])),
        ("x", |args| args.x = layout(&[ROWS, HIDDEN + 1])),
        ("x", |args| args.x = layout(&[1, ROWS, HIDDEN])),
        ("gate_weight", |args| args.gate_weight = layout(&[HIDDEN, FFN])),
        ("up_weight", |args| args.up_weight = layout(&[FFN + 1, HIDDEN])),
        ("down_weight", |args| args.down_weight = layout(&[FFN, HIDDEN])),
        ("down_weight", |args| args.down_weight = layout(&[HIDDEN * FFN])),
        ("out", |args| args.out = layout(&[ROWS, HIDDEN + 1])),
        ("out", |args| args.out = layout(&[ROWS + 1, HIDDEN])),
    ];
    for (argument, edit) in cases {
        assert_refused(change(edit), argument, Problem::Shape);
    }
    assert_refused(good().gate_bias(layout(&[FFN + 1])), "gate_bias", Problem::Shape);
    assert_refused(good().up_bias(layout(&[FFN, 1])), "up_bias", Problem::Shape);
    assert_refused(good().down_bias(layout(&[FFN])), "down_bias", Problem::Shape);
    assert_refused(good().residual(layout(&[1, HIDDEN])), "residual", Problem::Shape);
}

#[test]
fn wrong_dtypes() {
    let of = |dtype, shape: &[usize]| Layout::contiguous(dtype, shape).unwrap();
    let mut args = good();
    args.up_weight = of(DType::BF16, &[FFN, HIDDEN]);
    assert_refused(args, "up_weight", Problem::DType);
    let mut args = good();
    args.x = of(DType::F16, &[ROWS, HIDDEN]);
    assert_refused(args, "x", Problem::DType);
    let mut args = good();
    args.out = of(DType::I32, &[ROWS, HIDDEN]);
    assert_refused(args, "out", Problem::DType);
    assert_refused(good().gate_bias(of(DType::F16, &[FFN])), "gate_bias", Problem::DType);
}

#[test]
fn wrong_strides() {
    let strided =
        |shape: &[usize], strides: &[usize]| Layout::strided(DType::F32, shape, strides).unwrap();
    let mut args = good();
    args.gate_weight = strided(&[FFN, HIDDEN], &[1, FFN]);
    assert_refused(args, "gate_weight", Problem::Stride);
    let mut args = good();
    args.x = strided(&[ROWS, HIDDEN], &[HIDDEN - 1, 1]);
    assert_refused(args, "x", Problem::Stride);
    let mut args = good();
    args.out = strided(&[ROWS, HIDDEN], &[0, 1]);
    assert_refused(args, "out", Problem::Stride);
    let mut args = good();
    args.out = strided(&[ROWS, HIDDEN], &[HIDDEN + 3, 1]);
    op().validate(&args).unwrap();
}

#[test]
fn norm_weight_goes_with_a_norm() {
    let with_weight = good().norm_weight(layout(&[HIDDEN]));
    assert_refused(with_weight, "norm_weight", Problem::Unexpected);
    let op = op().with_norm(1e-5).unwrap();
    assert_named(op.validate(&good()).unwrap_err(), "norm_weight", Problem::Missing);
}

#[test]
fn descriptors_refuse_what_no_kernel_can_do() {
    let beyond = 1 << 31;
    assert_named(GatedMlp::new(0, 1, DType::F32).unwrap_err(), "hidden", Problem::Value);
    assert_named(GatedMlp::new(beyond, 1, DType::F32).unwrap_err(), "hidden", Problem::Size);
    assert_named(SiluMlp::new(1, beyond, DType::F32).unwrap_err(), "ffn", Problem::Size);
    assert_named(SiluMul::new(beyond, DType::F32).unwrap_err(), "columns", Problem::Size);
    assert_named(SiluMul::new(1, DType::U8).unwrap_err(), "dtype", Problem::DType);
    for eps in [-1.0, f32::NAN, f32::INFINITY] {
        assert_named(op().with_norm(eps).unwrap_err(), "eps", Problem::Value);
    }
    let narrow = GatedMlp::new(4, 4, DType::F16).unwrap();
    assert_named(
        narrow.with_weight_dtype(DType::BF16).unwrap_err(),
        "weight_dtype",
        Problem::DType,
    );
    assert_named(narrow.with_weight_dtype(DType::F32).unwrap_err(), "weight_dtype", Problem::DType);
}

#[test]
fn no_rows_and_no_neurons_are_legal() {
    let mut args = good();
    args.x = layout(&[0, HIDDEN]);
    args.out = layout(&[0, HIDDEN]);
    op().validate(&args).unwrap();
    assert_eq!(op().workspace_bytes(0), 0);
    GatedMlp::new(HIDDEN, 0, DType::F32).unwrap();
}

#[test]
fn sizes_beyond_the_address_space_are_refused() {
    let error = Layout::contiguous(DType::F32, &[1 << 31, 1 << 31]).unwrap_err();
    assert_named(error, "shape", Problem::Size);
}

#[test]
fn refused_calls_leave_the_output_alone() {
    let (gate, up) = ([1.0f32; 6], [2.0f32; 5]);
    let mut out = [7.0f32; 6];
    let op = SiluMul::new(3, DType::F32).unwrap();
    let args = SiluMulArgs::new(
        TensorRef::new(&gate, &[2, 3]).unwrap(),
        TensorRef::new(&up, &[1, 5]).unwrap(),
        TensorMut::new(&mut out, &[2, 3]).unwrap(),
    );
    assert_named(Cpu::new().silu_mul(&op, args).unwrap_err(), "up", Problem::Shape);
    assert_eq!(out, [7.0; 6]);

    let weights = [bf16::ONE; HIDDEN * FFN];
    let x = [bf16::ONE; ROWS * HIDDEN];
    let mut out = [7.0f32; ROWS * HIDDEN];
    let op = GatedMlp::new(HIDDEN, FFN, DType::BF16).unwrap();
    let args = GatedMlpArgs::new(
        TensorRef::new(&x, &[ROWS, HIDDEN]).unwrap(),
        TensorRef::new(&weights, &[FFN, HIDDEN]).unwrap(),
        TensorRef::new(&weights, &[HIDDEN, FFN]).unwrap(),
        TensorRef::new(&weights, &[HIDDEN, FFN]).unwrap(),
        TensorMut::new(&mut out, &[ROWS, HIDDEN]).unwrap(),
    );
    let error = Cpu::new().gated_mlp(&op, args, &mut Workspace::default()).unwrap_err();
    assert_named(error, "up_weight", Problem::Shape);
    assert_eq!(out, [7.0; ROWS * HIDDEN]);
}
