//! `bigru`: what it refuses, and what padding, neighbours and what is not a number must not change, bit for bit, on any
//! device.

use std::sync::Arc;

use siluette::arguments::Repeated;
use siluette::device::NamedTensors;
use siluette::{
    Backend, BiGru, BiGruArgs, Cpu, DType, Device, Error, Layout, Operation as _, Parameters,
    Problem, Tensor, TensorMut, TensorRef, Workspace, registry,
};

use crate::support::{assert_refused, assert_texts_are_checked, open};

const INPUT: usize = 3;
const LAYERS: usize = 2;
/// One for each kernel of the recurrence.
const HIDDEN: [usize; 3] = [5, 66, 131];

/// A number between -1 and 1 that depends on its place in no simple way.
fn noise(place: usize) -> f64 {
    (place as f64 * 12.9898).sin()
}

fn floats(shape: &[usize], value: impl Fn(usize) -> f64) -> Tensor {
    let layout = Layout::contiguous(DType::F32, shape).unwrap();
    Tensor::from_f64(layout, (0..layout.elements()).map(value))
}

fn integers(values: &[i32]) -> Tensor {
    let layout = Layout::contiguous(DType::I32, &[values.len()]).unwrap();
    Tensor::from_f64(layout, values.iter().map(|&value| f64::from(value)))
}

/// Texts of `tokens` tokens of which only the first `lengths` are numbers.
struct Texts {
    hidden: usize,
    tokens: usize,
    lengths: Vec<usize>,
    /// Numbers of the texts, so that they stay the same in another batch.
    ids: Vec<usize>,
}

/// A text's states: `[length, 2h]` of the last layer, then `[2 * layers, h]` of the end.
type States = (Vec<u64>, Vec<u64>);

impl Texts {
    /// Everything but the lengths.
    fn tensors(&self) -> NamedTensors {
        let (batch, hidden) = (self.ids.len(), self.hidden);
        let x = |place: usize| {
            let (text, token) = (place / INPUT / self.tokens, place / INPUT % self.tokens);
            let is_valid = token < self.lengths[text];
            let place = (self.ids[text] * 1_000 + token) * INPUT + place % INPUT;
            if is_valid { noise(place) } else { f64::NAN }
        };
        let h0 = |place: usize| {
            let (layer, text) = (place / hidden / batch, place / hidden % batch);
            noise(9_000 + (layer * 100 + self.ids[text]) * hidden + place % hidden)
        };
        let mut tensors = NamedTensors::from([
            ("x".to_owned(), floats(&[batch, self.tokens, INPUT], x)),
            ("h0".to_owned(), floats(&[2 * LAYERS, batch, hidden], h0)),
        ]);
        for layer in 0..LAYERS {
            for (seed, reverse) in ["", "_reverse"].into_iter().enumerate() {
                let inputs = if layer == 0 { INPUT } else { 2 * hidden };
                let seed = 100 * layer + 1_000 * seed;
                let matrix = |name: &str, columns: usize, seed: usize| {
                    let scale = (columns as f64).sqrt().recip();
                    let weight = floats(&[3 * hidden, columns], |i| scale * noise(seed + i));
                    (format!("{name}_l{layer}{reverse}"), weight)
                };
                let bias = |name: &str, seed: usize| {
                    let bias = floats(&[3 * hidden], |i| noise(seed + i));
                    (format!("{name}_l{layer}{reverse}"), bias)
                };
                tensors.extend([
                    matrix("weight_ih", inputs, seed),
                    matrix("weight_hh", hidden, seed + 7),
                    bias("bias_ih", seed + 33),
                    bias("bias_hh", seed + 55),
                ]);
            }
        }
        tensors
    }

    fn run(&self, device: &Device, with_lengths: bool) -> Vec<States> {
        let mut tensors = self.tensors();
        if with_lengths {
            let lengths: Vec<i32> = self.lengths.iter().map(|&length| length as i32).collect();
            tensors.insert("lengths".to_owned(), integers(&lengths));
        }
        self.run_on(device, tensors)
    }

    /// A text's results, its padding left out once it is known to be 0.
    fn run_on(&self, device: &Device, tensors: NamedTensors) -> Vec<States> {
        let prepared =
            registry::find("bigru").unwrap().prepare(tensors, &Parameters::new()).unwrap();
        let poison = |layout| Tensor::from_f64(layout, std::iter::repeat(f64::NAN));
        let outputs = prepared.outputs().iter();
        let poisoned = outputs.map(|(name, &layout)| (name.clone(), poison(layout)));
        let mut loaded = prepared.load(device, poisoned.collect()).unwrap();
        loaded.run(1).unwrap();
        let outputs = loaded.outputs().unwrap();
        let [out, last] = ["out", "h_n"].map(|name| outputs[name].view().to_f64());
        let (batch, row) = (self.ids.len(), 2 * self.hidden);
        let texts = self.lengths.iter().enumerate().map(|(text, &length)| {
            let text_out = &out[text * self.tokens * row..][..self.tokens * row];
            let (valid, padding) = text_out.split_at(length * row);
            assert!(padding.iter().all(|&value| value == 0.0), "{}: padding", device.name());
            let states = (0..2 * LAYERS)
                .flat_map(|layer| &last[(layer * batch + text) * self.hidden..][..self.hidden]);
            (bits(valid), bits(states))
        });
        texts.collect()
    }
}

fn bits<'a>(values: impl IntoIterator<Item = &'a f64>) -> Vec<u64> {
    values.into_iter().map(|value| value.to_bits()).collect()
}

/// Every device there is, and the CPU with one thread and with more than there are texts.
fn devices() -> impl Iterator<Item = Device> {
    let devices = [Backend::Wgpu, Backend::Cuda].into_iter().filter_map(open);
    let processors = [1, 8].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        Device::Cpu(Cpu::with_pool(Arc::new(pool)))
    });
    [Device::Reference].into_iter().chain(processors).chain(devices)
}

#[test]
fn a_text_is_the_same_alone_in_a_batch_and_under_more_padding() {
    for device in devices() {
        for hidden in HIDDEN {
            let (lengths, ids) = (vec![3, 0, 2, 5, 1], vec![0, 1, 2, 3, 4]);
            let batch = Texts { hidden, tokens: 5, lengths, ids };
            let name = format!("{} hidden={hidden}", device.name());
            let together = batch.run(&device, true);
            let padded = Texts {
                tokens: 43,
                lengths: batch.lengths.clone(),
                ids: batch.ids.clone(),
                ..batch
            };
            assert_eq!(padded.run(&device, true), together, "{name}");
            for (id, &length) in batch.lengths.iter().enumerate() {
                let alone = Texts { hidden, tokens: length, lengths: vec![length], ids: vec![id] };
                assert_eq!(alone.run(&device, false), together[id..=id], "{name}: text {id}");
            }
        }
    }
}

#[test]
fn a_nan_stays_in_its_text() {
    for device in devices() {
        for hidden in HIDDEN {
            let batch = Texts { hidden, tokens: 4, lengths: vec![4, 3, 4], ids: vec![0, 1, 2] };
            let name = format!("{} hidden={hidden}", device.name());
            let clean = batch.run(&device, true);
            let mut tensors = batch.tensors();
            // The second text's first token.
            let mut x = tensors["x"].view().to_f64();
            x[4 * INPUT] = f64::NAN;
            tensors.insert("x".to_owned(), floats(&[3, 4, INPUT], |place| x[place]));
            tensors.insert("lengths".to_owned(), integers(&[4, 3, 4]));
            let result = batch.run_on(&device, tensors);
            assert_eq!((&result[0], &result[2]), (&clean[0], &clean[2]), "{name}");
            let is_nan = |bits: &u64| f64::from_bits(*bits).is_nan();
            assert!(result[1].0.iter().all(is_nan), "{name}");
        }
    }
}

fn float(shape: &[usize]) -> Layout {
    Layout::contiguous(DType::F32, shape).unwrap()
}

fn integer(shape: &[usize]) -> Layout {
    Layout::contiguous(DType::I32, shape).unwrap()
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
        .lengths(integer(&[3]))
}

#[test]
fn layouts_that_do_not_fit_are_named() {
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
    refuse(|args| args.x = float(&[1 << 16, 1 << 16, 6]), "x", Problem::Size);
    refuse(|args| args.x = integer(&[3, 5, 6]), "x", Problem::DType);
    let overlapping = |args: &mut BiGruArgs<Layout, Layout>| {
        args.x = Layout::strided(DType::F32, &[3, 5, 6], &[29, 6, 1]).unwrap();
    };
    refuse(overlapping, "x", Problem::Stride);
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
    refuse(|args| args.lengths = Some(integer(&[4])), "lengths", Problem::Shape);
    refuse(|args| args.out = float(&[3, 5, 4]), "out", Problem::Shape);
    refuse(|args| args.out = integer(&[3, 5, 8]), "out", Problem::DType);
    refuse(|args| args.h_n = Some(integer(&[4, 3, 4])), "h_n", Problem::DType);
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

/// Runs two texts of three tokens of two features on the CPU or the reference.
fn run_ones(out_shape: &[usize], lengths: &[i32], on_cpu: bool) -> Result<(), Error> {
    let op = BiGru::new(2, 1, 1, DType::F32).unwrap();
    let (x, weight_ih, weight_hh) = ([1.0f32; 12], [1.0f32; 6], [1.0f32; 3]);
    let mut out = [-7.0f32; 12];
    let weight_ih = Repeated::from([TensorRef::new(&weight_ih, &[3, 2]).unwrap()]);
    let weight_hh = Repeated::from([TensorRef::new(&weight_hh, &[3, 1]).unwrap()]);
    let args = BiGruArgs::new(
        TensorRef::new(&x, &[2, 3, 2]).unwrap(),
        TensorMut::new(&mut out, out_shape).unwrap(),
    )
    .weight_ih(weight_ih)
    .weight_hh(weight_hh)
    .weight_ih_reverse(weight_ih)
    .weight_hh_reverse(weight_hh)
    .lengths(TensorRef::new(lengths, &[2]).unwrap());
    let result = if on_cpu {
        Cpu::new().bigru(&op, args, &mut Workspace::default())
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

#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod unchecked {
    use siluette::{BiGru, Parameters};

    use super::{Texts, integers};
    use crate::unchecked::run_unchecked;

    /// Devices take lengths for 0 and for all tokens where they are out of range.
    #[test]
    fn lengths_out_of_range_are_clamped_on_devices() {
        for hidden in super::HIDDEN {
            let batch = Texts { hidden, tokens: 3, lengths: vec![3; 3], ids: vec![0, 1, 2] };
            let run = |lengths: [i32; 3]| {
                let mut tensors = batch.tensors();
                tensors.insert("lengths".to_owned(), integers(&lengths));
                run_unchecked::<BiGru>(&tensors, &Parameters::new())
            };
            let expected = run([0, 3, 2]);
            let clamped = run([i32::MIN, i32::MAX, 2]);
            for ((backend, clamped), (_, expected)) in clamped.iter().zip(&expected) {
                for (name, expected) in expected {
                    let [got, expected] =
                        [&clamped[name], expected].map(|tensor| tensor.view().to_f64());
                    assert_eq!(got, expected, "{name} on {backend}, hidden={hidden}");
                }
            }
        }
    }
}
