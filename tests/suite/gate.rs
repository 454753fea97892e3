//! The exit gate, the rows that move with it and the cache behind a verification: results worked out by hand, on every
//! backend, and what is refused.

use siluette::device::NamedTensors;
use siluette::{
    CommitCache, CommitCacheArgs, CommitStatus, CompactRows, CompactRowsArgs, Cpu, DType, ExitGate,
    ExitGateArgs, ExitThresholds, Layout, Operation, Problem, Require, ScatterRows,
    ScatterRowsArgs, Tensor, TensorMut, TensorRef, registry,
};

use crate::support::{assert_refused, devices, integers, ints, parameters, run};

fn named<const N: usize>(tensors: [(&str, Tensor); N]) -> NamedTensors {
    tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap()
}

fn bytes(outputs: &NamedTensors, name: &str) -> Vec<u8> {
    outputs[name].view().span_bytes().to_vec()
}

fn layout(dtype: DType, shape: &[usize]) -> Layout {
    Layout::contiguous(dtype, shape).unwrap()
}

/// Which sequences go on, by statistics and thresholds, on every backend.
#[track_caller]
fn check_gate(inputs: &NamedTensors, thresholds: &[(&str, &str)], going: &[u8], order: &[i32]) {
    for device in devices() {
        let outputs = run(&device, "exit_gate", inputs, &parameters(thresholds));
        let name = device.name();
        assert_eq!(bytes(&outputs, "go_on"), going, "go_on on {name}");
        assert_eq!(ints(&outputs, "permutation"), order, "permutation on {name}");
        let count = going.iter().filter(|&&goes| goes != 0).count() as i32;
        assert_eq!(ints(&outputs, "go_on_count"), [count], "go_on_count on {name}");
    }
}

#[test]
fn what_reaches_its_threshold_exits() {
    const INF: f32 = f32::INFINITY;
    // Probabilities 1, 1/e, 1, none; margins to the second.
    let logits = named([
        ("max_logit", floats(&[2.0, 1.0, 2.0, f32::NAN, -INF])),
        ("log_sum_exp", floats(&[2.0, 2.0, 2.0, 2.0, -INF])),
    ]);
    check_gate(&logits, &[("max_prob", "1")], &[0, 1, 0, 1, 1], &[1, 3, 4, 0, 2]);
    check_gate(&logits, &[("max_prob", "0.36")], &[0, 0, 0, 1, 1], &[3, 4, 0, 1, 2]);
    let mut margins = logits.clone();
    margins.extend(named([("second_logit", floats(&[2.0, -INF, 1.0, 0.0, -INF]))]));
    check_gate(&margins, &[("margin", "0.5")], &[1, 1, 0, 1, 1], &[0, 1, 3, 4, 2]);
    check_gate(&margins, &[("margin", "0.3")], &[1, 0, 0, 1, 1], &[0, 3, 4, 1, 2]);
    let entropy = named([("entropy", floats(&[0.5, 0.25, f32::NAN, -INF, 0.75]))]);
    check_gate(&entropy, &[("entropy", "0.5")], &[0, 0, 1, 1, 1], &[2, 3, 4, 0, 1]);
}

#[test]
fn all_or_any_of_the_thresholds_decide() {
    let mut inputs = named([
        ("entropy", floats(&[0.0, 0.0, 1.0, 1.0, f32::NAN, 0.0])),
        ("classifier", floats(&[1.0, 0.0, 1.0, 0.0, 1.0, f32::NAN])),
    ]);
    let thresholds = [("entropy", "0.5"), ("classifier", "1")];
    check_gate(&inputs, &thresholds, &[0, 1, 1, 1, 1, 1], &[1, 2, 3, 4, 5, 0]);
    let any = [thresholds[0], thresholds[1], ("require", "any")];
    check_gate(&inputs, &any, &[0, 0, 0, 1, 0, 0], &[3, 0, 1, 2, 4, 5]);
    // Parallel, orthogonal, opposite, without direction, not a number, parallel.
    let hidden = [3.0, 4.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, f32::NAN, 1.0, -2.0, -2.0];
    let previous = [6.0, 8.0, 0.0, 2.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0];
    let states = |values: &[f32]| Tensor::from_slice(values, &[6, 2]).unwrap();
    inputs.extend(named([("hidden", states(&hidden)), ("previous_hidden", states(&previous))]));
    let cosine = [any[0], any[1], any[2], ("cosine", "0.99")];
    check_gate(&inputs, &cosine, &[0, 0, 0, 1, 0, 0], &[3, 0, 1, 2, 4, 5]);
    inputs.remove("entropy");
    inputs.remove("classifier");
    check_gate(&inputs, &[("cosine", "0.99")], &[0, 1, 1, 1, 1, 0], &[1, 2, 3, 4, 0, 5]);
    check_gate(&inputs, &[("cosine", "-1.01")], &[0, 0, 0, 1, 1, 0], &[3, 4, 0, 1, 2, 5]);
}

#[test]
fn gates_that_cannot_be_are_named() {
    let thresholds = |change: fn(&mut ExitThresholds)| {
        let mut thresholds = ExitThresholds::default();
        change(&mut thresholds);
        ExitGate::new(thresholds, Require::All)
    };
    assert_refused(thresholds(|_| {}), "thresholds", Problem::Missing);
    assert_refused(thresholds(|all| all.margin = Some(f32::NAN)), "margin", Problem::Value);
    assert_refused(thresholds(|all| all.cosine = Some(f32::INFINITY)), "cosine", Problem::Value);
    let op = thresholds(|all| {
        all.margin = Some(0.1);
        all.cosine = Some(0.9);
    });
    let op = op.unwrap();
    let (f32s, i32s) = (layout(DType::F32, &[3]), layout(DType::I32, &[3]));
    let states = layout(DType::F16, &[3, 8]);
    let good = ExitGateArgs::new(layout(DType::U8, &[3]), i32s, layout(DType::I32, &[1]));
    let good = good.max_logit(f32s).second_logit(f32s).log_sum_exp(f32s);
    let good = good.hidden(states).previous_hidden(states);
    op.validate(&good).unwrap();
    let refuse = |change: fn(&mut ExitGateArgs<Layout, Layout>), name, problem| {
        let mut args = good;
        change(&mut args);
        assert_refused(op.validate(&args), name, problem);
    };
    refuse(|args| args.second_logit = None, "second_logit", Problem::Missing);
    refuse(|args| args.previous_hidden = None, "previous_hidden", Problem::Missing);
    refuse(|args| args.entropy = args.max_logit, "entropy", Problem::Unexpected);
    refuse(|args| args.max_logit = args.hidden, "max_logit", Problem::DType);
    refuse(|args| args.log_sum_exp = Some(layout(DType::F32, &[4])), "log_sum_exp", Problem::Shape);
    refuse(|args| args.hidden = Some(layout(DType::F16, &[2, 8])), "hidden", Problem::Shape);
    refuse(|args| args.hidden = Some(layout(DType::I32, &[3, 8])), "hidden", Problem::DType);
    let name = "previous_hidden";
    refuse(|args| args.previous_hidden = Some(layout(DType::F16, &[3, 9])), name, Problem::Shape);
    refuse(|args| args.previous_hidden = Some(layout(DType::F32, &[3, 8])), name, Problem::DType);
    refuse(|args| args.go_on = layout(DType::U8, &[3, 1]), "go_on", Problem::Shape);
    refuse(|args| args.permutation = layout(DType::U32, &[3]), "permutation", Problem::DType);
    refuse(|args| args.go_on_count = layout(DType::I32, &[3]), "go_on_count", Problem::Shape);
}

#[test]
fn rows_go_and_come_back() {
    let rows: Vec<f32> = (0..6).map(|index| index as f32).collect();
    let x = Tensor::from_slice(&rows, &[3, 2]).unwrap();
    for device in devices() {
        let name = device.name();
        let list = integers(&[2, -1, 0, 3, 1]);
        let inputs = named([("x", x.clone()), ("permutation", list), ("count", integers(&[4]))]);
        let outputs = run(&device, "compact_rows", &inputs, &parameters(&[]));
        let compacted: &[f32] = outputs["compacted"].view().as_slice().unwrap();
        assert_eq!(compacted, [4.0, 5.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], "{name}");

        let destination = Tensor::from_slice(&[9.0f32; 8], &[4, 2]).unwrap();
        let inputs = named([
            ("rows", x.clone()),
            ("permutation", integers(&[3, -1, 1])),
            ("destination", destination),
        ]);
        let outputs = run(&device, "scatter_rows", &inputs, &parameters(&[]));
        let destination: &[f32] = outputs["destination"].view().as_slice().unwrap();
        assert_eq!(destination, [9.0, 9.0, 4.0, 5.0, 9.0, 9.0, 0.0, 1.0], "{name}");
    }
}

#[test]
fn the_order_of_a_gate_brings_every_row_back() {
    const ROWS: usize = 37;
    let scores: Vec<f32> = (0..ROWS).map(|row| (row * 7 % 5) as f32).collect();
    let states: Vec<f32> = (0..ROWS * 3).map(|index| (index * 31 % 101) as f32).collect();
    for device in devices() {
        let gate = named([("classifier", floats(&scores))]);
        let gate = run(&device, "exit_gate", &gate, &parameters(&[("classifier", "2")]));
        let states = Tensor::from_slice(&states, &[ROWS, 3]).unwrap();
        let inputs = named([
            ("x", states.clone()),
            ("permutation", gate["permutation"].clone()),
            ("count", gate["go_on_count"].clone()),
        ]);
        let compacted = run(&device, "compact_rows", &inputs, &parameters(&[]));
        // Only those that went on come back; the others were there all along.
        let mut destination = states.clone();
        for (row, &goes) in bytes(&gate, "go_on").iter().enumerate().filter(|(_, goes)| **goes != 0)
        {
            assert!(goes == 1 && scores[row] < 2.0);
            destination.span_bytes_mut()[row * 12..][..12].fill(0);
        }
        let inputs = named([
            ("rows", compacted["compacted"].clone()),
            ("permutation", gate["permutation"].clone()),
            ("count", gate["go_on_count"].clone()),
            ("destination", destination),
        ]);
        let back = run(&device, "scatter_rows", &inputs, &parameters(&[]));
        assert_eq!(back["destination"], states, "{}", device.name());
    }
}

#[test]
fn rows_that_cannot_move_are_named_and_left_alone() {
    assert_refused(CompactRows::new(1 << 31, DType::F32), "features", Problem::Size);
    assert_refused(ScatterRows::new(4, DType::U8), "dtype", Problem::DType);
    let op = CompactRows::new(4, DType::BF16).unwrap();
    let (x, list) = (layout(DType::BF16, &[3, 4]), layout(DType::I32, &[2]));
    let good = CompactRowsArgs::new(x, list, layout(DType::BF16, &[2, 4]));
    op.validate(&good).unwrap();
    let refuse = |change: fn(&mut CompactRowsArgs<Layout, Layout>), name, problem| {
        let mut args = good;
        change(&mut args);
        assert_refused(op.validate(&args), name, problem);
    };
    refuse(|args| args.x = layout(DType::BF16, &[3, 5]), "x", Problem::Shape);
    refuse(|args| args.x = layout(DType::F16, &[3, 4]), "x", Problem::DType);
    refuse(|args| args.permutation = layout(DType::U32, &[2]), "permutation", Problem::DType);
    refuse(|args| args.permutation = layout(DType::I32, &[2, 1]), "permutation", Problem::Shape);
    refuse(|args| args.count = Some(layout(DType::I32, &[2])), "count", Problem::Shape);
    refuse(|args| args.compacted = layout(DType::BF16, &[3, 4]), "compacted", Problem::Shape);
    let overlapping = |args: &mut CompactRowsArgs<Layout, Layout>| {
        args.compacted = Layout::strided(DType::BF16, &[2, 4], &[3, 1]).unwrap();
    };
    refuse(overlapping, "compacted", Problem::Stride);

    let rows = [1.0f32; 6];
    let mut destination = [7.0f32; 8];
    let permutation = [1, -5, 1];
    let args = ScatterRowsArgs::new(
        TensorRef::new(&rows, &[3, 2]).unwrap(),
        TensorRef::new(&permutation, &[3]).unwrap(),
        TensorMut::new(&mut destination, &[4, 2]).unwrap(),
    );
    let op = ScatterRows::new(2, DType::F32).unwrap();
    let error = Cpu::new().scatter_rows(&op, args).unwrap_err().to_string();
    assert!(error.contains("permutation has value 1 at position 2 again"), "{error}");
    assert_eq!(destination, [7.0; 8]);
}

#[test]
fn what_is_updated_must_be_given() {
    let info = registry::find("scatter_rows").unwrap();
    let rows = Tensor::from_slice(&[0.0f32; 2], &[1, 2]).unwrap();
    let inputs = named([("rows", rows), ("permutation", integers(&[0]))]);
    let error = info.prepare(inputs, &parameters(&[])).err().unwrap();
    assert_eq!(error.problem(), Some(Problem::Missing));
    assert!(error.to_string().contains("destination"), "{error}");
}

/// Two groups of sequences with eight positions each, whose rows say where they are: group, sequence, position.
fn cache(sequences: usize) -> Vec<f32> {
    let rows = (0..2 * sequences * 8).flat_map(|row| {
        let number = (row / (sequences * 8) * 100 + row / 8 % sequences * 10 + row % 8) as f32;
        [number, -number]
    });
    rows.collect()
}

const FINE: i32 = CommitStatus::Fine as i32;
const FULL: i32 = CommitStatus::Full as i32;
const NO_PAGE: i32 = CommitStatus::NoPage as i32;
const MALFORMED: i32 = CommitStatus::Malformed as i32;

#[test]
fn accepted_rows_move_and_nothing_else_does() {
    let initial = cache(5);
    // Two rows move; none has to; too many; a path that stays where it is; a path that is too short.
    let inputs = named([
        ("length", integers(&[1, 2, 6, 1, 0])),
        ("emitted", integers(&[4, 3, 3, 3, 4])),
        ("cache", Tensor::from_slice(&initial, &[2, 5, 8, 2]).unwrap()),
        (
            "path",
            Tensor::from_slice(&[0, 2, 4, 0, 1, -1, 0, 1, -1, 1, 1, -1, 0, 1, -1], &[5, 3])
                .unwrap(),
        ),
    ]);
    let mut expected = initial.clone();
    for group in 0..2 {
        for (to, from) in [(3, 4), (4, 6)] {
            let row = |position: usize| (group * 40 + position) * 2;
            expected.copy_within(row(from)..row(from) + 2, row(to));
        }
    }
    // What moved was read before it was overwritten.
    let read = |row: usize| initial[row * 2..][..2].to_vec();
    expected[6..10].copy_from_slice(&[read(4), read(6)].concat());
    for device in devices() {
        let name = device.name();
        let outputs = run(&device, "commit_cache", &inputs, &parameters(&[]));
        assert_eq!(ints(&outputs, "status"), [FINE, FINE, FULL, MALFORMED, MALFORMED], "{name}");
        assert_eq!(ints(&outputs, "committed_length"), [5, 5, 6, 1, 0], "{name}");
        let cache: &[f32] = outputs["cache"].view().as_slice().unwrap();
        assert_eq!(cache, expected, "{name}");
    }
}

#[test]
fn pages_behind_the_length_are_freed() {
    // Pages of 4 positions. Three are left over, one is not there; all are needed; the last is missing; too long; empty.
    let table = [9, 3, -1, 5, 1, 2, 4, 6, 7, 8, 0, -1, 11, 12, 13, 14, 15, 16, 17, 18];
    let inputs = named([
        ("length", integers(&[3, 15, 11, 16, 0])),
        ("emitted", integers(&[1, 1, 2, 1, 0])),
        ("page_table", Tensor::from_slice(&table, &[5, 4]).unwrap()),
    ]);
    for device in devices() {
        let name = device.name();
        let outputs = run(&device, "commit_cache", &inputs, &parameters(&[("page_size", "4")]));
        assert_eq!(ints(&outputs, "status"), [FINE, FINE, NO_PAGE, FULL, FINE], "{name}");
        assert_eq!(ints(&outputs, "committed_length"), [4, 16, 11, 16, 0], "{name}");
        assert_eq!(ints(&outputs, "freed_count"), [2, 0, 0, 0, 4], "{name}");
        let none = [-1; 4];
        let freed = [[3, 5, -1, -1], none, none, none, [15, 16, 17, 18]].concat();
        assert_eq!(ints(&outputs, "freed_pages"), freed, "{name}");
    }
}

#[test]
fn numbers_at_the_ends_of_their_range_are_malformed_or_too_long() {
    let inputs = named([
        ("length", integers(&[i32::MAX, i32::MIN, 1, -1, i32::MAX])),
        ("emitted", integers(&[i32::MAX, 1, i32::MIN, 0, 0])),
    ]);
    for device in devices() {
        let outputs = run(&device, "commit_cache", &inputs, &parameters(&[("capacity", "100")]));
        assert_eq!(ints(&outputs, "status"), [FULL, MALFORMED, MALFORMED, MALFORMED, FULL]);
        let lengths = [i32::MAX, i32::MIN, 1, -1, i32::MAX];
        assert_eq!(ints(&outputs, "committed_length"), lengths, "{}", device.name());
    }
}

#[test]
fn caches_that_do_not_fit_are_named() {
    assert_refused(CommitCache::new(1 << 31), "capacity", Problem::Size);
    let op = CommitCache::new(12).unwrap();
    assert_refused(op.with_pages(0), "page_size", Problem::Value);
    assert_refused(op.with_pages(5), "page_size", Problem::Value);
    let numbers = layout(DType::I32, &[3]);
    let chains = CommitCacheArgs::new(numbers, numbers, numbers, numbers);
    op.validate(&chains).unwrap();
    let trees = chains.path(layout(DType::I32, &[3, 4])).cache(layout(DType::F16, &[2, 3, 12, 8]));
    op.validate(&trees).unwrap();
    let paged = op.with_pages(4).unwrap();
    let pages =
        trees.page_table(layout(DType::I32, &[3, 3])).cache(layout(DType::F16, &[2, 7, 4, 8]));
    paged.validate(&pages.freed_pages(layout(DType::I32, &[3, 3]))).unwrap();
    let refuse = |op: CommitCache, args, name, problem| {
        assert_refused(op.validate(&args), name, problem);
    };
    refuse(op, pages, "page_table", Problem::Unexpected);
    refuse(paged, trees, "page_table", Problem::Missing);
    refuse(op, chains.path(layout(DType::I32, &[3, 4])), "path", Problem::Unexpected);
    refuse(op, chains.cache(layout(DType::F16, &[2, 3, 12, 8])), "path", Problem::Missing);
    refuse(op, chains.freed_count(numbers), "freed_count", Problem::Unexpected);
    refuse(op, trees.cache(layout(DType::F16, &[2, 3, 11, 8])), "cache", Problem::Shape);
    refuse(op, trees.cache(layout(DType::F16, &[3, 12, 8])), "cache", Problem::Shape);
    refuse(op, trees.cache(layout(DType::I32, &[2, 3, 12, 8])), "cache", Problem::DType);
    refuse(paged, pages.cache(layout(DType::F16, &[2, 7, 3, 8])), "cache", Problem::Shape);
    refuse(paged, pages.page_table(layout(DType::I32, &[3, 4])), "page_table", Problem::Shape);
    let mut short = chains;
    short.emitted = layout(DType::I32, &[2]);
    refuse(op, short, "emitted", Problem::Shape);
}
