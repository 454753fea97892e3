//! Cases of the exit gate and of the rows that move with it.

use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::parameters::Parameters;

const NORMAL: Fill = Fill::Normal { scale: 1.0 };

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    gates(&mut cases);
    cosines(&mut cases);
    for op in ["compact_rows", "scatter_rows"] {
        rows(&mut cases, op);
    }
    cases
}

pub(super) fn spec(
    name: &'static str,
    dtype: DType,
    shape: &[usize],
    gap: usize,
    fill: Fill,
) -> TensorSpec {
    TensorSpec { name, dtype, shape: shape.to_vec(), gap, fill }
}

pub(super) fn parameters(pairs: &[(&str, &str)]) -> Parameters {
    pairs.iter().fold(Parameters::new(), |all, (name, value)| all.with(name, value))
}

/// A case without any tolerance.
pub(super) fn exact(
    op: &'static str,
    name: String,
    dtype: DType,
    tensors: Vec<TensorSpec>,
) -> Case {
    Case {
        op,
        name,
        dtype: dtype.name().to_owned(),
        purpose: Purpose::Conformance,
        tensors,
        parameters: Parameters::new(),
        output_gap: 0,
        tolerance: Tolerance::Exact,
    }
}

/// The statistics that these thresholds look at, drawn as the pairs say; the hidden states come separately.
fn statistics(batch: usize, thresholds: &[(&str, &str)], fills: [Fill; 5]) -> Vec<TensorSpec> {
    let has = |name: &str| thresholds.iter().any(|(threshold, _)| *threshold == name);
    let [max, second, sum, entropy, classifier] = fills;
    let all = [
        ("max_logit", has("max_prob") || has("margin"), max),
        ("second_logit", has("margin"), second),
        ("log_sum_exp", has("max_prob") || has("margin"), sum),
        ("entropy", has("entropy"), entropy),
        ("classifier", has("classifier"), classifier),
    ];
    let needed = all.into_iter().filter(|(_, is_needed, _)| *is_needed);
    needed.map(|(name, _, fill)| spec(name, DType::F32, &[batch], 0, fill)).collect()
}

fn gates(cases: &mut Vec<Case>) {
    const THRESHOLDS: [&[(&str, &str)]; 6] = [
        &[("max_prob", "0.4")],
        &[("margin", "0.1")],
        &[("entropy", "1.25")],
        &[("classifier", "-0.2")],
        &[("max_prob", "0.2"), ("classifier", "0"), ("require", "any")],
        &[("max_prob", "0.2"), ("margin", "-0.3"), ("entropy", "1.5"), ("classifier", "-0.5")],
    ];
    let around_one = Fill::AroundOne { scale: 0.5 };
    let usual = [NORMAL, NORMAL, around_one, around_one, NORMAL];
    let mut push = |batch: usize, thresholds: &[(&str, &str)], fills, label: &str| {
        let names: Vec<String> =
            thresholds.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let name = format!("batch={batch} {}{label}", names.join(" "));
        let tensors = statistics(batch, thresholds, fills);
        let case = exact("exit_gate", name, DType::F32, tensors);
        cases.push(Case { parameters: parameters(thresholds), ..case });
    };
    for batch in [0, 1, 2, 31, 33, 127, 128, 129, 255, 256, 257, 700] {
        for thresholds in THRESHOLDS.into_iter().skip(batch % 2).step_by(2) {
            push(batch, thresholds, usual, "");
        }
    }
    for thresholds in THRESHOLDS {
        push(300, thresholds, [Fill::NotFinite { scale: 1.0 }; 5], " not finite");
        push(64, thresholds, [Fill::Extremes; 5], " extremes");
        // Exactly on the threshold, as often as not.
        let few = Fill::Integers { from: -1, below: 2 };
        push(90, thresholds, [few; 5], " few");
    }
    push(77, &[("margin", "-0.3")], [Fill::NotFinite { scale: 1.0 }; 5], " not finite");
    let few = Fill::Integers { from: 0, below: 3 };
    let on: [&[(&str, &str)]; 4] = [
        &[("max_prob", "1")],
        &[("margin", "0")],
        &[("entropy", "1"), ("classifier", "2")],
        &[("max_prob", "-1"), ("entropy", "0"), ("require", "any")],
    ];
    for thresholds in on {
        push(65, thresholds, [few; 5], " on the threshold");
    }
    let name = "batch=64 max_prob=0.9 entropy=1".to_owned();
    let thresholds = [("max_prob", "0.9"), ("entropy", "1")];
    let tensors = statistics(64, &thresholds, usual);
    let case = exact("exit_gate", name, DType::F32, tensors);
    let parameters = parameters(&thresholds);
    cases.push(Case { parameters, purpose: Purpose::Bench, ..case });
}

fn cosines(cases: &mut Vec<Case>) {
    let mut push =
        |[batch, hidden]: [usize; 2], dtype: DType, gap, others: &[(&str, &str)], purpose| {
            // Directions of independent states differ the less the longer they are.
            let cosine = (0.3 / (hidden.max(1) as f64).sqrt()).to_string();
            let mut thresholds = vec![("cosine", cosine.as_str())];
            thresholds.extend(others);
            let mut tensors = statistics(batch, others, [NORMAL; 5]);
            for name in ["hidden", "previous_hidden"] {
                tensors.push(spec(name, dtype, &[batch, hidden], gap, NORMAL));
            }
            let others: Vec<String> =
                others.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            let name = format!("batch={batch} hidden={hidden} gap={gap}{}", others.concat());
            let case = exact("exit_gate", name, dtype, tensors);
            cases.push(Case { parameters: parameters(&thresholds), purpose, ..case });
        };
    let conformance = Purpose::Conformance;
    for dtype in DType::FLOATS {
        for shape in [[0, 5], [3, 0], [1, 1], [1, 65], [7, 31], [8, 256], [9, 33], [40, 96]] {
            push(shape, dtype, 0, &[], conformance);
        }
        for (gap, shape) in [(1, [8, 33]), (3, [9, 65]), (8, [17, 264])] {
            push(shape, dtype, gap, &[("classifier", "0.1"), ("require", "any")], conformance);
        }
    }
    let all = [("max_prob", "0.3"), ("margin", "-0.5"), ("entropy", "0.9"), ("classifier", "-1")];
    push([260, 40], DType::BF16, 0, &all, conformance);
    push([64, 4_096], DType::BF16, 0, &[], Purpose::Bench);
}

/// What a case of `compact_rows` or `scatter_rows` varies.
struct Moved {
    listed: usize,
    rows: usize,
    features: usize,
    gap: usize,
    count: Option<i32>,
    /// Entries are below this, which may be more than there are rows.
    below: usize,
}

impl Moved {
    fn build(self, op: &'static str, dtype: DType, fill: Fill, purpose: Purpose) -> Case {
        let Moved { listed, rows, features, gap, count, below } = self;
        let (all, few) = ([rows, features], [listed, features]);
        let permutation = Fill::Permutation { below };
        let mut tensors = vec![spec("permutation", DType::I32, &[listed], 0, permutation)];
        if op == "compact_rows" {
            tensors.push(spec("x", dtype, &all, gap, fill));
        } else {
            tensors.push(spec("rows", dtype, &few, gap, fill));
            tensors.push(spec("destination", dtype, &all, gap, fill));
        }
        if let Some(count) = count {
            let fill = Fill::Integers { from: count, below: count + 1 };
            tensors.push(spec("count", DType::I32, &[1], 0, fill));
        }
        let count = count.map_or_else(String::new, |count| format!(" count={count}"));
        let label = if fill == NORMAL { "" } else { " extremes" };
        let name = format!(
            "listed={listed} rows={rows} features={features} gap={gap} below={below}{count}{label}"
        );
        let case = exact(op, name, dtype, tensors);
        Case { output_gap: gap, purpose, ..case }
    }
}

/// `compact_rows` or `scatter_rows`, of so many of so many rows.
fn rows(cases: &mut Vec<Case>, op: &'static str) {
    let mut push =
        |moved: Moved, dtype, fill, purpose| cases.push(moved.build(op, dtype, fill, purpose));
    const SHAPES: [[usize; 3]; 11] = [
        [0, 5, 3],
        [4, 0, 3],
        [3, 4, 0],
        [1, 1, 1],
        [31, 33, 31],
        [33, 40, 33],
        [7, 9, 128],
        [5, 6, 2_049],
        [64, 64, 64],
        [130, 300, 8],
        [130, 9, 16],
    ];
    for dtype in DType::FLOATS {
        for (index, [listed, rows, features]) in SHAPES.into_iter().enumerate() {
            let below = rows.max(listed);
            let count = [None, Some(listed as i32 / 2)][index % 2];
            let moved = Moved { listed, rows, features, gap: 0, count, below };
            push(moved, dtype, NORMAL, Purpose::Conformance);
        }
        for (gap, count) in
            [(1, Some(-1)), (3, Some(0)), (8, Some(1)), (1, Some(21)), (8, Some(99))]
        {
            // Of more rows than there are: every third entry is nowhere.
            let moved = Moved { listed: 21, rows: 40, features: 67, gap, count, below: 60 };
            push(moved, dtype, Fill::Extremes, Purpose::Conformance);
        }
    }
    for rows in [64, 2_048] {
        let moved = Moved { listed: rows, rows, features: 4_096, gap: 0, count: None, below: rows };
        push(moved, DType::BF16, NORMAL, Purpose::Bench);
    }
}
