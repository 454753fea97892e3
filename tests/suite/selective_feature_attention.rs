//! `selective_feature_attention`: what it refuses, and what padding, neighbours and threads must not change, bit for bit.

use std::sync::Arc;

use siluette::arguments::Repeated;
use siluette::device::NamedTensors;
use siluette::{
    Backend, Cpu, DType, Device, Error, Layout, Operation as _, Parameters, Problem,
    SelectiveFeatureAttention, SelectiveFeatureAttentionArgs, Tensor, TensorMut, TensorRef,
    Workspace, registry,
};

use crate::support::{assert_refused, assert_texts_are_checked, open};

fn float(shape: &[usize]) -> Layout {
    Layout::contiguous(DType::F32, shape).unwrap()
}

fn integers(shape: &[usize]) -> Layout {
    Layout::contiguous(DType::I32, shape).unwrap()
}

/// A number between -1 and 1 that depends on its place in no simple way.
fn noise(place: usize) -> f64 {
    (place as f64 * 12.9898).sin()
}

const NAME: &str = "selective_feature_attention";

/// The operation with its weights, to be run on texts.
struct Network {
    features: usize,
    weights: NamedTensors,
    parameters: Parameters,
}

impl Network {
    fn new(features: usize, reduced: usize, stack_mode: &str) -> Network {
        let mut shapes = Vec::new();
        for (name, rows, columns) in
            [("reduce", reduced, features), ("squeeze", 5, reduced), ("expand", features, reduced)]
        {
            shapes.push((format!("{name}_weight"), vec![rows, columns]));
            shapes.push((format!("{name}_bias"), vec![rows]));
        }
        for branch in 0..3 {
            shapes.push((format!("select{branch}_weight"), vec![reduced, 5]));
            for suffix in ["", "_reverse"] {
                let name = |tensor: &str| format!("branch{branch}.{tensor}{suffix}");
                shapes.extend(directions(name, reduced, reduced / 2));
            }
        }
        let mut weights = NamedTensors::new();
        for (index, (name, shape)) in shapes.into_iter().enumerate() {
            let layout = float(&shape);
            let scale = if shape.len() == 2 { 1.5 / (shape[1] as f64).sqrt() } else { 0.3 };
            let values = (0..layout.elements()).map(|place| scale * noise(place + 1_013 * index));
            weights.insert(name, Tensor::from_f64(layout, values));
        }
        let parameters = Parameters::new().with("stack_mode", stack_mode);
        Network { features, weights, parameters }
    }

    /// The outputs of some texts: of each text, the bits of what belongs to it. `change` makes another number of a
    /// feature, given the text's id and the feature's place in it, and whether it is valid.
    fn run(
        &self,
        device: &Device,
        ids: &[usize],
        tokens: usize,
        change: fn(usize, usize, bool, f64) -> f64,
    ) -> Vec<Vec<u64>> {
        let (batch, features) = (ids.len(), self.features);
        let mut x = Vec::new();
        for &id in ids {
            for place in 0..tokens * features {
                let is_valid = place < length(id) * features;
                x.push(change(id, place, is_valid, noise(id * 7_919 + place)));
            }
        }
        let mut tensors = self.weights.clone();
        tensors.insert("x".into(), Tensor::from_f64(float(&[batch, tokens, features]), x));
        let lengths = ids.iter().map(|&id| length(id) as f64);
        tensors.insert("lengths".into(), Tensor::from_f64(integers(&[batch]), lengths));
        let prepared = registry::find(NAME).unwrap().prepare(tensors, &self.parameters).unwrap();
        let nan = |layout| Tensor::from_f64(layout, std::iter::repeat(f64::NAN));
        let outputs = prepared.outputs().iter();
        let outputs = outputs.map(|(name, layout)| (name.clone(), nan(*layout))).collect();
        let mut loaded = prepared.load(device, outputs).unwrap();
        loaded.run(1).unwrap();
        self.texts(&loaded.outputs().unwrap(), device, ids, tokens)
    }

    fn texts(
        &self,
        outputs: &NamedTensors,
        device: &Device,
        ids: &[usize],
        tokens: usize,
    ) -> Vec<Vec<u64>> {
        let out = outputs["out"].view().to_f64();
        let columns = out.len() / (ids.len() * tokens);
        let mut texts = Vec::new();
        for (text, &id) in ids.iter().enumerate() {
            let rows = &out[text * tokens * columns..][..tokens * columns];
            let (valid, padding) = rows.split_at(length(id) * columns);
            assert!(padding.iter().all(|&value| value == 0.0), "{}: padding", device.name());
            texts.push(valid.iter().map(|value| value.to_bits()).collect());
        }
        texts
    }
}

fn directions(
    name: impl Fn(&str) -> String,
    inputs: usize,
    hidden: usize,
) -> Vec<(String, Vec<usize>)> {
    let rows = 3 * hidden;
    vec![
        (name("weight_ih"), vec![rows, inputs]),
        (name("weight_hh"), vec![rows, hidden]),
        (name("bias_ih"), vec![rows]),
        (name("bias_hh"), vec![rows]),
    ]
}

/// Every device there is, and the CPU with one thread and with more than there are texts.
fn devices() -> Vec<Device> {
    let mut devices: Vec<Device> =
        [Backend::Wgpu, Backend::Cuda].into_iter().filter_map(open).collect();
    for threads in [1, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        devices.push(Device::Cpu(Cpu::with_pool(Arc::new(pool))));
    }
    devices
}

/// Units of one warp and of more, and, on CUDA, branches in one launch (up to 128 features) and in several; both stack
/// modes.
fn networks() -> Vec<Network> {
    vec![
        Network::new(9, 12, "output_chained"),
        Network::new(17, 66, "state_chained"),
        Network::new(5, 128, "output_chained"),
        Network::new(5, 130, "output_chained"),
    ]
}

fn length(id: usize) -> usize {
    [5, 0, 3, 9, 1, 9, 2, 4, 7, 6, 8][id]
}

fn with_nan_behind(_: usize, _: usize, is_valid: bool, value: f64) -> f64 {
    if is_valid { value } else { f64::NAN }
}

fn with_large_numbers_behind(_: usize, _: usize, is_valid: bool, value: f64) -> f64 {
    if is_valid { value } else { 1e30 }
}

fn with_nan_in_text_2(id: usize, place: usize, _: bool, value: f64) -> f64 {
    if id == 2 && place == 0 { f64::NAN } else { value }
}

#[test]
fn a_text_is_the_same_alone_in_a_batch_and_under_more_padding() {
    for network in networks() {
        for device in devices() {
            let what = format!("{NAME} on {}", device.name());
            let ids: Vec<usize> = (0..11).collect();
            let together = network.run(&device, &ids, 9, with_nan_behind);
            let padded = network.run(&device, &ids, 70, with_large_numbers_behind);
            assert!(padded == together, "{what}: padding");
            for id in [0, 1, 3, 10] {
                let tokens = length(id).max(1);
                let alone = network.run(&device, &[id], tokens, with_nan_behind);
                assert!(alone[0] == together[id], "{what}: text {id} alone");
            }
            let ids = [9, 3, 3, 1, 0];
            let others = network.run(&device, &ids, 9, with_nan_behind);
            for (place, id) in ids.into_iter().enumerate() {
                assert!(others[place] == together[id], "{what}: text {id} among others");
            }
        }
    }
}

#[test]
fn a_nan_stays_in_its_text() {
    for network in networks() {
        for device in devices() {
            let what = format!("{NAME} on {}", device.name());
            let ids: Vec<usize> = (0..5).collect();
            let clean = network.run(&device, &ids, 9, with_nan_behind);
            let result = network.run(&device, &ids, 9, with_nan_in_text_2);
            for id in [0, 1, 3, 4] {
                assert!(result[id] == clean[id], "{what}: text {id}");
            }
            assert!(result[2].iter().any(|bits| f64::from_bits(*bits).is_nan()), "{what}");
        }
    }
}

#[test]
fn descriptors_refuse_what_no_kernel_can_do() {
    let new = |features, reduced, squeezed, branches| {
        SelectiveFeatureAttention::new(features, reduced, squeezed, branches, DType::F32)
    };
    assert_refused(new(0, 8, 2, 3), "features", Problem::Value);
    assert_refused(new(6, 7, 2, 3), "reduced", Problem::Value);
    assert_refused(new(6, 0, 2, 3), "reduced", Problem::Value);
    assert_refused(new(6, 1 << 30, 2, 3), "hidden", Problem::Size);
    assert_refused(new(6, 8, 0, 3), "squeezed", Problem::Value);
    assert_refused(new(6, 8, 2, 0), "branches", Problem::Value);
    assert_refused(new(6, 8, 2, 9), "branches", Problem::Size);
    let of = |dtype| SelectiveFeatureAttention::new(6, 8, 2, 3, dtype);
    assert_refused(of(DType::I32), "dtype", Problem::DType);
    let op = of(DType::BF16).unwrap();
    assert_refused(op.with_weight_dtype(DType::F16), "weight_dtype", Problem::DType);
}

type Args = SelectiveFeatureAttentionArgs<Layout, Layout>;

/// An operation of 6 features and 3 after the squeeze, and what it takes for 2 texts of 5 tokens.
fn described<const BRANCHES: usize>(reduced: usize) -> (SelectiveFeatureAttention, Args) {
    let hidden = reduced / 2;
    let of_branches = |rows, columns| Repeated::from([float(&[rows, columns]); BRANCHES]);
    let (inputs, states) = (of_branches(3 * hidden, reduced), of_branches(3 * hidden, hidden));
    let x = float(&[2, 5, 6]);
    let args = Args::new(x, float(&[reduced, 6]), float(&[3, reduced]), float(&[6, reduced]), x)
        .weight_ih(inputs)
        .weight_hh(states)
        .weight_ih_reverse(inputs)
        .weight_hh_reverse(states)
        .select_weight(of_branches(reduced, 3))
        .lengths(integers(&[2]));
    (SelectiveFeatureAttention::new(6, reduced, 3, BRANCHES, DType::F32).unwrap(), args)
}

/// A step of the recurrence is no launch, and neither is a branch while its weights fit a block's registers.
#[cfg(feature = "cuda")]
#[test]
fn launches_on_cuda_are_few() {
    let Some(Device::Cuda(device)) = open(Backend::Cuda) else { return };
    let launches = |(op, args): (SelectiveFeatureAttention, Args)| {
        let count = |op| device.cuda().plan(&op, &args).unwrap().kernels().len();
        [count(op), count(op.with_select(siluette::Select::GlobalSum))]
    };
    assert_eq!(launches(described::<1>(4)), [3, 4]);
    assert_eq!(launches(described::<3>(100)), [3, 4]);
    assert_eq!(launches(described::<8>(128)), [3, 4]);
    assert_eq!(launches(described::<3>(130)), [9, 10]);
}

#[test]
fn layouts_that_do_not_fit_are_named() {
    let (op, good) = described::<2>(4);
    op.validate(&good).unwrap();
    let refuse = |change: fn(&mut Args), name, problem| {
        let mut args = good;
        change(&mut args);
        assert_refused(op.validate(&args), name, problem);
    };
    refuse(|args| args.x = float(&[2, 5, 7]), "x", Problem::Shape);
    refuse(|args| args.x = float(&[1 << 16, 1 << 16, 6]), "x", Problem::Size);
    refuse(|args| args.x = integers(&[2, 5, 6]), "x", Problem::DType);
    refuse(|args| args.reduce_weight = float(&[6, 4]), "reduce_weight", Problem::Shape);
    refuse(|args| args.reduce_bias = Some(float(&[6])), "reduce_bias", Problem::Shape);
    refuse(|args| args.squeeze_weight = float(&[4, 3]), "squeeze_weight", Problem::Shape);
    refuse(|args| args.squeeze_bias = Some(float(&[4])), "squeeze_bias", Problem::Shape);
    refuse(|args| args.expand_weight = float(&[4, 6]), "expand_weight", Problem::Shape);
    refuse(|args| args.expand_bias = Some(float(&[4])), "expand_bias", Problem::Shape);
    let mut args = good;
    args.select_weight = Repeated::from([float(&[4, 3])]);
    assert_refused(op.validate(&args), "select1_weight", Problem::Missing);
    refuse(
        |args| args.select_weight = Repeated::from([float(&[4, 3]), float(&[3, 4])]),
        "select1_weight",
        Problem::Shape,
    );
    refuse(
        |args| args.select_bias = Repeated::from([float(&[4]), float(&[3])]),
        "select1_bias",
        Problem::Shape,
    );
    refuse(
        |args| args.select_weight = Repeated::from([float(&[4, 3]); 3]),
        "select2_weight",
        Problem::Unexpected,
    );
    refuse(
        |args| args.select_bias = Repeated::from([float(&[4]); 3]),
        "select2_bias",
        Problem::Unexpected,
    );
    refuse(
        |args| args.weight_hh_reverse = Repeated::none(),
        "branch0.weight_hh_reverse",
        Problem::Missing,
    );
    refuse(|args| args.lengths = Some(float(&[2])), "lengths", Problem::DType);
    refuse(|args| args.out = float(&[2, 5, 4]), "out", Problem::Shape);
    refuse(|args| args.out = integers(&[2, 5, 6]), "out", Problem::DType);
}

/// Runs two texts of three tokens of two features on the CPU or the reference.
fn run_ones(out_shape: &[usize], lengths: &[i32], on_cpu: bool) -> Result<(), Error> {
    let op = SelectiveFeatureAttention::new(2, 2, 1, 1, DType::F32).unwrap();
    let ones = [1.0f32; 12];
    let mut out = [-7.0f32; 12];
    let input = |shape: &[usize]| TensorRef::new(&ones[..shape.iter().product()], shape).unwrap();
    let weight = |shape: &[usize]| Repeated::from([input(shape)]);
    let args = SelectiveFeatureAttentionArgs::new(
        input(&[2, 3, 2]),
        input(&[2, 2]),
        input(&[1, 2]),
        input(&[2, 2]),
        TensorMut::new(&mut out, out_shape).unwrap(),
    )
    .weight_ih(weight(&[3, 2]))
    .weight_hh(weight(&[3, 1]))
    .weight_ih_reverse(weight(&[3, 2]))
    .weight_hh_reverse(weight(&[3, 1]))
    .select_weight(weight(&[2, 1]))
    .lengths(TensorRef::new(lengths, &[2]).unwrap());
    let result = if on_cpu {
        Cpu::new().selective_feature_attention(&op, args, &mut Workspace::default())
    } else {
        op.run_reference(args)
    };
    assert_eq!(out == [-7.0; 12], result.is_err());
    result
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    assert_texts_are_checked(run_ones);
}
