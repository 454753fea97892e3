//! Cases of the operations that move features between rows of different widths.

use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::operation::NamedLayouts;
use crate::ops::silu_mlp::MLP_DTYPES;
use crate::parameters::Parameters;

const F32_EPSILON: f64 = f32::EPSILON as f64;
const SCOPES: [&str; 3] = ["full", "selected", "selected_sum_over_d"];
const NORMAL: Fill = Fill::Normal { scale: 2.0 };

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    gather_norm(&mut cases);
    scatter_add(&mut cases);
    scatter_norm_gather(&mut cases);
    compact_weight(&mut cases);
    cases
}

/// The tolerance of any inputs, or `None` for operations of other groups.
pub(super) fn tolerance(
    op: &str,
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Option<Tolerance> {
    match op {
        "gather_norm" => {
            let (x, out) = (inputs.get("x")?, outputs.get("out")?.dtype());
            Some(match inputs.contains_key("norm_weight") {
                true => norm_tolerance(x.columns(), out),
                false => copy_tolerance(x.dtype(), out),
            })
        }
        "scatter_add" => Some(sum_tolerance(outputs.get("out")?.dtype())),
        "scatter_norm_gather" => {
            let (residual, gathered) = (inputs.get("residual")?, outputs.get("gathered")?);
            Some(fused_tolerance(residual.columns(), residual.dtype(), gathered.dtype()))
        }
        "compact_weight" => Some(Tolerance::Exact),
        _ => None,
    }
}

/// One sum in f32, rounded once more.
fn sum_tolerance(out: DType) -> Tolerance {
    let nmse = (0.4 * epsilon(out)).powi(2) + F32_EPSILON * F32_EPSILON;
    Tolerance::Rounded { inner: F32_EPSILON, outer: 0.5 * epsilon(out), nmse }
}

/// As a norm, of a sum that may fall on the other side of a tie of the activations' type.
fn fused_tolerance(features: usize, activation: DType, gathered: DType) -> Tolerance {
    let inner = epsilon(activation) + (8.0 + (features as f64).sqrt()) * F32_EPSILON;
    // Of both outputs: the residual is rounded to the activations' type.
    let rounding = epsilon(gathered).max(epsilon(activation));
    Tolerance::Rounded {
        inner,
        outer: 0.5 * rounding,
        nmse: (0.5 * rounding).powi(2) + inner * inner,
    }
}

/// Bits are copied, or rounded once to another type.
fn copy_tolerance(from: DType, to: DType) -> Tolerance {
    if from == to {
        return Tolerance::Exact;
    }
    let outer = 0.5 * epsilon(to);
    Tolerance::Rounded { inner: 0.0, outer, nmse: (0.4 * epsilon(to)).powi(2) }
}

/// A norm of f32 sums of `features` squares, which err by `sqrt(features)` rounding errors at random; root, quotient
/// and products add a few more. Rounded once.
fn norm_tolerance(features: usize, out: DType) -> Tolerance {
    let inner = (8.0 + (features as f64).sqrt()) * F32_EPSILON;
    let outer = 0.5 * epsilon(out);
    Tolerance::Rounded { inner, outer, nmse: (0.4 * epsilon(out)).powi(2) + inner * inner }
}

fn epsilon(dtype: DType) -> f64 {
    dtype.epsilon().expect("a floating-point type")
}

fn dtypes_name((activation, weight): (DType, DType)) -> String {
    match activation == weight {
        true => activation.name().to_owned(),
        false => format!("{activation}/{weight}"),
    }
}

fn matrix(
    name: &'static str,
    dtype: DType,
    shape: [usize; 2],
    gap: usize,
    fill: Fill,
) -> TensorSpec {
    TensorSpec { name, dtype, shape: shape.to_vec(), gap, fill }
}

fn vector(name: &'static str, dtype: DType, length: usize, fill: Fill) -> TensorSpec {
    TensorSpec { name, dtype, shape: vec![length], gap: 0, fill }
}

/// `count` of `below`.
fn indices(name: &'static str, count: usize, below: usize) -> TensorSpec {
    vector(name, DType::U32, count, Fill::Ascending { below })
}

/// Rows, features and how many of them are selected: nothing at all, one of one, one of many, none, all, on both sides
/// of warps and tiles, wide and tall.
const SHAPES: [[usize; 3]; 14] = [
    [0, 5, 3],
    [2, 0, 0],
    [1, 1, 1],
    [3, 40, 0],
    [2, 65, 1],
    [1, 31, 31],
    [5, 33, 16],
    [4, 64, 64],
    [3, 127, 63],
    [2, 129, 128],
    [33, 96, 31],
    [130, 24, 8],
    [2, 1_030, 515],
    [1, 5_000, 2_513],
];

/// What a case of `gather_norm` varies.
#[derive(Clone, Copy)]
struct GatherCase {
    shape: [usize; 3],
    dtypes: (DType, DType),
    scope: Option<&'static str>,
    gap: usize,
    x: Fill,
    out: Option<DType>,
    purpose: Purpose,
}

impl GatherCase {
    fn new(shape: [usize; 3], dtypes: (DType, DType)) -> GatherCase {
        let purpose = Purpose::Conformance;
        GatherCase { shape, dtypes, scope: None, gap: 0, x: NORMAL, out: None, purpose }
    }

    fn build(&self, label: &str) -> Case {
        let ([rows, features, selected], (activation, weight)) = (self.shape, self.dtypes);
        let out = self.out.unwrap_or(activation);
        let mut name = format!("rows={rows} features={features} selected={selected}");
        let mut parameters = Parameters::new();
        let mut tensors = vec![
            matrix("x", activation, [rows, features], self.gap, self.x),
            indices("indices", selected, features),
        ];
        if let Some(scope) = self.scope {
            name += &format!(" norm={scope}");
            parameters = parameters.with("eps", "1e-6").with("norm_scope", scope);
            let around_one = Fill::AroundOne { scale: 0.2 };
            tensors.push(vector("norm_weight", weight, features, around_one));
        }
        if self.gap > 0 {
            name += &format!(" gap={}", self.gap);
        }
        if self.out.is_some() {
            name += &format!(" out={out}");
            parameters = parameters.with("out_dtype", out.name());
        }
        let tolerance = match self.scope {
            Some(_) => norm_tolerance(features, out),
            None => copy_tolerance(activation, out),
        };
        Case {
            op: "gather_norm",
            name: name + label,
            dtype: dtypes_name(self.dtypes),
            purpose: self.purpose,
            tensors,
            parameters,
            output_gap: self.gap,
            tolerance,
        }
    }
}

fn gather_norm(cases: &mut Vec<Case>) {
    for dtype in DType::FLOATS {
        for shape in SHAPES {
            cases.push(GatherCase::new(shape, (dtype, dtype)).build(""));
        }
        for (gap, out) in [(1, None), (3, None), (8, None), (1, Some(DType::F32))] {
            let case = GatherCase::new([5, 130, 67], (dtype, dtype));
            cases.push(GatherCase { gap, out, ..case }.build(""));
        }
        let case = GatherCase::new([4, 200, 77], (dtype, dtype));
        cases.push(GatherCase { x: Fill::Extremes, ..case }.build(" extremes"));
    }
    let case = GatherCase::new([3, 64, 33], (DType::F32, DType::F32));
    cases.push(GatherCase { out: Some(DType::BF16), ..case }.build(""));
    for dtypes in MLP_DTYPES {
        for (index, shape) in SHAPES.into_iter().enumerate() {
            let scope = Some(SCOPES[index % 3]);
            // A norm over nothing has no mean; there is nothing to write either.
            cases.push(GatherCase { scope, ..GatherCase::new(shape, dtypes) }.build(""));
        }
        for scope in SCOPES.map(Some) {
            let case = GatherCase { scope, ..GatherCase::new([3, 261, 130], dtypes) };
            cases.push(GatherCase { gap: 1, ..case }.build(""));
            cases.push(GatherCase { gap: 8, out: Some(DType::F32), ..case }.build(""));
            cases.push(GatherCase { x: Fill::Outliers { scale: 1.0 }, ..case }.build(" outliers"));
        }
    }
    for rows in [1, 512] {
        for (features, selected) in [(4_096, 2_048), (4_096, 4_096)] {
            for scope in [None, Some("full")] {
                let dtypes = (DType::BF16, DType::BF16);
                let purpose = Purpose::Bench;
                let case = GatherCase::new([rows, features, selected], dtypes);
                cases.push(GatherCase { scope, purpose, ..case }.build(""));
            }
        }
    }
}

/// What a case of `scatter_add` or `scatter_norm_gather` varies.
#[derive(Clone, Copy)]
struct ScatterCase {
    /// Rows, features, and how many of these are written.
    shape: [usize; 3],
    dtypes: (DType, DType),
    /// Of `scatter_norm_gather`: how many features the next block reads, and the norm's scope.
    read: Option<(usize, &'static str)>,
    has_rank: bool,
    gap: usize,
    fill: Fill,
    out: Option<DType>,
    purpose: Purpose,
}

impl ScatterCase {
    fn new(shape: [usize; 3], dtypes: (DType, DType)) -> ScatterCase {
        ScatterCase {
            shape,
            dtypes,
            read: None,
            has_rank: false,
            gap: 0,
            fill: NORMAL,
            out: None,
            purpose: Purpose::Conformance,
        }
    }

    fn build(&self, label: &str) -> Case {
        let ([_, features, _], (activation, _)) = (self.shape, self.dtypes);
        let out = self.out.unwrap_or(activation);
        let mut parameters = Parameters::new();
        if let Some((_, scope)) = self.read {
            parameters = parameters.with("eps", "1e-6").with("norm_scope", scope);
        }
        if self.out.is_some() {
            parameters = parameters.with("out_dtype", out.name());
        }
        Case {
            op: if self.read.is_some() { "scatter_norm_gather" } else { "scatter_add" },
            name: self.name(label),
            dtype: dtypes_name(self.dtypes),
            purpose: self.purpose,
            tensors: self.tensors(),
            parameters,
            output_gap: self.gap,
            tolerance: match self.read {
                Some(_) => fused_tolerance(features, activation, out),
                None => sum_tolerance(out),
            },
        }
    }

    fn name(&self, label: &str) -> String {
        let [rows, features, written] = self.shape;
        let mut name = format!("rows={rows} features={features} written={written}");
        if let Some((read, scope)) = self.read {
            name += &format!(" read={read} norm={scope}");
        }
        if self.has_rank {
            name += " rank";
        }
        if self.gap > 0 {
            name += &format!(" gap={}", self.gap);
        }
        if let Some(out) = self.out {
            name += &format!(" out={out}");
        }
        name + label
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let ([rows, features, written], (activation, weight)) = (self.shape, self.dtypes);
        let (of, rank) = match self.read {
            Some(_) => ("out_indices", "out_rank"),
            None => ("indices", "rank"),
        };
        let mut tensors = vec![
            matrix("residual", activation, [rows, features], self.gap, self.fill),
            matrix("y", activation, [rows, written], self.gap, self.fill),
            indices(of, written, features),
        ];
        if self.has_rank {
            let fill = Fill::Rank { of, count: written };
            tensors.push(vector(rank, DType::I32, features, fill));
        }
        if let Some((read, _)) = self.read {
            let around_one = Fill::AroundOne { scale: 0.2 };
            tensors.push(vector("norm_weight", weight, features, around_one));
            tensors.push(indices("in_indices", read, features));
        }
        tensors
    }
}

fn scatter_add(cases: &mut Vec<Case>) {
    for dtype in DType::FLOATS {
        for shape in SHAPES {
            for has_rank in [false, true] {
                let case = ScatterCase::new(shape, (dtype, dtype));
                cases.push(ScatterCase { has_rank, ..case }.build(""));
            }
        }
        let case = ScatterCase::new([5, 130, 67], (dtype, dtype));
        for (gap, out) in [(1, None), (3, None), (8, None), (1, Some(DType::F32))] {
            for has_rank in [false, true] {
                cases.push(ScatterCase { gap, out, has_rank, ..case }.build(""));
            }
        }
        cases.push(ScatterCase { fill: Fill::Extremes, ..case }.build(" extremes"));
    }
    let case = ScatterCase::new([3, 64, 33], (DType::F32, DType::F32));
    cases.push(ScatterCase { out: Some(DType::F16), ..case }.build(""));
    for rows in [1, 512] {
        for has_rank in [false, true] {
            let case = ScatterCase::new([rows, 4_096, 2_048], (DType::BF16, DType::BF16));
            cases.push(ScatterCase { has_rank, purpose: Purpose::Bench, ..case }.build(""));
        }
    }
}

fn scatter_norm_gather(cases: &mut Vec<Case>) {
    for dtypes in MLP_DTYPES {
        // Without features there is no norm.
        for (index, shape) in SHAPES.into_iter().filter(|shape| shape[1] > 0).enumerate() {
            // From nothing to everything, and back.
            let read = [shape[1], shape[1] / 3, shape[2], 0][index % 4];
            let read = Some((read, SCOPES[index % 3]));
            let has_rank = index % 2 == 1;
            let case = ScatterCase { read, has_rank, ..ScatterCase::new(shape, dtypes) };
            cases.push(case.build(""));
        }
        for scope in SCOPES {
            for has_rank in [false, true] {
                let case = ScatterCase::new([3, 261, 130], dtypes);
                let case = ScatterCase { read: Some((99, scope)), has_rank, ..case };
                cases.push(case.build(""));
                cases.push(ScatterCase { gap: 1, ..case }.build(""));
                cases.push(ScatterCase { gap: 8, out: Some(DType::F32), ..case }.build(""));
                let outliers = Fill::Outliers { scale: 1.0 };
                cases.push(ScatterCase { fill: outliers, ..case }.build(" outliers"));
            }
        }
        // A row that no workgroup's or block's memory holds.
        let case = ScatterCase::new([2, 24_000, 9_000], dtypes);
        let read = Some((7_001, "full"));
        cases.push(ScatterCase { read, has_rank: true, ..case }.build(""));
    }
    for rows in [1, 512] {
        for has_rank in [false, true] {
            let case = ScatterCase::new([rows, 4_096, 2_048], (DType::BF16, DType::BF16));
            let case = ScatterCase { read: Some((2_048, "full")), has_rank, ..case };
            cases.push(ScatterCase { purpose: Purpose::Bench, ..case }.build(""));
        }
    }
}

/// Shape of the weight, rows and columns kept, padding, gap.
type CompactCase = ([usize; 2], Option<usize>, Option<usize>, usize, usize);

fn compact_weight(cases: &mut Vec<Case>) {
    const CASES: [CompactCase; 15] = [
        ([0, 4], None, None, 1, 0),
        ([4, 0], None, None, 8, 0),
        ([1, 1], Some(1), Some(1), 1, 0),
        ([5, 33], None, None, 1, 0),
        ([31, 40], None, Some(0), 8, 0),
        ([31, 40], Some(0), Some(7), 1, 0),
        ([33, 65], Some(1), None, 1, 0),
        ([33, 64], Some(17), None, 64, 0),
        ([16, 129], None, Some(1), 16, 0),
        ([20, 127], None, Some(127), 8, 0),
        ([20, 300], Some(9), Some(131), 8, 0),
        ([20, 300], Some(20), Some(300), 64, 1),
        ([7, 2_100], Some(5), Some(1_049), 1, 3),
        ([7, 2_104], Some(5), None, 16, 8),
        ([300, 9], Some(151), Some(4), 1, 1),
    ];
    for dtype in DType::FLOATS {
        for case in CASES {
            cases.push(compact_case(case, dtype, NORMAL, Purpose::Conformance));
        }
        let case = ([9, 50], Some(4), Some(23), 1, 0);
        cases.push(compact_case(case, dtype, Fill::Extremes, Purpose::Conformance));
    }
    let case = ([4_096, 11_008], Some(2_048), Some(5_504), 8, 0);
    cases.push(compact_case(case, DType::BF16, NORMAL, Purpose::Bench));
    let case = ([11_008, 4_096], Some(5_504), None, 1, 0);
    cases.push(compact_case(case, DType::BF16, NORMAL, Purpose::Bench));
}

fn compact_case(
    (shape, rows, columns, pad, gap): CompactCase,
    dtype: DType,
    fill: Fill,
    purpose: Purpose,
) -> Case {
    let mut name = format!("weight={}x{}", shape[0], shape[1]);
    let mut tensors = vec![matrix("weight", dtype, shape, gap, fill)];
    for (selection, kept, all) in [("rows", rows, shape[0]), ("columns", columns, shape[1])] {
        if let Some(kept) = kept {
            name += &format!(" {selection}={kept}");
            tensors.push(indices(selection, kept, all));
        }
    }
    name += &format!(" pad={pad} gap={gap}");
    if let Fill::Extremes = fill {
        name += " extremes";
    }
    Case {
        op: "compact_weight",
        name,
        dtype: dtype.name().to_owned(),
        purpose,
        tensors,
        parameters: Parameters::new().with("pad", &pad.to_string()),
        output_gap: gap,
        tolerance: Tolerance::Exact,
    }
}
