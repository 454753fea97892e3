//! Blocks whose tokens select their neurons: against dense ones, what is not read, and what is refused.

use std::collections::BTreeMap;

use siluette::registry;
use siluette::{
    Backend, Cpu, DType, Device, Error, GatedMlp, GatedMlpArgs, Layout, Operation, Parameters,
    Problem, SparseGatedMlp, SparseGatedMlpArgs, Tensor, TensorMut, TensorRef, Workspace,
};

use crate::support::open;

const HIDDEN: usize = 40;
const FFN: usize = 72;

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
fn random(count: usize, scale: f64, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f64 / (1u64 << 30) as f64 - 1.0) * scale
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Lists of every other neuron and the like, of different lengths, empty ones among them.
fn lists(rows: usize) -> Vec<Vec<u32>> {
    let list = |row: usize| match row % 4 {
        3 => Vec::new(),
        _ => (0..FFN as u32).filter(|j| (*j as usize + row).is_multiple_of(row % 4 + 2)).collect(),
    };
    (0..rows).map(list).collect()
}

/// A block's tensors, in f64 until they are needed.
#[derive(Clone)]
struct Block {
    rows: usize,
    dtype: DType,
    x: Vec<f64>,
    gate: Vec<f64>,
    up: Vec<f64>,
    /// `[F, d]`.
    down: Vec<f64>,
    lists: Option<Vec<Vec<u32>>>,
    transposed_down: bool,
    batch_invariant: bool,
}

impl Block {
    fn new(rows: usize, dtype: DType) -> Block {
        Block {
            rows,
            dtype,
            x: random(rows * HIDDEN, 1.0, 1),
            gate: random(FFN * HIDDEN, 0.3, 2),
            up: random(FFN * HIDDEN, 0.3, 3),
            down: random(FFN * HIDDEN, 0.3, 4),
            lists: None,
            transposed_down: false,
            batch_invariant: false,
        }
    }

    fn tensor(&self, shape: [usize; 2], values: &[f64]) -> Tensor {
        Tensor::from_f64(layout(self.dtype, &shape), values.iter().copied())
    }

    fn down_tensor(&self, transposed: bool) -> Tensor {
        if transposed {
            return self.tensor([FFN, HIDDEN], &self.down);
        }
        let columns = (0..HIDDEN).flat_map(|c| (0..FFN).map(move |j| j * HIDDEN + c));
        let values: Vec<f64> = columns.map(|index| self.down[index]).collect();
        self.tensor([HIDDEN, FFN], &values)
    }

    /// By lists if there are any, else by threshold.
    fn run(&self, device: &Device, threshold: f32) -> Vec<f64> {
        let op = match &self.lists {
            Some(_) => SparseGatedMlp::by_lists(HIDDEN, FFN, self.dtype),
            None => SparseGatedMlp::by_threshold(HIDDEN, FFN, self.dtype, threshold),
        };
        let op = op
            .unwrap()
            .with_transposed_down(self.transposed_down)
            .with_batch_invariance(self.batch_invariant);
        let x = self.tensor([self.rows, HIDDEN], &self.x);
        let gate = self.tensor([FFN, HIDDEN], &self.gate);
        let up = self.tensor([FFN, HIDDEN], &self.up);
        let down = self.down_tensor(self.transposed_down);
        let mut out = Tensor::zeros(layout(self.dtype, &[self.rows, HIDDEN]));
        let mut args = SparseGatedMlpArgs::new(&x, &gate, &up, &down, &mut out);
        let (mut neurons, mut offsets) = (Vec::<u32>::new(), vec![0u32]);
        for list in self.lists.iter().flatten() {
            neurons.extend(list);
            offsets.push(neurons.len() as u32);
        }
        let neurons = Tensor::from_slice(&neurons, &[neurons.len()]).unwrap();
        let offsets = Tensor::from_slice(&offsets, &[offsets.len()]).unwrap();
        if self.lists.is_some() {
            args = args.neurons(&neurons).neuron_offsets(&offsets);
        }
        device.run(&op, args).unwrap();
        out.view().to_f64()
    }

    fn run_dense(&self, device: &Device) -> Vec<f64> {
        let op = GatedMlp::new(HIDDEN, FFN, self.dtype).unwrap();
        let x = self.tensor([self.rows, HIDDEN], &self.x);
        let gate = self.tensor([FFN, HIDDEN], &self.gate);
        let up = self.tensor([FFN, HIDDEN], &self.up);
        let down = self.down_tensor(false);
        let mut out = Tensor::zeros(layout(self.dtype, &[self.rows, HIDDEN]));
        device.run(&op, GatedMlpArgs::new(&x, &gate, &up, &down, &mut out)).unwrap();
        out.view().to_f64()
    }

    /// The tokens of a range by themselves.
    fn tokens(&self, range: std::ops::Range<usize>) -> Block {
        Block {
            rows: range.len(),
            x: self.x[range.start * HIDDEN..range.end * HIDDEN].to_vec(),
            lists: self.lists.as_ref().map(|lists| lists[range].to_vec()),
            ..self.clone()
        }
    }
}

/// Rows on both sides of where GPUs turn to dense projections.
const ROWS: [usize; 4] = [1, 5, 8, 20];

#[test]
fn a_threshold_of_zero_and_lists_of_all_are_the_dense_block() {
    let all: Vec<u32> = (0..FFN as u32).collect();
    for device in devices() {
        for dtype in DType::FLOATS {
            // Two roundings of h and out, to either side.
            let bound = 4.0 * dtype.epsilon().unwrap() + 1e-5;
            for (rows, transposed_down) in ROWS.into_iter().flat_map(|n| [(n, false), (n, true)]) {
                let block = Block { transposed_down, ..Block::new(rows, dtype) };
                let dense = block.run_dense(&device);
                let listed = Block { lists: Some(vec![all.clone(); rows]), ..block.clone() };
                for got in [block.run(&device, 0.0), listed.run(&device, 0.0)] {
                    for (got, want) in got.iter().zip(&dense) {
                        let close = (got - want).abs() <= bound * (1.0 + want.abs());
                        assert!(close, "{}: {dtype} {rows} rows: {got} {want}", device.name());
                    }
                }
            }
        }
    }
}

/// Neurons that no token selects may hold anything where their weights are not read.
#[test]
fn weights_of_neurons_that_are_not_selected_are_not_read() {
    for device in devices() {
        for rows in [1, 5, 8] {
            let clean = Block { transposed_down: true, ..Block::new(rows, DType::BF16) };
            let third: Vec<u32> = (0..FFN as u32).filter(|j| j % 3 == 0).collect();
            let listed = Block { lists: Some(vec![third; rows]), ..clean.clone() };
            let mut poisoned = listed.clone();
            for j in (0..FFN).filter(|j| j % 3 != 0) {
                for weight in [&mut poisoned.gate, &mut poisoned.up, &mut poisoned.down] {
                    weight[j * HIDDEN..(j + 1) * HIDDEN].fill(f64::NAN);
                }
            }
            let name = device.name();
            assert_eq!(poisoned.run(&device, 0.0), listed.run(&device, 0.0), "{name}: {rows} rows");

            let mut poisoned = clean.clone();
            let mut quiet = clean;
            for block in [&mut poisoned, &mut quiet] {
                for j in (0..FFN).filter(|j| j % 3 != 0) {
                    // So far from the threshold that no rounding matters.
                    block.gate[j * HIDDEN..(j + 1) * HIDDEN].fill(1e-4);
                }
            }
            for j in (0..FFN).filter(|j| j % 3 != 0) {
                for weight in [&mut poisoned.up, &mut poisoned.down] {
                    weight[j * HIDDEN..(j + 1) * HIDDEN].fill(f64::NAN);
                }
            }
            let (got, want) = (poisoned.run(&device, 0.01), quiet.run(&device, 0.01));
            assert!(want.iter().all(|value| value.is_finite()) && want.iter().any(|&y| y != 0.0));
            assert_eq!(got, want, "{name}: {rows} rows");
        }
    }
}

/// `>`, not `>=`: an activation of exactly 0 is not above a threshold of 0, and its `up` is not looked at.
#[test]
fn a_neuron_at_the_threshold_is_not_selected() {
    for device in devices() {
        for rows in ROWS {
            let mut block = Block { transposed_down: true, ..Block::new(rows, DType::F32) };
            block.gate[7 * HIDDEN..8 * HIDDEN].fill(0.0);
            let want = block.run(&device, 0.0);
            block.up[7 * HIDDEN..8 * HIDDEN].fill(f64::NAN);
            assert_eq!(block.run(&device, 0.0), want, "{}: {rows} rows", device.name());
        }
    }
}

/// What is not a number exceeds every threshold: it reaches its token's result, and no other.
#[test]
fn nan_is_not_silently_dropped() {
    for device in devices() {
        for dtype in DType::FLOATS {
            for (rows, transposed_down) in ROWS.into_iter().flat_map(|n| [(n, false), (n, true)]) {
                let mut block = Block { transposed_down, ..Block::new(rows, dtype) };
                let bad = rows / 2;
                block.x[bad * HIDDEN + 3] = f64::NAN;
                for threshold in [0.0, 1e30] {
                    let out = block.run(&device, threshold);
                    for (row, out) in out.chunks(HIDDEN).enumerate() {
                        let nan = out.iter().filter(|value| value.is_nan()).count();
                        let want = if row == bad { HIDDEN } else { 0 };
                        assert_eq!(nan, want, "{}: {dtype}, {rows} rows, {row}", device.name());
                    }
                }
            }
        }
    }
}

/// To the bit, where the same kernels run: another token's list is none of a token's business.
#[test]
fn a_token_does_not_depend_on_other_tokens_lists() {
    for device in devices() {
        for rows in ROWS {
            for transposed_down in [false, true] {
                let block = Block { transposed_down, ..Block::new(rows, DType::BF16) };
                let mine = Block { lists: Some(lists(rows)), ..block };
                let mut others = mine.clone();
                for (row, list) in others.lists.as_mut().unwrap().iter_mut().enumerate() {
                    if row != rows / 2 {
                        *list = (0..FFN as u32).filter(|j| (*j as usize + row) % 7 < 3).collect();
                    }
                }
                let row = rows / 2 * HIDDEN..(rows / 2 + 1) * HIDDEN;
                let (got, want) = (others.run(&device, 0.0), mine.run(&device, 0.0));
                assert_eq!(got[row.clone()], want[row], "{}: {rows} rows", device.name());
            }
        }
    }
}

#[test]
fn batch_invariant_blocks_keep_their_promise() {
    for device in devices() {
        for transposed_down in [false, true] {
            for listed in [false, true] {
                let base =
                    Block { batch_invariant: true, transposed_down, ..Block::new(40, DType::F16) };
                let block = Block { lists: listed.then(|| lists(40)), ..base };
                let together = block.run(&device, 0.05);
                for range in [0..1, 1..3, 7..8, 10..19, 39..40] {
                    let alone = block.tokens(range.clone()).run(&device, 0.05);
                    let rows = range.start * HIDDEN..range.end * HIDDEN;
                    assert_eq!(alone, together[rows], "{}: rows {range:?}", device.name());
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
fn descriptors_refuse_thresholds_that_are_none() {
    for threshold in [-0.5, f32::NAN, f32::INFINITY] {
        let error = SparseGatedMlp::by_threshold(8, 4, DType::F32, threshold).unwrap_err();
        assert_named(error, "threshold", Problem::Value);
    }
    let by_threshold = |threshold| SparseGatedMlp::by_threshold(8, 4, DType::F32, threshold);
    assert_eq!(by_threshold(-0.0).unwrap(), by_threshold(0.0).unwrap());
    assert_named(SparseGatedMlp::by_lists(0, 4, DType::F32).unwrap_err(), "hidden", Problem::Value);
    assert_named(SparseGatedMlp::by_lists(8, 4, DType::I32).unwrap_err(), "dtype", Problem::DType);
}

fn layouts() -> SparseGatedMlpArgs<Layout, Layout> {
    let float = |shape: &[usize]| layout(DType::F32, shape);
    let x = float(&[2, 6]);
    SparseGatedMlpArgs::new(x, float(&[3, 6]), float(&[3, 6]), float(&[6, 3]), x)
}

#[test]
fn shapes_and_selections() {
    let by_threshold = SparseGatedMlp::by_threshold(6, 3, DType::F32, 0.1).unwrap();
    let by_lists = SparseGatedMlp::by_lists(6, 3, DType::F32).unwrap();
    let index = |length| layout(DType::U32, &[length]);
    let listed = layouts().neurons(index(5)).neuron_offsets(index(3));
    by_threshold.validate(&layouts()).unwrap();
    by_lists.validate(&listed).unwrap();
    let refused = |op: SparseGatedMlp, args, argument, problem| {
        assert_named(op.validate(&args).unwrap_err(), argument, problem);
    };
    refused(by_threshold, listed, "neurons", Problem::Unexpected);
    let only_offsets = layouts().neuron_offsets(index(3));
    refused(by_threshold, only_offsets, "neuron_offsets", Problem::Unexpected);
    refused(by_lists, layouts(), "neurons", Problem::Missing);
    refused(by_lists, layouts().neurons(index(5)), "neuron_offsets", Problem::Missing);
    refused(by_lists, listed.neuron_offsets(index(2)), "neuron_offsets", Problem::Shape);
    refused(by_lists, listed.neurons(layout(DType::I32, &[5])), "neurons", Problem::DType);
    refused(by_lists, listed.neurons(layout(DType::U32, &[5, 1])), "neurons", Problem::Shape);
    let mut args = layouts();
    args.down_weight = layout(DType::F32, &[3, 6]);
    refused(by_threshold, args, "down_weight", Problem::Shape);
    by_threshold.with_transposed_down(true).validate(&args).unwrap();
    refused(by_threshold.with_transposed_down(true), layouts(), "down_weight", Problem::Shape);
    let mut args = layouts();
    args.up_weight = layout(DType::F32, &[6, 3]);
    refused(by_threshold, args, "up_weight", Problem::Shape);
    let norm = layout(DType::F32, &[6]);
    refused(by_threshold, layouts().norm_weight(norm), "norm_weight", Problem::Unexpected);
    refused(by_threshold.with_norm(1e-5).unwrap(), layouts(), "norm_weight", Problem::Missing);
}

#[test]
fn neurons_are_selected_in_one_way() {
    let info = registry::find("sparse_gated_mlp").unwrap();
    let float = |shape: &[usize]| Tensor::zeros(layout(DType::F32, shape));
    let inputs = BTreeMap::from([
        ("x".to_owned(), float(&[1, 6])),
        ("gate_weight".to_owned(), float(&[3, 6])),
        ("up_weight".to_owned(), float(&[3, 6])),
        ("down_weight".to_owned(), float(&[6, 3])),
    ]);
    let mut listed = inputs.clone();
    listed.insert("neurons".into(), Tensor::from_slice(&[0u32, 2], &[2]).unwrap());
    listed.insert("neuron_offsets".into(), Tensor::from_slice(&[0u32, 2], &[2]).unwrap());
    let threshold = Parameters::new().with("threshold", "0.5");
    info.prepare(inputs.clone(), &threshold).map(|_| ()).unwrap();
    info.prepare(listed.clone(), &Parameters::new()).map(|_| ()).unwrap();
    let refused = |inputs, parameters: &Parameters| info.prepare(inputs, parameters).err().unwrap();
    assert_named(refused(inputs.clone(), &Parameters::new()), "threshold", Problem::Missing);
    assert_named(refused(listed, &threshold), "threshold", Problem::Unexpected);
    for text in ["-1", "nan", "inf", "much"] {
        let error = refused(inputs.clone(), &Parameters::new().with("threshold", text));
        assert_named(error, "threshold", Problem::Value);
    }
}

/// Lists out of order or range: each is named with its position, and nothing is written.
#[test]
fn bad_lists_are_refused_before_anything_is_written() {
    let op = SparseGatedMlp::by_lists(6, 3, DType::F32).unwrap();
    let (x, weights) = ([1.0f32; 12], [0.5f32; 18]);
    for (neurons, offsets, argument, words) in [
        ([0u32, 1, 3], [0u32, 1, 3], "neurons", "3 at position 2"),
        ([0, 2, 1], [0, 1, 3], "neurons", "1 at position 2"),
        ([1, 1, 2], [0, 3, 3], "neurons", "1 at position 1"),
        ([0, 1, 2], [1, 2, 3], "neuron_offsets", "1 at position 0"),
        ([0, 1, 2], [0, 4, 3], "neuron_offsets", "4 at position 1"),
        ([0, 1, 2], [0, 2, 2], "neuron_offsets", "2 at position 2"),
    ] {
        for reference in [false, true] {
            let mut out = [7.0f32; 12];
            let args = SparseGatedMlpArgs::new(
                TensorRef::new(&x, &[2, 6]).unwrap(),
                TensorRef::new(&weights, &[3, 6]).unwrap(),
                TensorRef::new(&weights, &[3, 6]).unwrap(),
                TensorRef::new(&weights, &[6, 3]).unwrap(),
                TensorMut::new(&mut out, &[2, 6]).unwrap(),
            )
            .neurons(TensorRef::new(&neurons, &[3]).unwrap())
            .neuron_offsets(TensorRef::new(&offsets, &[3]).unwrap());
            let error = if reference {
                op.run_reference(args).unwrap_err()
            } else {
                Cpu::new().sparse_gated_mlp(&op, args, &mut Workspace::default()).unwrap_err()
            };
            assert!(error.to_string().contains(words), "{error}");
            assert_named(error, argument, Problem::Value);
            assert_eq!(out, [7.0; 12]);
        }
    }
}
