//! `bigru` and `selective_feature_attention`: what they refuse, and what padding, neighbours and threads must not change,
//! bit for bit.

use std::sync::Arc;

use siluette::arguments::Repeated;
use siluette::device::NamedTensors;
use siluette::{
    Backend, BiGru, BiGruArgs, Cpu, DType, Device, Error, Layout, Operation as _, Parameters,
    Problem, SelectiveFeatureAttention, SelectiveFeatureAttentionArgs, Tensor, TensorMut,
    TensorRef, Workspace, registry,
};

use crate::support::open;

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

/// An operation with its weights, to be run on texts.
struct Network {
    op: &'static str,
    features: usize,
    weights: NamedTensors,
    parameters: Parameters,
    /// Whether a text has states of its own to start from.
    hidden: Option<usize>,
}

impl Network {
    fn new(op: &'static str, features: usize, shapes: &[(String, Vec<usize>)]) -> Network {
        let mut weights = NamedTensors::new();
        for (index, (name, shape)) in shapes.iter().enumerate() {
            let layout = float(shape);
            let scale = if shape.len() == 2 { 1.5 / (shape[1] as f64).sqrt() } else { 0.3 };
            let values = (0..layout.elements()).map(|place| scale * noise(place + 1_013 * index));
            weights.insert(name.clone(), Tensor::from_f64(layout, values));
        }
        Network { op, features, weights, parameters: Parameters::new(), hidden: None }
    }

    fn bigru(features: usize, hidden: usize, layers: usize) -> Network {
        let mut shapes = Vec::new();
        for layer in 0..layers {
            let inputs = if layer == 0 { features } else { 2 * hidden };
            for suffix in ["", "_reverse"] {
                let name = |tensor: &str| format!("{tensor}_l{layer}{suffix}");
                shapes.extend(directions(name, inputs, hidden));
            }
        }
        Network { hidden: Some(hidden), ..Network::new("bigru", features, &shapes) }
    }

    fn selective(features: usize, reduced: usize, stack_mode: &str) -> Network {
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
        let network = Network::new("selective_feature_attention", features, &shapes);
        Network { parameters: Parameters::new().with("stack_mode", stack_mode), ..network }
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
        if let Some(hidden) = self.hidden {
            let states = self.weights.keys().filter(|name| name.starts_with("weight_ih")).count();
            let value = |place: usize| {
                let (state, text, unit) =
                    (place / hidden / batch, place / hidden % batch, place % hidden);
                noise((state * 31 + ids[text]) * 4_001 + unit)
            };
            let values = (0..states * batch * hidden).map(value);
            tensors.insert("h0".into(), Tensor::from_f64(float(&[states, batch, hidden]), values));
        }
        let prepared = registry::find(self.op).unwrap().prepare(tensors, &self.parameters).unwrap();
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
        let states = outputs.get("h_n").map_or(Vec::new(), |h_n| h_n.view().to_f64());
        let mut texts = Vec::new();
        for (text, &id) in ids.iter().enumerate() {
            let rows = &out[text * tokens * columns..][..tokens * columns];
            let (valid, padding) = rows.split_at(length(id) * columns);
            assert!(padding.iter().all(|&value| value == 0.0), "{}: padding", device.name());
            let mut bits: Vec<u64> = valid.iter().map(|value| value.to_bits()).collect();
            if let Some(hidden) = self.hidden {
                let of_text = states.chunks(hidden).skip(text).step_by(ids.len());
                bits.extend(of_text.flatten().map(|value| value.to_bits()));
            }
            texts.push(bits);
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

/// Sizes for every kernel: a few units, one warp, several lanes a unit, weights outside registers.
fn networks() -> Vec<Network> {
    vec![
        Network::bigru(5, 3, 2),
        Network::bigru(33, 50, 1),
        Network::bigru(4, 130, 1),
        Network::selective(9, 12, "output_chained"),
        Network::selective(17, 66, "state_chained"),
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
            let what = format!("{} on {}", network.op, device.name());
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
            let what = format!("{} on {}", network.op, device.name());
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

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Error>, name: &str, expected: Problem) {
    match result.unwrap_err() {
        Error::Argument { argument, problem, .. } => {
            assert_eq!((argument.as_ref(), problem), (name, expected));
        }
        other => panic!("not about an argument: {other}"),
    }
}

#[test]
fn descriptors_refuse_what_no_kernel_can_do() {
    let new = |input, hidden, layers| BiGru::new(input, hidden, layers, DType::F32);
    assert_refused(new(0, 1, 1), "input", Problem::Value);
    assert_refused(new(1, 0, 1), "hidden", Problem::Value);
    assert_refused(new(1, 1 << 30, 1), "hidden", Problem::Size);
    assert_refused(new(1, 1, 0), "layers", Problem::Value);
    assert_refused(new(1, 1, 9), "layers", Problem::Size);
    assert_refused(BiGru::new(1, 1, 1, DType::I32), "dtype", Problem::DType);
    let op = BiGru::new(1, 1, 1, DType::BF16).unwrap();
    assert_refused(op.with_weight_dtype(DType::F16), "weight_dtype", Problem::DType);
    let new =
        |reduced, branches| SelectiveFeatureAttention::new(6, reduced, 2, branches, DType::F32);
    assert_refused(new(7, 3), "reduced", Problem::Value);
    assert_refused(new(0, 3), "reduced", Problem::Value);
    assert_refused(new(8, 0), "branches", Problem::Value);
    assert_refused(new(8, 9), "branches", Problem::Size);
}

/// Arguments of two layers of 4 units over 3 texts of 5 tokens of 6 features.
fn two_layers() -> BiGruArgs<Layout, Layout> {
    let first = |columns| Repeated::from([float(&[12, columns]), float(&[12, 8])]);
    let (states, biases) =
        (Repeated::from([float(&[12, 4]); 2]), Repeated::from([float(&[12]); 2]));
    BiGruArgs::new(float(&[3, 5, 6]), float(&[3, 5, 8]))
        .weight_ih(first(6))
        .weight_hh(states)
        .bias_ih(biases)
        .weight_ih_reverse(first(6))
        .weight_hh_reverse(states)
        .bias_hh_reverse(biases)
        .h0(float(&[4, 3, 4]))
        .h_n(float(&[4, 3, 4]))
        .lengths(integers(&[3]))
}

#[test]
fn layouts_of_a_gru_that_do_not_fit_are_named() {
    let op = BiGru::new(6, 4, 2, DType::F32).unwrap();
    let good = two_layers();
    op.validate(&good).unwrap();
    let refuse = |change: fn(&mut BiGruArgs<Layout, Layout>), name, problem| {
        let mut args = good;
        change(&mut args);
        assert_refused(op.validate(&args), name, problem);
    };
    refuse(|args| args.x = float(&[3, 5, 7]), "x", Problem::Shape);
    refuse(|args| args.x = float(&[15, 6]), "x", Problem::Shape);
    refuse(
        |args| args.weight_hh_reverse = Repeated::from([float(&[12, 4])]),
        "weight_hh_l1_reverse",
        Problem::Missing,
    );
    refuse(
        |args| args.weight_ih_reverse = Repeated::none(),
        "weight_ih_l0_reverse",
        Problem::Missing,
    );
    refuse(
        |args| args.weight_hh = Repeated::from([float(&[12, 4]); 3]),
        "weight_hh_l2",
        Problem::Unexpected,
    );
    refuse(
        |args| args.bias_ih = Repeated::from([float(&[12]); 4]),
        "bias_ih_l2",
        Problem::Unexpected,
    );
    // Four gates are those of an LSTM.
    refuse(
        |args| args.weight_ih = Repeated::from([float(&[16, 6]), float(&[12, 8])]),
        "weight_ih_l0",
        Problem::Shape,
    );
    // A second layer reads both directions of the first.
    refuse(
        |args| args.weight_ih = Repeated::from([float(&[12, 6]), float(&[12, 6])]),
        "weight_ih_l1",
        Problem::Shape,
    );
    refuse(
        |args| args.bias_hh_reverse = Repeated::from([float(&[4]); 2]),
        "bias_hh_l0_reverse",
        Problem::Shape,
    );
    refuse(|args| args.h0 = Some(float(&[2, 3, 4])), "h0", Problem::Shape);
    refuse(|args| args.h_n = Some(float(&[4, 4, 3])), "h_n", Problem::Shape);
    refuse(|args| args.lengths = Some(integers(&[4])), "lengths", Problem::Shape);
    refuse(|args| args.out = float(&[3, 5, 4]), "out", Problem::Shape);
    let half = Layout::contiguous(DType::F16, &[12, 4]).unwrap();
    let mut args = good;
    args.weight_hh = Repeated::from([half, float(&[12, 4])]);
    assert_refused(op.validate(&args), "weight_hh_l0", Problem::DType);
    let mut args = good;
    args.weight_hh = Repeated::from([float(&[12, 4])]);
    assert_refused(op.validate(&args), "weight_hh_l1", Problem::Missing);
}

#[test]
fn a_missing_direction_is_told_apart_from_a_missing_layer() {
    let op = BiGru::new(6, 4, 2, DType::F32).unwrap();
    let mut args = two_layers();
    args.weight_ih_reverse = Repeated::none();
    let message = op.validate(&args).unwrap_err().to_string();
    assert!(message.contains("both directions"), "{message}");
}

#[test]
fn layouts_of_a_selection_that_do_not_fit_are_named() {
    let op = SelectiveFeatureAttention::new(6, 4, 3, 2, DType::F32).unwrap();
    type Args = SelectiveFeatureAttentionArgs<Layout, Layout>;
    let (inputs, states) =
        (Repeated::from([float(&[6, 4]); 2]), Repeated::from([float(&[6, 2]); 2]));
    let x = float(&[2, 5, 6]);
    let good = Args::new(x, float(&[4, 6]), float(&[3, 4]), float(&[6, 4]), x)
        .weight_ih(inputs)
        .weight_hh(states)
        .weight_ih_reverse(inputs)
        .weight_hh_reverse(states)
        .select_weight(Repeated::from([float(&[4, 3]); 2]))
        .lengths(integers(&[2]));
    op.validate(&good).unwrap();
    let refuse = |change: fn(&mut Args), name, problem| {
        let mut args = good;
        change(&mut args);
        assert_refused(op.validate(&args), name, problem);
    };
    refuse(|args| args.x = float(&[2, 5, 7]), "x", Problem::Shape);
    refuse(|args| args.reduce_weight = float(&[6, 4]), "reduce_weight", Problem::Shape);
    refuse(|args| args.reduce_bias = Some(float(&[6])), "reduce_bias", Problem::Shape);
    refuse(|args| args.squeeze_weight = float(&[4, 3]), "squeeze_weight", Problem::Shape);
    refuse(|args| args.expand_weight = float(&[4, 6]), "expand_weight", Problem::Shape);
    refuse(|args| args.expand_bias = Some(float(&[4])), "expand_bias", Problem::Shape);
    let mut args = good;
    args.select_weight = Repeated::from([float(&[4, 3])]);
    assert_refused(op.validate(&args), "select1_weight", Problem::Missing);
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
}

#[test]
fn lengths_out_of_range_are_named_and_nothing_is_written() {
    let op = BiGru::new(2, 1, 1, DType::F32).unwrap();
    let (x, weight_ih, weight_hh) = ([1.0f32; 12], [1.0f32; 6], [1.0f32; 3]);
    for (lengths, text) in [([0, 4], "4 for text 1"), ([-1, 9], "-1 for text 0")] {
        for on_cpu in [true, false] {
            let mut out = [-7.0f32; 12];
            let weight_ih = Repeated::from([TensorRef::new(&weight_ih, &[3, 2]).unwrap()]);
            let weight_hh = Repeated::from([TensorRef::new(&weight_hh, &[3, 1]).unwrap()]);
            let args = BiGruArgs::new(
                TensorRef::new(&x, &[2, 3, 2]).unwrap(),
                TensorMut::new(&mut out, &[2, 3, 2]).unwrap(),
            )
            .weight_ih(weight_ih)
            .weight_hh(weight_hh)
            .weight_ih_reverse(weight_ih)
            .weight_hh_reverse(weight_hh)
            .lengths(TensorRef::new(&lengths, &[2]).unwrap());
            let result = if on_cpu {
                Cpu::new().bigru(&op, args, &mut Workspace::default())
            } else {
                op.run_reference(args)
            };
            let error = result.unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_refused(Err::<(), _>(error), "lengths", Problem::Value);
            assert_eq!(out, [-7.0; 12]);
        }
    }
}
