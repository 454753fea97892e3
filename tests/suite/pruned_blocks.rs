//! Pruned and masked blocks against dense ones, and what they refuse.

use siluette::{
    Backend, Cpu, DType, Device, Error, GatedMlp, GatedMlpArgs, HasLayout, IndexSet, Layout,
    MaskedGatedMlp, MaskedGatedMlpArgs, NormScope, Operation, Problem, PrunedGatedMlp,
    PrunedGatedMlpArgs, PrunedLinear, PrunedLinearArgs, Tensor, TensorMut, TensorRef, Workspace,
};

use crate::support::open;

const HIDDEN: usize = 72;
const FFN: usize = 136;

fn devices() -> impl Iterator<Item = Device> {
    let mut backends = vec![Backend::Reference, Backend::Cpu];
    if cfg!(feature = "wgpu") {
        backends.push(Backend::Wgpu);
    }
    if cfg!(feature = "cuda") {
        backends.push(Backend::Cuda);
    }
    backends.into_iter().filter_map(open)
}

fn layout(dtype: DType, shape: &[usize]) -> Layout {
    Layout::contiguous(dtype, shape).unwrap()
}

/// Values between -scale and scale, the same in every run.
fn random(dtype: DType, shape: &[usize], scale: f64, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let values = std::iter::repeat_with(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f64 / (1u64 << 30) as f64 - 1.0) * scale
    });
    let layout = layout(dtype, shape);
    Tensor::from_f64(layout, values.take(layout.elements()))
}

fn tensor_of(view: TensorRef<'_>) -> Tensor {
    Tensor::copy_of(view)
}

/// A dense block's tensors.
struct Dense {
    rows: usize,
    dtype: DType,
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    norm: Tensor,
}

impl Dense {
    fn new(rows: usize, dtype: DType) -> Dense {
        Dense {
            rows,
            dtype,
            x: random(dtype, &[rows, HIDDEN], 1.0, 1),
            gate: random(dtype, &[FFN, HIDDEN], 0.3, 2),
            up: random(dtype, &[FFN, HIDDEN], 0.3, 3),
            down: random(dtype, &[HIDDEN, FFN], 0.3, 4),
            norm: random(dtype, &[HIDDEN], 1.0, 5),
        }
    }

    fn out(&self) -> Tensor {
        Tensor::zeros(layout(self.dtype, &[self.rows, HIDDEN]))
    }

    fn run(&self, device: &Device) -> Tensor {
        let op = GatedMlp::new(HIDDEN, FFN, self.dtype).unwrap().with_norm(1e-5).unwrap();
        let mut out = self.out();
        let args = GatedMlpArgs::new(&self.x, &self.gate, &self.up, &self.down, &mut out)
            .norm_weight(&self.norm)
            .residual(&self.x);
        device.run(&op, args).unwrap();
        out
    }

    fn run_pruned(&self, device: &Device, sets: [&IndexSet; 3], scope: NormScope) -> Tensor {
        let [inputs, neurons, outputs] = sets;
        let op = PrunedGatedMlp::new(HIDDEN, neurons.len(), self.dtype)
            .and_then(|op| op.with_inputs(inputs.len()))
            .and_then(|op| op.with_outputs(outputs.len()))
            .and_then(|op| op.with_norm(1e-5))
            .unwrap()
            .with_norm_scope(scope);
        let gate = compact(&self.gate, neurons, inputs);
        let up = compact(&self.up, neurons, inputs);
        let down = compact(&self.down, outputs, neurons);
        let in_indices = tensor_of(inputs.indices_tensor());
        let out_indices = tensor_of(outputs.indices_tensor());
        let mut out = self.out();
        let args = PrunedGatedMlpArgs::new(
            &self.x,
            &in_indices,
            &gate,
            &up,
            &down,
            &out_indices,
            &mut out,
        )
        .norm_weight(&self.norm);
        device.run(&op, args).unwrap();
        out
    }

    fn run_masked(&self, device: &Device, sets: [&IndexSet; 3]) -> Tensor {
        let op = MaskedGatedMlp::new(HIDDEN, FFN, self.dtype).unwrap().with_norm(1e-5).unwrap();
        let [in_mask, mid_mask, out_mask] = sets.map(|set| {
            let mask: Vec<f32> = set.to_mask().into_iter().map(f32::from).collect();
            Tensor::from_slice(&mask, &[mask.len()]).unwrap()
        });
        let mut out = self.out();
        let args = MaskedGatedMlpArgs::new(
            &self.x, &self.gate, &self.up, &self.down, &in_mask, &mid_mask, &out_mask, &mut out,
        )
        .norm_weight(&self.norm)
        .residual(&self.x);
        device.run(&op, args).unwrap();
        out
    }
}

/// The rows and columns of a weight that two sets keep.
fn compact(weight: &Tensor, rows: &IndexSet, columns: &IndexSet) -> Tensor {
    let (values, width) = (weight.view().to_f64(), weight.layout().columns());
    let kept = rows.indices().iter().flat_map(|&row| {
        let values = &values;
        columns.indices().iter().map(move |&column| values[row as usize * width + column as usize])
    });
    let shape = [rows.len(), columns.len()];
    Tensor::from_f64(layout(weight.layout().dtype(), &shape), kept)
}

fn every_third(domain: usize) -> IndexSet {
    IndexSet::new((0..domain as u32).filter(|index| index % 3 != 1).collect(), domain).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u8> {
    tensor.view().span_bytes().to_vec()
}

#[test]
fn every_feature_selected_is_the_dense_block_to_the_bit() {
    let (features, neurons) = (IndexSet::full(HIDDEN).unwrap(), IndexSet::full(FFN).unwrap());
    for device in devices() {
        for dtype in DType::FLOATS {
            for rows in [1, 2, 3, 8, 17, 33, 65, 130] {
                let dense = Dense::new(rows, dtype);
                let want = bits(&dense.run(&device));
                for scope in [NormScope::Full, NormScope::Selected, NormScope::SelectedSumOverD] {
                    let got = dense.run_pruned(&device, [&features, &neurons, &features], scope);
                    assert!(bits(&got) == want, "{}: {dtype} {rows} rows {scope:?}", device.name());
                }
            }
        }
    }
}

#[test]
fn masks_of_one_are_the_dense_block_to_the_bit() {
    let (features, neurons) = (IndexSet::full(HIDDEN).unwrap(), IndexSet::full(FFN).unwrap());
    // WGSL's kernels for few rows know no masks: others then run, which sum in another order.
    let same_kernels = |device: &Device, rows| device.backend() != Backend::Wgpu || rows > 8;
    for device in devices() {
        for dtype in DType::FLOATS {
            for rows in [1, 3, 9, 65].into_iter().filter(|&rows| same_kernels(&device, rows)) {
                let dense = Dense::new(rows, dtype);
                let got = dense.run_masked(&device, [&features, &neurons, &features]);
                let want = dense.run(&device);
                assert!(bits(&got) == bits(&want), "{}: {dtype} {rows} rows", device.name());
            }
        }
    }
}

/// Not to the bit: under masks, zeros take part in sums, whose other terms then meet in another order.
#[test]
fn masked_and_compacted_blocks_agree() {
    let (features, neurons) = (every_third(HIDDEN), every_third(FFN));
    let one = IndexSet::new(vec![40], HIDDEN).unwrap();
    for device in devices() {
        for dtype in DType::FLOATS {
            // Two roundings of h and out, to either side.
            let bound = 4.0 * dtype.epsilon().unwrap() + 1e-5;
            for rows in [1, 2, 5, 20, 70] {
                for sets in [[&features, &neurons, &features], [&one, &neurons, &features]] {
                    let dense = Dense::new(rows, dtype);
                    let masked = dense.run_masked(&device, sets).view().to_f64();
                    let pruned = dense.run_pruned(&device, sets, NormScope::Full).view().to_f64();
                    for (index, (masked, pruned)) in masked.iter().zip(&pruned).enumerate() {
                        assert!(
                            (masked - pruned).abs() <= bound * (1.0 + masked.abs()),
                            "{}: {dtype} {rows} rows, element {index}: {masked} and {pruned}",
                            device.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn empty_sets_leave_the_residual() {
    let (full, none) = (IndexSet::full(HIDDEN).unwrap(), IndexSet::empty(HIDDEN).unwrap());
    let (neurons, no_neurons) = (IndexSet::full(FFN).unwrap(), IndexSet::empty(FFN).unwrap());
    for device in devices() {
        for dtype in DType::FLOATS {
            for rows in [1, 20, 70] {
                let dense = Dense::new(rows, dtype);
                for sets in [
                    [&none, &neurons, &full],
                    [&full, &no_neurons, &full],
                    [&full, &neurons, &none],
                ] {
                    for scope in [NormScope::Full, NormScope::Selected] {
                        let got = dense.run_pruned(&device, sets, scope);
                        assert!(bits(&got) == bits(&dense.x), "{}: {dtype} {rows}", device.name());
                    }
                }
            }
        }
    }
}

#[track_caller]
fn assert_named(error: Error, expected_argument: &str, expected_problem: Problem) {
    let Error::Argument { argument, problem, .. } = &error else { panic!("{error}") };
    assert_eq!((argument.as_ref(), *problem), (expected_argument, expected_problem), "{error}");
}

#[test]
fn descriptors_refuse_more_features_than_there_are() {
    let op = PrunedGatedMlp::new(8, 4, DType::F32).unwrap();
    assert_named(op.with_inputs(9).unwrap_err(), "inputs", Problem::Value);
    assert_named(op.with_outputs(9).unwrap_err(), "outputs", Problem::Value);
    assert_named(PrunedGatedMlp::new(0, 4, DType::F32).unwrap_err(), "hidden", Problem::Value);
    let linear = PrunedLinear::new(8, 4, DType::F32).unwrap();
    assert_named(linear.with_gather(9).unwrap_err(), "inputs", Problem::Value);
    assert_named(linear.with_scatter(3).unwrap_err(), "outputs", Problem::Value);
    assert_named(linear.with_scatter(0).unwrap_err(), "width", Problem::Value);
    let beyond = PrunedLinear::new(8, 1 << 31, DType::F32);
    assert_named(beyond.unwrap_err(), "outputs", Problem::Size);
    assert_named(MaskedGatedMlp::new(8, 4, DType::U8).unwrap_err(), "dtype", Problem::DType);
}

fn pruned_op() -> PrunedGatedMlp {
    let op = PrunedGatedMlp::new(6, 3, DType::F32).unwrap();
    op.with_inputs(4).unwrap().with_outputs(2).unwrap()
}

fn pruned_layouts() -> PrunedGatedMlpArgs<Layout, Layout> {
    let float = |shape: &[usize]| layout(DType::F32, shape);
    let index = |length| layout(DType::U32, &[length]);
    let (x, first) = (float(&[2, 6]), float(&[3, 4]));
    PrunedGatedMlpArgs::new(x, index(4), first, first, float(&[2, 3]), index(2), x)
}

#[test]
fn shapes_and_types_of_pruned_blocks() {
    type Edit = fn(&mut PrunedGatedMlpArgs<Layout, Layout>);
    pruned_op().validate(&pruned_layouts()).unwrap();
    let cases: [(&str, Problem, Edit); 8] = [
        ("x", Problem::Shape, |args| args.x = layout(DType::F32, &[2, 5])),
        ("gate_weight", Problem::Shape, |args| args.gate_weight = layout(DType::F32, &[3, 6])),
        ("down_weight", Problem::Shape, |args| args.down_weight = layout(DType::F32, &[6, 3])),
        ("in_indices", Problem::Shape, |args| args.in_indices = layout(DType::U32, &[5])),
        ("in_indices", Problem::DType, |args| args.in_indices = layout(DType::I32, &[4])),
        ("out_indices", Problem::Shape, |args| args.out_indices = layout(DType::U32, &[2, 1])),
        ("residual", Problem::Shape, |args| args.residual = Some(layout(DType::F32, &[2, 2]))),
        ("out", Problem::Shape, |args| args.out = layout(DType::F32, &[2, 2])),
    ];
    for (argument, problem, edit) in cases {
        let mut args = pruned_layouts();
        edit(&mut args);
        assert_named(pruned_op().validate(&args).unwrap_err(), argument, problem);
    }
}

#[test]
fn selections_of_linear_layers_go_with_the_descriptor() {
    let float = |shape: &[usize]| layout(DType::F32, shape);
    let index = |length| layout(DType::U32, &[length]);
    let plain = PrunedLinear::new(6, 4, DType::F32).unwrap();
    let args = PrunedLinearArgs::new(float(&[2, 6]), float(&[4, 6]), float(&[2, 4]));
    plain.validate(&args).unwrap();
    plain.validate(&args.residual(float(&[2, 4]))).unwrap();
    let refused = |op: PrunedLinear, args, argument, problem| {
        assert_named(op.validate(&args).unwrap_err(), argument, problem);
    };
    refused(plain, args.in_indices(index(6)), "in_indices", Problem::Unexpected);
    refused(plain, args.out_indices(index(4)), "out_indices", Problem::Unexpected);
    refused(plain, args.bias(float(&[6])), "bias", Problem::Shape);
    let mut wrong = args;
    wrong.weight = float(&[6, 4]);
    refused(plain, wrong, "weight", Problem::Shape);
    let gathering = plain.with_gather(6).unwrap();
    refused(gathering, args, "in_indices", Problem::Missing);
    let scattering = plain.with_scatter(9).unwrap();
    let mut args = args.out_indices(index(4));
    args.out = float(&[2, 9]);
    refused(scattering, args, "residual", Problem::Missing);
    scattering.validate(&args.residual(float(&[2, 9]))).unwrap();
}

#[test]
fn masks_are_f32() {
    let op = MaskedGatedMlp::new(6, 3, DType::F32).unwrap();
    let float = |shape: &[usize]| layout(DType::F32, shape);
    let (x, first) = (float(&[2, 6]), float(&[3, 6]));
    let (wide, narrow) = (float(&[6]), float(&[3]));
    let down = float(&[6, 3]);
    let args = MaskedGatedMlpArgs::new(x, first, first, down, wide, narrow, wide, x);
    op.validate(&args).unwrap();
    let mut wrong = args;
    wrong.mid_mask = wide;
    assert_named(op.validate(&wrong).unwrap_err(), "mid_mask", Problem::Shape);
    let mut wrong = args;
    wrong.in_mask = layout(DType::U8, &[6]);
    assert_named(op.validate(&wrong).unwrap_err(), "in_mask", Problem::DType);
}

/// Duplicates, disorder and indices out of range: each is named with its position, and nothing is written.
#[test]
fn bad_indices_are_refused_before_anything_is_written() {
    let op = pruned_op();
    let (x, weights) = ([1.0f32; 12], [0.5f32; 12]);
    for (in_indices, out_indices, argument, words) in [
        ([0u32, 1, 2, 6], [0u32, 1], "in_indices", "6 at position 3"),
        ([0, 2, 1, 3], [0, 1], "in_indices", "1 at position 2"),
        ([0, 1, 2, 3], [4, 4], "out_indices", "4 at position 1"),
        ([0, 1, 2, 3], [u32::MAX, 0], "out_indices", "4294967295 at position 0"),
    ] {
        for reference in [false, true] {
            let mut out = [7.0f32; 12];
            let args = PrunedGatedMlpArgs::new(
                TensorRef::new(&x, &[2, 6]).unwrap(),
                TensorRef::new(&in_indices, &[4]).unwrap(),
                TensorRef::new(&weights, &[3, 4]).unwrap(),
                TensorRef::new(&weights, &[3, 4]).unwrap(),
                TensorRef::new(&weights[..6], &[2, 3]).unwrap(),
                TensorRef::new(&out_indices, &[2]).unwrap(),
                TensorMut::new(&mut out, &[2, 6]).unwrap(),
            );
            let error = if reference {
                op.run_reference(args).unwrap_err()
            } else {
                Cpu::new().pruned_gated_mlp(&op, args, &mut Workspace::default()).unwrap_err()
            };
            assert!(error.to_string().contains(words), "{error}");
            assert_named(error, argument, Problem::Value);
            assert_eq!(out, [7.0; 12]);
        }
    }
}
