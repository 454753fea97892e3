//! `feature_attention`: what it refuses, and what padding, neighbours and threads must not change, bit for bit.

use std::sync::Arc;

use siluette::device::NamedTensors;
use siluette::{
    Backend, Cpu, DType, Device, FeatureAttention, FeatureAttentionArgs, Layout, Operation,
    Parameters, Problem, Tensor, TensorMut, TensorRef, Workspace, registry,
};

use crate::support::{assert_refused, open};

const REDUCED: usize = 7;

fn layout(dtype: DType, shape: &[usize]) -> Layout {
    Layout::contiguous(dtype, shape).unwrap()
}

fn float(shape: &[usize]) -> Layout {
    layout(DType::F32, shape)
}

#[test]
fn descriptors_refuse_what_no_kernel_can_do() {
    let new = FeatureAttention::new;
    assert_refused(new(0, 1, DType::F32), "features", Problem::Value);
    assert_refused(new(1, 0, DType::F32), "reduced", Problem::Value);
    assert_refused(new(1 << 31, 1, DType::F32), "features", Problem::Size);
    assert_refused(new(1, 1 << 31, DType::F32), "reduced", Problem::Size);
    assert_refused(new(1, 1, DType::I32), "dtype", Problem::DType);
    let op = new(1, 1, DType::F16).unwrap();
    assert_refused(op.with_weight_dtype(DType::F32), "weight_dtype", Problem::DType);
}

#[test]
fn layouts_that_do_not_fit_are_named() {
    let op = FeatureAttention::new(6, 2, DType::F32).unwrap();
    let x = float(&[3, 4, 6]);
    let good = FeatureAttentionArgs::new(x, float(&[2, 6]), float(&[6, 2]), x)
        .b1(float(&[2]))
        .b2(float(&[6]))
        .lengths(layout(DType::I32, &[3]));
    op.validate(&good).unwrap();
    let refuse = |change: fn(&mut FeatureAttentionArgs<Layout, Layout>), name, problem| {
        let mut args = good;
        change(&mut args);
        assert_refused(op.validate(&args), name, problem);
    };
    refuse(|args| args.x = float(&[3, 4, 5]), "x", Problem::Shape);
    refuse(|args| args.x = float(&[12, 6]), "x", Problem::Shape);
    refuse(|args| args.x = float(&[1 << 32, 4, 6]), "texts", Problem::Size);
    refuse(|args| args.x = float(&[3, 1 << 32, 6]), "tokens", Problem::Size);
    refuse(|args| args.x = layout(DType::F16, &[3, 4, 6]), "x", Problem::DType);
    refuse(|args| args.w1 = float(&[6, 2]), "w1", Problem::Shape);
    refuse(|args| args.w2 = float(&[2, 6]), "w2", Problem::Shape);
    refuse(|args| args.w2 = layout(DType::BF16, &[6, 2]), "w2", Problem::DType);
    refuse(|args| args.b1 = Some(float(&[6])), "b1", Problem::Shape);
    refuse(|args| args.b2 = Some(float(&[2])), "b2", Problem::Shape);
    refuse(|args| args.lengths = Some(float(&[3])), "lengths", Problem::DType);
    refuse(|args| args.lengths = Some(layout(DType::I32, &[4])), "lengths", Problem::Shape);
    refuse(|args| args.out = float(&[3, 3, 6]), "out", Problem::Shape);
    refuse(|args| args.out = layout(DType::I32, &[3, 4, 6]), "out", Problem::DType);
    let overlapping = |args: &mut FeatureAttentionArgs<Layout, Layout>| {
        args.out = Layout::strided(DType::F32, &[3, 4, 6], &[23, 6, 1]).unwrap();
    };
    refuse(overlapping, "out", Problem::Stride);
}

#[test]
fn lengths_out_of_range_are_named_and_nothing_is_written() {
    let op = FeatureAttention::new(2, 1, DType::F32).unwrap();
    let (x, w) = ([1.0f32; 12], [1.0f32; 2]);
    for (lengths, text) in [([0, 4], "4 for text 1"), ([-1, 9], "-1 for text 0")] {
        for on_cpu in [true, false] {
            let mut out = [-7.0f32; 12];
            let args = FeatureAttentionArgs::new(
                TensorRef::new(&x, &[2, 3, 2]).unwrap(),
                TensorRef::new(&w, &[1, 2]).unwrap(),
                TensorRef::new(&w, &[2, 1]).unwrap(),
                TensorMut::new(&mut out, &[2, 3, 2]).unwrap(),
            )
            .lengths(TensorRef::new(&lengths, &[2]).unwrap());
            let result = if on_cpu {
                Cpu::new().feature_attention(&op, args, &mut Workspace::default())
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

/// A number between -1 and 1 that depends on its place in no simple way.
fn noise(place: usize) -> f64 {
    (place as f64 * 12.9898).sin()
}

/// Texts of `tokens` tokens of which only the first `lengths` are numbers.
struct Texts {
    features: usize,
    tokens: usize,
    lengths: Vec<usize>,
    /// Numbers of the texts, so that they stay the same in another batch.
    ids: Vec<usize>,
}

impl Texts {
    fn x(&self) -> Vec<f64> {
        let mut x = Vec::new();
        for (&id, &length) in self.ids.iter().zip(&self.lengths) {
            for token in 0..self.tokens {
                let place = |feature| (id * 1_000 + token) * self.features + feature;
                let value = |feature| {
                    if token < length { noise(place(feature)) } else { f64::NAN }
                };
                x.extend((0..self.features).map(value));
            }
        }
        x
    }

    /// The result of these texts, one vector of bits a text, its padding left out once it is known to be 0.
    fn run(&self, device: &Device, with_lengths: bool, x: Vec<f64>) -> Vec<Vec<u64>> {
        let (batch, features) = (self.ids.len(), self.features);
        let weight = |shape: [usize; 2], seed: usize| {
            let values = (0..shape[0] * shape[1]).map(|place| noise(place + seed));
            Tensor::from_f64(float(&shape), values)
        };
        let mut tensors = NamedTensors::from([
            ("x".to_owned(), Tensor::from_f64(float(&[batch, self.tokens, features]), x)),
            ("w1".to_owned(), weight([REDUCED, features], 77)),
            ("w2".to_owned(), weight([features, REDUCED], 7_777)),
        ]);
        if with_lengths {
            let lengths = self.lengths.iter().map(|&length| length as f64);
            let lengths = Tensor::from_f64(layout(DType::I32, &[batch]), lengths);
            tensors.insert("lengths".to_owned(), lengths);
        }
        let info = registry::find("feature_attention").unwrap();
        let prepared = info.prepare(tensors, &Parameters::new()).unwrap();
        let out = Tensor::from_f64(prepared.outputs()["out"], std::iter::repeat(f64::NAN));
        let mut loaded = prepared.load(device, [("out".to_owned(), out)].into()).unwrap();
        loaded.run(1).unwrap();
        let out = loaded.outputs().unwrap()["out"].view().to_f64();
        let mut texts = Vec::new();
        for (text, &length) in self.lengths.iter().enumerate() {
            let text = &out[text * self.tokens * features..][..self.tokens * features];
            let (valid, padding) = text.split_at(length * features);
            assert!(padding.iter().all(|&value| value == 0.0), "{}: padding", device.name());
            texts.push(valid.iter().map(|value| value.to_bits()).collect());
        }
        texts
    }
}

/// Every device there is, and the CPU with one thread and with more than there are texts.
fn devices() -> Vec<Device> {
    let mut devices = vec![Device::Reference];
    devices.extend([Backend::Wgpu, Backend::Cuda].into_iter().filter_map(open));
    for threads in [1, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        devices.push(Device::Cpu(Cpu::with_pool(Arc::new(pool))));
    }
    devices
}

#[test]
fn a_text_is_the_same_alone_in_a_batch_and_under_more_padding() {
    for device in devices() {
        // Rows of 16 bytes and others.
        for features in [40, 33] {
            let lengths = vec![5, 0, 3, 9];
            let batch = Texts { features, tokens: 9, lengths, ids: vec![0, 1, 2, 3] };
            let together = batch.run(&device, true, batch.x());
            assert!(together[1].is_empty());
            // So long that a block of a GPU cannot hold a text.
            let padded = Texts {
                tokens: 1_800,
                lengths: batch.lengths.clone(),
                ids: vec![0, 1, 2, 3],
                ..batch
            };
            assert_eq!(padded.run(&device, true, padded.x()), together, "{}", device.name());
            for (id, &length) in batch.lengths.iter().enumerate() {
                let alone =
                    Texts { features, tokens: length, lengths: vec![length], ids: vec![id] };
                let result = alone.run(&device, false, alone.x());
                assert_eq!(result[0], together[id], "{}: text {id}", device.name());
            }
        }
    }
}

#[test]
fn a_nan_stays_in_its_text() {
    for device in devices() {
        for features in [40, 33] {
            let lengths = vec![4, 3, 4];
            let batch = Texts { features, tokens: 4, lengths, ids: vec![0, 1, 2] };
            let clean = batch.run(&device, true, batch.x());
            let mut x = batch.x();
            x[5 * features + 3] = f64::NAN;
            let result = batch.run(&device, true, x);
            assert_eq!((&result[0], &result[2]), (&clean[0], &clean[2]), "{}", device.name());
            let is_nan = |bits: &u64| f64::from_bits(*bits).is_nan();
            assert!(result[1].iter().all(is_nan), "{}", device.name());
        }
    }
}

/// Sums that saturate tanh and sigmoid, of either sign, and one that overflows f32.
#[test]
fn extremes_give_zero_half_or_all_of_x() {
    for device in devices() {
        for (w1, w2, expected) in [
            (1e30, 1e30, 2.0),
            (1e30, -1e30, 0.0),
            (-1e30, 200.0, 0.0),
            (3e38, 3e38, 2.0),
            (0.0, 5.0, 1.0),
            (1e-30, 1e32, 2.0),
            (20.0, -88.0, 0.0),
            (-20.0, -88.0, 2.0),
        ] {
            let tensor =
                |shape: &[usize], value| Tensor::from_f64(float(shape), std::iter::repeat(value));
            let tensors = NamedTensors::from([
                ("x".to_owned(), tensor(&[1, 2, 3], 2.0)),
                ("w1".to_owned(), tensor(&[1, 3], w1)),
                ("w2".to_owned(), tensor(&[3, 1], w2)),
            ]);
            let info = registry::find("feature_attention").unwrap();
            let prepared = info.prepare(tensors, &Parameters::new()).unwrap();
            let out = Tensor::zeros(prepared.outputs()["out"]);
            let mut loaded = prepared.load(&device, [("out".to_owned(), out)].into()).unwrap();
            loaded.run(1).unwrap();
            for value in loaded.outputs().unwrap()["out"].view().to_f64() {
                let name = device.name();
                assert!((value - expected).abs() < 1e-6, "{name}: {w1} {w2} gives {value}");
            }
        }
    }
}
