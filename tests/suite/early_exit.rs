//! Heads without logits: what no tolerance may hide. Results of a row do not depend on its batch or on the sharding,
//! ties go to the lowest id, and a row without a token never has one.

use siluette::device::NamedTensors;
use siluette::{Cpu, DType, Device, Element, Float, HasLayout, Parameters, Tensor, bf16, f16};

use crate::support::{cpus, devices, integers, ints, parameters, run, run_packed};

const HIDDEN: usize = 72;
const VOCABULARY: usize = 700;

/// Whole numbers, spread without order.
fn noise(index: usize, seed: u32) -> u32 {
    let mut bits = (index as u32).wrapping_mul(0x9E37_79B9) ^ seed.wrapping_mul(0x85EB_CA6B);
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x2C1B_3C6D);
    bits = (bits ^ (bits >> 12)).wrapping_mul(0x297A_2D39);
    bits ^ (bits >> 15)
}

fn random<T: Float>(shape: &[usize], seed: u32, scale: f32) -> Tensor {
    let value = |index| (noise(index, seed) as f32 / u32::MAX as f32 - 0.5) * 2.0 * scale;
    let data: Vec<T> = (0..shape.iter().product()).map(|i| T::from_f32(value(i))).collect();
    Tensor::from_slice(&data, shape).unwrap()
}

/// Tensors of a head with everything.
fn head<T: Float>(rows: usize) -> NamedTensors {
    let ids: Vec<i32> = (0..rows).map(|row| (row * 37 % VOCABULARY) as i32).collect();
    [
        ("hidden", random::<T>(&[rows, HIDDEN], 1, 2.0)),
        ("head_weight", random::<T>(&[VOCABULARY, HIDDEN], 2, 0.5)),
        ("norm_weight", random::<T>(&[HIDDEN], 3, 1.5)),
        ("head_bias", random::<T>(&[VOCABULARY], 4, 1.0)),
        ("positions", integers(&(0..rows as i32).map(|row| 1_000 + row).collect::<Vec<_>>())),
        ("gather_tokens", integers(&ids)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into()
}

/// Rows `first..first + count` of a tensor.
fn rows_of(tensor: &Tensor, first: usize, count: usize) -> Tensor {
    let layout = tensor.layout();
    let row = layout.elements() / layout.shape()[0].max(1) * layout.dtype().size();
    let mut shape = layout.shape().to_vec();
    shape[0] = count;
    let mut part = Tensor::zeros(siluette::Layout::contiguous(layout.dtype(), &shape).unwrap());
    let bytes = &tensor.view().span_bytes()[first * row..(first + count) * row];
    part.span_bytes_mut().copy_from_slice(bytes);
    part
}

fn floats(outputs: &NamedTensors, name: &str) -> Vec<f32> {
    outputs[name].view().as_slice().unwrap().to_vec()
}

#[track_caller]
pub fn assert_same_bits(got: &NamedTensors, want: &NamedTensors, what: &str) {
    for (name, want) in want {
        assert_eq!(got[name].view().span_bytes(), want.view().span_bytes(), "{what}: {name}");
    }
}

#[test]
fn rows_do_not_depend_on_their_batch() {
    for device in devices() {
        assert_rows_do_not_depend_on_their_batch::<f32>(&device, 67, &[], run);
        assert_rows_do_not_depend_on_their_batch::<f16>(&device, 67, &[], run);
        assert_rows_do_not_depend_on_their_batch::<bf16>(&device, 67, &[], run);
    }
}

#[test]
fn with_packed_weights_neither_batches_nor_shards_matter() {
    for device in cpus() {
        assert_rows_do_not_depend_on_their_batch::<f32>(&device, 131, &[], run_packed);
        assert_rows_do_not_depend_on_their_batch::<f16>(&device, 67, &[], run_packed);
        assert_rows_do_not_depend_on_their_batch::<bf16>(&device, 131, &[], run_packed);
        assert_shards_merge_to_the_whole(&device, &[], run_packed);
    }
}

/// [`run`] or [`run_packed`].
type Run = fn(&Device, &str, &NamedTensors, &Parameters) -> NamedTensors;

/// Parts of so many rows, at least 67, give the bits of all of them.
pub fn assert_rows_do_not_depend_on_their_batch<T: Float>(
    device: &Device,
    rows: usize,
    options: &[(&str, &str)],
    run: Run,
) {
    let inputs = head::<T>(rows);
    let results = [("top_k", "6"), ("logits", "true"), ("seed", "5")];
    let options = parameters(&[&results[..], options].concat());
    let all = run(device, "exit_head", &inputs, &options);
    for (first, count) in [(0, 1), (66, 1), (3, 2), (7, 9), (20, 17), (1, 40)] {
        let mut batch = inputs.clone();
        for name in ["hidden", "positions", "gather_tokens"] {
            batch.insert(name.to_owned(), rows_of(&inputs[name], first, count));
        }
        let want =
            all.iter().map(|(name, all)| (name.clone(), rows_of(all, first, count))).collect();
        let what = format!("{} {} rows from {first}", device.name(), T::DTYPE);
        assert_same_bits(&run(device, "exit_head", &batch, &options), &want, &what);
    }
}

#[test]
fn shards_merge_to_the_whole() {
    for device in devices() {
        assert_shards_merge_to_the_whole(&device, &[], run);
    }
}

/// States of the parts of a vocabulary, merged, give the bits of the whole.
pub fn assert_shards_merge_to_the_whole(device: &Device, options: &[(&str, &str)], run: Run) {
    let inputs = head::<bf16>(9);
    let results = [("top_k", "7"), ("seed", "9"), ("valid_vocab", "650"), ("softcap", "9")];
    let options = [&results[..], options].concat();
    let whole = run(device, "exit_head", &inputs, &parameters(&options));
    let mut states: [Vec<u8>; 2] = Default::default();
    for (first, count) in [(0, 256), (256, 128), (384, 316)] {
        let mut shard = inputs.clone();
        for name in ["head_weight", "head_bias"] {
            shard.insert(name.to_owned(), rows_of(&inputs[name], first, count));
        }
        let options = parameters(&options).with("vocab_offset", &first.to_string());
        let outputs = run(device, "exit_head_states", &shard, &options);
        for (states, name) in states.iter_mut().zip(["state_values", "state_tokens"]) {
            states.extend(outputs[name].view().span_bytes());
        }
    }
    let joined = |bytes: &[u8], dtype, columns| {
        let layout = siluette::Layout::contiguous(dtype, &[6, 9, columns]).unwrap();
        let mut tensor = Tensor::zeros(layout);
        tensor.span_bytes_mut().copy_from_slice(bytes);
        tensor
    };
    let states = NamedTensors::from([
        ("state_values".to_owned(), joined(&states[0], DType::F32, 13)),
        ("state_tokens".to_owned(), joined(&states[1], DType::I32, 9)),
    ]);
    let merged = run(device, "merge_exit_states", &states, &Parameters::new());
    assert_same_bits(&merged, &whole, &device.name());
}

#[test]
fn rows_without_a_token_never_have_one() {
    for device in devices() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut inputs = head::<f32>(6);
            let options = parameters(&[("top_k", "3"), ("logits", "true")]);
            inputs.remove("norm_weight");
            let good = run(&device, "exit_head", &inputs, &options);
            let mut hidden = inputs["hidden"].view().as_slice::<f32>().unwrap().to_vec();
            hidden[2 * HIDDEN + 5] = bad;
            inputs.insert("hidden".to_owned(), Tensor::from_slice(&hidden, &[6, HIDDEN]).unwrap());
            let selected = integers(&[0, 2, -1, 6, i32::MIN, 5]);
            inputs.insert("rows".to_owned(), selected);
            let outputs = run(&device, "exit_head", &inputs, &options);
            for row in 1..5 {
                let what = format!("{} row {row}", device.name());
                for name in ["token", "sampled_token"] {
                    assert_eq!(ints(&outputs, name)[row], -1, "{what}: {name}");
                }
                assert_eq!(ints(&outputs, "top_tokens")[3 * row..][..3], [-1; 3], "{what}");
                for name in
                    ["max_logit", "second_logit", "log_sum_exp", "entropy", "gathered_logit"]
                {
                    assert!(floats(&outputs, name)[row].is_nan(), "{what}: {name}");
                }
                assert!(floats(&outputs, "top_logits")[3 * row].is_nan(), "{what}");
            }
            for name in ["token", "max_logit", "log_sum_exp", "entropy", "sampled_token"] {
                for row in [0, 5] {
                    let (got, want) =
                        (rows_of(&outputs[name], row, 1), rows_of(&good[name], row, 1));
                    assert_eq!(got, want, "{}: {name} of row {row}", device.name());
                }
            }
        }
    }
}

/// A head whose logits are these numbers, exactly.
fn of_logits(logits: &[f32]) -> NamedTensors {
    let inputs = [
        ("hidden", Tensor::from_slice(&[1.0f32], &[1, 1]).unwrap()),
        ("head_weight", Tensor::from_slice(logits, &[logits.len(), 1]).unwrap()),
    ];
    inputs.map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

#[test]
fn equal_logits_go_to_the_lowest_id() {
    for device in devices() {
        let mut logits = vec![-1.0; 600];
        for id in [599, 130, 261, 140] {
            logits[id] = 2.0;
        }
        let options = parameters(&[("top_k", "6")]);
        let outputs = run(&device, "exit_head", &of_logits(&logits), &options);
        assert_eq!(ints(&outputs, "token"), [130], "{}", device.name());
        assert_eq!(ints(&outputs, "top_tokens"), [130, 140, 261, 599, 0, 1], "{}", device.name());
        assert_eq!(floats(&outputs, "second_logit"), [2.0]);
        // Zeros of both signs are equal.
        let outputs = run(&device, "exit_head", &of_logits(&[-0.0, 0.0, -0.0]), &options);
        assert_eq!(ints(&outputs, "token"), [0], "{}", device.name());
        assert_eq!(ints(&outputs, "top_tokens"), [0, 1, 2, -1, -1, -1], "{}", device.name());
        assert_eq!(floats(&outputs, "top_logits")[3..], [f32::NEG_INFINITY; 3]);
    }
}

#[test]
fn masked_and_banned_ids_do_not_exist() {
    for device in devices() {
        let mut logits: Vec<f32> = (0..400).map(|id| id as f32 / 100.0).collect();
        logits[7] = f32::NEG_INFINITY;
        let mut inputs = of_logits(&logits);
        inputs.insert("gather_tokens".to_owned(), integers(&[300]));
        inputs.insert("positions".to_owned(), integers(&[0]));
        let options =
            parameters(&[("top_k", "64"), ("valid_vocab", "9"), ("inv_temperature", "0")]);
        let outputs = run(&device, "exit_head", &inputs, &options);
        let what = device.name();
        assert_eq!(ints(&outputs, "token"), [8], "{what}");
        let listed = ints(&outputs, "top_tokens");
        assert_eq!(listed[..9], [8, 6, 5, 4, 3, 2, 1, 0, -1], "{what}");
        assert!(listed[8..].iter().all(|&id| id == -1), "{what}");
        assert_eq!(floats(&outputs, "gathered_logit"), [f32::NEG_INFINITY], "{what}");
        let sampled = ints(&outputs, "sampled_token")[0];
        assert!((0..9).contains(&sampled) && sampled != 7, "{what}: {sampled}");
        let nothing = run(&device, "exit_head", &inputs, &options.with("valid_vocab", "0"));
        assert_eq!(ints(&nothing, "token"), [-1], "{what}");
        assert_eq!(ints(&nothing, "sampled_token"), [-1], "{what}");
        assert_eq!(floats(&nothing, "log_sum_exp"), [f32::NEG_INFINITY], "{what}");
        assert!(floats(&nothing, "entropy")[0].is_nan(), "{what}");
    }
}

#[test]
fn ids_to_gather_may_be_anything() {
    for device in devices() {
        let mut inputs = of_logits(&[1.0, 2.0, 3.0]);
        for id in [-1, 3, 127, 128, i32::MIN, i32::MAX] {
            inputs.insert("gather_tokens".to_owned(), integers(&[id]));
            let outputs = run(&device, "exit_head", &inputs, &Parameters::new());
            assert_eq!(floats(&outputs, "gathered_logit"), [f32::NEG_INFINITY], "{id}");
        }
        inputs.insert("gather_tokens".to_owned(), integers(&[2]));
        let outputs = run(&device, "exit_head", &inputs, &Parameters::new());
        assert_eq!(floats(&outputs, "gathered_logit"), [3.0]);
    }
}

/// How often each id is drawn at so many positions.
fn drawn(device: &Device, logits: &[f32], options: &Parameters, draws: usize) -> Vec<u32> {
    let mut inputs = of_logits(logits);
    inputs.insert("rows".to_owned(), integers(&vec![0; draws]));
    let positions: Vec<i32> = (0..draws as i32).collect();
    inputs.insert("positions".to_owned(), integers(&positions));
    let mut counts = vec![0; logits.len()];
    for id in ints(&run(device, "exit_head", &inputs, options), "sampled_token") {
        counts[id as usize] += 1;
    }
    counts
}

#[test]
fn tokens_are_drawn_from_the_softmax() {
    const DRAWS: usize = 6_000;
    let logits = [0.0, 1.0, 2.0, -1.0, 0.5, 0.5, -3.0, 1.5];
    let chi_square = |counts: &[u32], inv_temperature: f64| {
        let weights = logits.map(|logit: f32| (f64::from(logit) * inv_temperature).exp());
        let all: f64 = weights.iter().sum();
        let term = |(&count, weight): (&u32, f64)| {
            let expected = weight / all * DRAWS as f64;
            (f64::from(count) - expected).powi(2) / expected
        };
        counts.iter().zip(weights).map(term).sum::<f64>()
    };
    // 99.99 % of chi-square with 7 degrees of freedom.
    const LIMIT: f64 = 29.9;
    for device in devices() {
        for (seed, inv_temperature) in [("1", 1.0), ("2", 0.5), ("3", 0.0)] {
            let options =
                parameters(&[("seed", seed)]).with("inv_temperature", &inv_temperature.to_string());
            let counts = drawn(&device, &logits, &options, DRAWS);
            let statistic = chi_square(&counts, inv_temperature);
            assert!(statistic < LIMIT, "{}: {counts:?} gives {statistic}", device.name());
            // The test tells distributions apart.
            assert!(chi_square(&counts, inv_temperature + 0.25) > LIMIT, "{}", device.name());
        }
    }
}

#[test]
fn draws_are_of_seed_and_position_and_of_nothing_else() {
    for device in devices() {
        let mut inputs = head::<f32>(40);
        let row = rows_of(&inputs["hidden"], 0, 1);
        let row = row.view().as_slice::<f32>().unwrap().to_vec();
        inputs.insert(
            "hidden".to_owned(),
            Tensor::from_slice(&row.repeat(40), &[40, HIDDEN]).unwrap(),
        );
        let mut draw = |positions: &[i32], seed: &str| {
            inputs.insert("positions".to_owned(), integers(positions));
            let options = parameters(&[("seed", seed), ("inv_temperature", "0.1")]);
            ints(&run(&device, "exit_head", &inputs, &options), "sampled_token")
        };
        let ascending: Vec<i32> = (0..40).collect();
        let descending: Vec<i32> = (0..40).rev().collect();
        let first = draw(&ascending, "1");
        let mut second = draw(&descending, "1");
        second.reverse();
        assert_eq!(first, second, "{}", device.name());
        assert_eq!(draw(&[3; 40], "1"), [first[3]; 40], "{}", device.name());
        for seed in ["2", "4294967297"] {
            assert_ne!(draw(&ascending, seed), first, "{}", device.name());
        }
    }
}

/// Rows of the weight more than 2^31 elements apart. The memory between them is never touched.
#[cfg(target_pointer_width = "64")]
#[test]
fn row_offsets_take_64_bits() {
    use siluette::{ExitHead, ExitHeadArgs, TensorMut, TensorRef, Workspace};
    const STRIDE: usize = (1 << 31) + 8;
    let mut bits = vec![0u16; 2 * STRIDE + 8];
    bits[2 * STRIDE] = bf16::from_f32(3.0).to_bits();
    let weight: &[bf16] = bytemuck::cast_slice(&bits);
    let weight = TensorRef::strided(weight, &[3, 8], &[STRIDE, 1]).unwrap();
    let hidden = [bf16::ONE; 8];
    let (mut token, mut logits) = ([7i32], [0f32; 3]);
    let args = ExitHeadArgs::new(TensorRef::new(&hidden, &[1, 8]).unwrap(), weight)
        .token(TensorMut::new(&mut token, &[1]).unwrap())
        .logits(TensorMut::new(&mut logits, &[1, 3]).unwrap());
    let op = ExitHead::new(8, 3, bf16::DTYPE).unwrap();
    Cpu::new().exit_head(&op, args, &mut Workspace::default()).unwrap();
    assert_eq!((token, logits), ([2], [0.0, 0.0, 3.0]));
}

#[test]
fn rows_may_have_seeds_of_their_own() {
    let mut inputs = head::<f32>(5);
    inputs.insert("positions".to_owned(), integers(&[7; 5]));
    let seeds = [3u64, 1 << 40, u64::MAX, 3, 81_985_529_216_486_895];
    let words: Vec<u32> =
        seeds.iter().flat_map(|&seed| [seed as u32, (seed >> 32) as u32]).collect();
    for device in devices() {
        inputs.insert("seeds".to_owned(), Tensor::from_slice(&words, &[5, 2]).unwrap());
        let got = run(&device, "exit_head", &inputs, &parameters(&[("seed", "4")]));
        inputs.remove("seeds");
        for (row, seed) in seeds.iter().enumerate() {
            let seed = seed.to_string();
            let want = run(&device, "exit_head", &inputs, &parameters(&[("seed", &seed)]));
            let [got, want] = [&got, &want].map(|outputs| ints(outputs, "sampled_token")[row]);
            assert_eq!(got, want, "seed {seed} on {}", device.name());
        }
    }
}
