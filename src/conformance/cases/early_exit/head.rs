//! Cases of the heads and of the merge of their states.

use crate::conformance::cases::silu_mlp::epsilon;
use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::operation::NamedLayouts;
use crate::ops::silu_mlp::MLP_DTYPES;
use crate::parameters::Parameters;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for states in [false, true] {
        let mut all = Vec::new();
        shapes(&mut all, states);
        options(&mut all, states);
        values(&mut all, states);
        // States come from the same kernels, which end otherwise: a third of the cases, of every type.
        cases.extend(all.into_iter().step_by(if states { 3 } else { 1 }));
        many_rows(&mut cases, states);
    }
    merges(&mut cases);
    benches(&mut cases);
    cases
}

/// Batches that need not be invariant, for kernels of many rows: tiles of 128 rows, and of 256 ids at once.
fn many_rows(cases: &mut Vec<Case>, states: bool) {
    for dtype in [DType::F16, DType::BF16] {
        let case = |shape| HeadCase {
            batch_invariant: false,
            ..HeadCase::new(states, shape, (dtype, dtype))
        };
        let all = HeadCase {
            norm: true,
            bias: Some(Fill::Normal { scale: 1.0 }),
            selected: Some(131),
            sampling: Some("0.8"),
            gather: true,
            logits: true,
            top_k: 5,
            gap: 8,
            ..case([140, 72, 385])
        };
        // Whole numbers whose sums are exact.
        let few = Fill::Integers { from: -1, below: 2 };
        let ties = HeadCase { x: few, weight: Some(few), ..case([129, 40, 300]) };
        let variants = [
            case([128, 64, 256]),
            HeadCase { top_k: 3, ..case([257, 8, 100]) },
            HeadCase { sampling: Some("1"), softcap: true, logits: true, ..case([131, 328, 200]) },
            HeadCase { gather: true, logits: true, top_k: 9, ..ties },
            // Whole tiles are masked, and all but the first of one.
            HeadCase { vocab_offset: 1_024, valid_vocab: Some(1_153), ..all },
            // The last: what is captured into a graph.
            all,
        ];
        cases.extend(variants.map(|case| case.build("")));
    }
}

/// The tolerance of any inputs, or `None` for other operations.
pub(super) fn tolerance(op: &str, inputs: &NamedLayouts) -> Option<Tolerance> {
    match op {
        "exit_head" | "exit_head_states" => {
            let hidden = inputs.get("hidden")?;
            let norm = inputs.contains_key("norm_weight");
            Some(head_tolerance(hidden.dtype(), norm, hidden.columns()))
        }
        "merge_exit_states" => Some(head_tolerance(DType::F32, false, 0)),
        _ => None,
    }
}

/// Sums of `n` products in f32 err by `sqrt(n)` rounding errors at random; `exp` by 17 ulp, `log` by 2^-21 (both
/// lavapipe), terms of which weigh as much as a logit of magnitude 1. A normalised activation may fall on the other side
/// of a tie. The mean square over a few rows is no sharper than its worst element.
fn head_tolerance(activation: DType, norm: bool, longest_sum: usize) -> Tolerance {
    let sum = (24.0 + (longest_sum as f64).sqrt()) * f64::from(f32::EPSILON);
    let inner = sum + if norm { epsilon(activation) } else { 0.0 };
    let outer = 2.0 * f64::from(f32::EPSILON);
    Tolerance::Rounded { inner, outer, nmse: (100.0 * inner).powi(2) }
}

/// What a case varies.
#[derive(Clone, Copy)]
struct HeadCase {
    states: bool,
    rows: usize,
    hidden: usize,
    vocabulary: usize,
    dtypes: (DType, DType),
    x: Fill,
    weight: Option<Fill>,
    gap: usize,
    norm: bool,
    bias: Option<Fill>,
    /// Rows that are selected, of `rows`, some of which are none.
    selected: Option<usize>,
    sampling: Option<&'static str>,
    gather: bool,
    logits: bool,
    softcap: bool,
    top_k: usize,
    valid_vocab: Option<usize>,
    vocab_offset: usize,
    batch_invariant: bool,
    purpose: Purpose,
}

impl HeadCase {
    fn new(states: bool, [rows, hidden, vocabulary]: [usize; 3], dtypes: (DType, DType)) -> Self {
        HeadCase {
            states,
            rows,
            hidden,
            vocabulary,
            dtypes,
            x: Fill::Normal { scale: 1.0 },
            weight: None,
            gap: 0,
            norm: false,
            bias: None,
            selected: None,
            sampling: None,
            gather: false,
            logits: false,
            softcap: false,
            top_k: 0,
            valid_vocab: None,
            vocab_offset: 0,
            batch_invariant: true,
            purpose: Purpose::Conformance,
        }
    }

    fn build(&self, label: &str) -> Case {
        let (activation, weight) = self.dtypes;
        Case {
            op: if self.states { "exit_head_states" } else { "exit_head" },
            name: self.name(label),
            dtype: if activation == weight {
                activation.name().to_owned()
            } else {
                format!("{activation}/{weight}")
            },
            purpose: self.purpose,
            tensors: self.tensors(),
            parameters: self.parameters(),
            output_gap: self.gap,
            tolerance: head_tolerance(activation, self.norm, self.hidden),
        }
    }

    fn name(&self, label: &str) -> String {
        let mut name =
            format!("rows={} hidden={} vocabulary={}", self.rows, self.hidden, self.vocabulary);
        let number = |name: &str, value: usize| (value > 0).then(|| format!("{name}={value}"));
        let options = [
            number("gap", self.gap),
            self.norm.then(|| "norm".to_owned()),
            self.bias.map(|_| "bias".to_owned()),
            self.selected.map(|count| format!("selected={count}")),
            self.sampling.map(|value| format!("inv_temperature={value}")),
            self.gather.then(|| "gather".to_owned()),
            self.logits.then(|| "logits".to_owned()),
            self.softcap.then(|| "softcap".to_owned()),
            number("top_k", self.top_k),
            self.valid_vocab.map(|valid| format!("valid={valid}")),
            number("offset", self.vocab_offset),
            (!self.batch_invariant).then(|| "not_invariant".to_owned()),
            (!label.is_empty()).then(|| label.to_owned()),
        ];
        for option in options.into_iter().flatten() {
            name.push(' ');
            name.push_str(&option);
        }
        name
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let (activation, weight) = self.dtypes;
        let (rows, hidden, vocabulary, gap) = (self.rows, self.hidden, self.vocabulary, self.gap);
        // Logits of a standard deviation of 3.
        let scale = 3.0 / (hidden as f64).sqrt();
        let head = self.weight.unwrap_or(Fill::Normal { scale });
        let spec = |name, dtype, shape: &[usize], gap, fill| TensorSpec {
            name,
            dtype,
            shape: shape.to_vec(),
            gap,
            fill,
        };
        let mut tensors = vec![
            spec("hidden", activation, &[rows, hidden], gap, self.x),
            spec("head_weight", weight, &[vocabulary, hidden], gap, head),
        ];
        if self.norm {
            let fill = Fill::AroundOne { scale: 0.2 };
            tensors.push(spec("norm_weight", weight, &[hidden], 0, fill));
        }
        if let Some(fill) = self.bias {
            tensors.push(spec("head_bias", weight, &[vocabulary], 0, fill));
        }
        let outputs = self.selected.unwrap_or(rows);
        // Every second size has seeds of its rows' own.
        if self.sampling.is_some() && (rows + vocabulary).is_multiple_of(2) {
            let fill = Fill::Integers { from: 0, below: i32::MAX };
            tensors.push(spec("seeds", DType::U32, &[outputs, 2], gap, fill));
        }
        let mut integers = |name, from: i64, below: usize| {
            let fill = Fill::Integers { from: from as i32, below: below as i32 };
            tensors.push(spec(name, DType::I32, &[outputs], 0, fill));
        };
        if self.selected.is_some() {
            integers("rows", -2, rows + 2);
        }
        if self.sampling.is_some() {
            integers("positions", 0, 1 << 20);
        }
        if self.gather {
            integers("gather_tokens", -1, self.vocab_offset + vocabulary + 1);
        }
        tensors
    }

    fn parameters(&self) -> Parameters {
        let options = [
            self.norm.then(|| ("eps", "1e-5".to_owned())),
            self.sampling.map(|value| ("inv_temperature", value.to_owned())),
            self.sampling.map(|_| ("seed", "81985529216486895".to_owned())),
            self.logits.then(|| ("logits", "true".to_owned())),
            self.softcap.then(|| ("softcap", "5".to_owned())),
            (self.top_k > 0).then(|| ("top_k", self.top_k.to_string())),
            self.valid_vocab.map(|valid| ("valid_vocab", valid.to_string())),
            (self.vocab_offset > 0).then(|| ("vocab_offset", self.vocab_offset.to_string())),
            (!self.batch_invariant).then(|| ("batch_invariant", "false".to_owned())),
        ];
        let options = options.into_iter().flatten();
        options.fold(Parameters::new(), |all, (name, value)| all.with(name, &value))
    }
}

fn shapes(cases: &mut Vec<Case>, states: bool) {
    // Tiles of 128 ids, one below and one above; batches of 8, 16 and 64 rows, one below and one above.
    const SHAPES: [[usize; 3]; 16] = [
        [0, 32, 64],
        [1, 1, 1],
        [1, 31, 33],
        [1, 512, 1_030],
        [2, 64, 127],
        [3, 33, 128],
        [4, 200, 129],
        [5, 1, 257],
        [7, 40, 31],
        [8, 96, 300],
        [9, 63, 255],
        [16, 80, 384],
        [17, 129, 385],
        [33, 64, 130],
        [64, 48, 200],
        [67, 72, 261],
    ];
    for shape in SHAPES {
        for dtypes in MLP_DTYPES {
            cases.push(HeadCase::new(states, shape, dtypes).build(""));
        }
    }
}

fn options(cases: &mut Vec<Case>, states: bool) {
    let bias = Some(Fill::Normal { scale: 1.0 });
    for shape in [[1, 72, 300], [5, 96, 700], [18, 65, 513]] {
        for dtypes in MLP_DTYPES {
            let base = HeadCase::new(states, shape, dtypes);
            let all = HeadCase {
                norm: true,
                bias,
                selected: Some(6),
                sampling: Some("0.8"),
                gather: true,
                logits: true,
                top_k: 5,
                ..base
            };
            let variants = [
                HeadCase { norm: true, ..base },
                HeadCase { bias, gather: true, ..base },
                HeadCase { selected: Some(9), ..base },
                HeadCase { sampling: Some("1"), ..base },
                HeadCase { sampling: Some("0"), logits: true, ..base },
                HeadCase { softcap: true, logits: true, ..base },
                HeadCase { top_k: 1, ..base },
                HeadCase { top_k: 64, ..base },
                // Whole tiles are masked, and all but the first of one.
                HeadCase { valid_vocab: Some(129), ..all },
                HeadCase { valid_vocab: Some(shape[2] - 1), ..all },
                HeadCase { valid_vocab: Some(0), ..all },
                HeadCase { vocab_offset: 1_024, valid_vocab: Some(1_280), ..all },
                HeadCase { gap: 1, ..all },
                HeadCase { gap: 8, softcap: true, ..all },
            ];
            cases.extend(variants.map(|case| case.build("")));
        }
    }
}

fn values(cases: &mut Vec<Case>, states: bool) {
    for rows in [1, 6, 20] {
        for dtypes in MLP_DTYPES {
            let base = HeadCase::new(states, [rows, 96, 600], dtypes);
            let all = HeadCase { gather: true, top_k: 9, logits: true, ..base };
            // Whole numbers whose sums are exact: ties by the dozen, within tiles and across them.
            let few = Fill::Integers { from: -1, below: 2 };
            let ties = HeadCase { x: few, weight: Some(few), ..all };
            cases.push(ties.build("ties"));
            let zeros = Fill::Normal { scale: 0.0 };
            cases.push(HeadCase { weight: Some(zeros), sampling: Some("1"), ..all }.build("equal"));
            // Far apart: all but one or two probabilities vanish.
            let outliers = Fill::Outliers { scale: 1.0 };
            cases.push(HeadCase { x: outliers, norm: true, ..all }.build("outliers"));
            // Logits of a standard deviation of 9.
            let large = Fill::Normal { scale: 3e4 };
            let small = Some(Fill::Normal { scale: 3e-5 });
            if dtypes.0 != DType::F16 {
                cases.push(HeadCase { x: large, weight: small, ..all }.build("activations of 3e4"));
            }
        }
    }
}

fn merges(cases: &mut Vec<Case>) {
    let mut push = |shape: [usize; 3], gap| {
        cases.push(merge(shape, gap, Purpose::Conformance));
    };
    for (tiles, rows) in [(0, 3), (3, 0), (1, 1), (2, 5), (31, 2), (33, 3), (255, 1), (257, 2)] {
        for top_k in [0, 1, 7] {
            push([tiles, rows, top_k], 0);
        }
    }
    for shape in [[1_002, 4, 64], [384, 17, 0], [2, 300, 3]] {
        push(shape, 3);
    }
}

/// Tiles, rows and best tokens.
fn merge([tiles, rows, top_k]: [usize; 3], gap: usize, purpose: Purpose) -> Case {
    let spec = |name, dtype, columns| TensorSpec {
        name,
        dtype,
        shape: vec![tiles, rows, columns],
        gap,
        fill: Fill::ExitStates,
    };
    Case {
        op: "merge_exit_states",
        name: format!("tiles={tiles} rows={rows} top_k={top_k} gap={gap}"),
        dtype: "f32".to_owned(),
        purpose,
        tensors: vec![
            spec("state_values", DType::F32, 6 + top_k),
            spec("state_tokens", DType::I32, 2 + top_k),
        ],
        parameters: Parameters::new(),
        output_gap: gap,
        tolerance: head_tolerance(DType::F32, false, 0),
    }
}

fn benches(cases: &mut Vec<Case>) {
    let bf16 = (DType::BF16, DType::BF16);
    for (hidden, vocabulary) in [(576, 49_152), (4_096, 32_000), (2_048, 128_256)] {
        for rows in [1, 4, 8, 16, 64] {
            let case = HeadCase::new(false, [rows, hidden, vocabulary], bf16);
            cases.push(HeadCase { norm: true, purpose: Purpose::Bench, ..case }.build(""));
        }
    }
    let sampled = HeadCase::new(false, [4, 2_048, 128_256], bf16);
    let sampled = HeadCase { norm: true, purpose: Purpose::Bench, ..sampled };
    cases.push(HeadCase { sampling: Some("1"), ..sampled }.build(""));
    cases.push(HeadCase { top_k: 8, ..sampled }.build(""));
    // As many rows as a tile of the kernel for many has, by that and by the one for any number.
    for batch_invariant in [true, false] {
        let case = HeadCase::new(false, [128, 4_096, 32_000], bf16);
        let case = HeadCase { norm: true, purpose: Purpose::Bench, batch_invariant, ..case };
        cases.push(case.build(""));
    }
    // One of eight shards of a vocabulary, and the merge of all.
    for rows in [1, 16] {
        let shard = HeadCase::new(true, [rows, 4_096, 16_000], bf16);
        cases.push(HeadCase { norm: true, purpose: Purpose::Bench, ..shard }.build(""));
        cases.push(merge([1_000, rows, 0], 0, Purpose::Bench));
    }
}
