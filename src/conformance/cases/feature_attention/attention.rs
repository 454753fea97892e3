//! Cases of `feature_attention`.

use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::layout::Layout;
use crate::operation::NamedLayouts;
use crate::ops::silu_mlp::MLP_DTYPES;
use crate::parameters::Parameters;

/// What a case varies.
#[derive(Clone, Copy)]
struct Attention {
    /// Texts, tokens, features, and features after the reduction.
    shape: [usize; 4],
    dtypes: (DType, DType),
    biases: bool,
    lengths: bool,
    tanh: Option<bool>,
    gap: usize,
    out: Option<DType>,
    x: Fill,
    /// Of the weights, where they are such that the sums are about 1.
    weight_scale: f64,
    purpose: Purpose,
}

impl Attention {
    fn new(shape: [usize; 4], dtypes: (DType, DType)) -> Attention {
        Attention {
            shape,
            dtypes,
            biases: true,
            lengths: true,
            tanh: None,
            gap: 0,
            out: None,
            x: Fill::Normal { scale: 1.0 },
            weight_scale: 1.0,
            purpose: Purpose::Conformance,
        }
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let ([batch, tokens, features, reduced], (activation, weight)) = (self.shape, self.dtypes);
        let spec = |name, dtype, shape: &[usize], gap, fill| TensorSpec {
            name,
            dtype,
            shape: shape.to_vec(),
            gap,
            fill,
        };
        // A mean of L normal numbers is about 1 / sqrt(L).
        let into = |columns: usize| self.weight_scale / (columns.max(1) as f64).sqrt();
        let w1 = Fill::Normal { scale: into(features) * (tokens.max(1) as f64).sqrt() };
        let w2 = Fill::Normal { scale: 2.0 * into(reduced) };
        let bias = Fill::Normal { scale: 0.5 };
        let mut tensors = vec![
            spec("x", activation, &[batch, tokens, features], self.gap, self.x),
            spec("w1", weight, &[reduced, features], self.gap, w1),
            spec("w2", weight, &[features, reduced], self.gap, w2),
        ];
        if self.biases {
            tensors.push(spec("b1", weight, &[reduced], 0, bias));
            tensors.push(spec("b2", weight, &[features], 0, bias));
        }
        if self.lengths {
            let fill = Fill::Integers { from: 0, below: tokens as i32 + 1 };
            tensors.push(spec("lengths", DType::I32, &[batch], 0, fill));
        }
        tensors
    }

    fn build(&self, label: &str) -> Case {
        let ([batch, tokens, features, reduced], (activation, weight)) = (self.shape, self.dtypes);
        let mut name =
            format!("texts={batch} tokens={tokens} features={features} reduced={reduced}");
        for (is_given, option) in [(self.biases, " biases"), (self.lengths, " lengths")] {
            name += if is_given { option } else { "" };
        }
        let mut parameters = Parameters::new();
        if let Some(tanh) = self.tanh {
            name += &format!(" tanh={tanh}");
            parameters = parameters.with("tanh", &tanh.to_string());
        }
        if self.gap > 0 {
            name += &format!(" gap={}", self.gap);
        }
        let out = self.out.unwrap_or(activation);
        if self.out.is_some() {
            name += &format!(" out={out}");
            parameters = parameters.with("out_dtype", out.name());
        }
        let dtype = if activation == weight {
            activation.name().to_owned()
        } else {
            format!("{activation}/{weight}")
        };
        Case {
            op: "feature_attention",
            name: name + label,
            dtype,
            purpose: self.purpose,
            tensors: self.tensors(),
            parameters,
            output_gap: self.gap,
            tolerance: rounding(out, tokens.max(features).max(reduced)),
        }
    }
}

/// Sums of `longest` terms in f32, whose errors grow with the root of their number; a few units of f32 in tanh and
/// sigmoid; one rounding at the end.
fn rounding(dtype: DType, longest: usize) -> Tolerance {
    let unit = f64::from(f32::EPSILON);
    let inner = unit * (4.0 + 0.5 * (longest as f64).sqrt());
    let outer = match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => unit,
    } * 1.01;
    Tolerance::Rounded { inner, outer, nmse: (4.0 * inner + outer).powi(2) }
}

pub(super) fn tolerance(inputs: &NamedLayouts, outputs: &NamedLayouts) -> Option<Tolerance> {
    let (x, w1) = (inputs.get("x")?, inputs.get("w1")?);
    let longest = [x, w1].into_iter().flat_map(Layout::shape).max()?;
    Some(rounding(outputs.get("out")?.dtype(), *longest))
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Around a chunk of 8, a vector, a warp; texts of which some have no token.
    const SHAPES: [[usize; 4]; 7] = [
        [0, 4, 8, 3],
        [2, 0, 8, 3],
        [1, 1, 1, 1],
        [5, 3, 31, 33],
        [3, 33, 33, 31],
        [4, 17, 64, 7],
        [9, 6, 129, 1],
    ];
    for (index, dtypes) in MLP_DTYPES.into_iter().enumerate() {
        for (place, shape) in SHAPES.into_iter().enumerate() {
            let (biases, lengths) = (place % 2 == 0, (place + index) % 3 != 0);
            let case = Attention { biases, lengths, ..Attention::new(shape, dtypes) };
            cases.push(case.build(""));
        }
        let case = Attention::new([3, 9, 136, 20], dtypes);
        for (gap, tanh, out) in [
            (1, Some(false), None),
            (3, None, Some(DType::BF16)),
            (8, Some(true), Some(DType::F32)),
        ] {
            cases.push(Attention { gap, tanh, out, lengths: gap != 3, ..case }.build(""));
        }
        cases.push(Attention { gap: 8, ..case }.build(""));
        let outliers = Fill::Outliers { scale: 1.0 };
        cases.push(Attention { x: outliers, biases: false, ..case }.build(" outliers"));
        // Every tanh and sigmoid is at an end.
        let saturated = Attention { weight_scale: 30_000.0, ..case };
        cases.push(saturated.build(" saturated"));
        cases.push(Attention { tanh: Some(false), ..saturated }.build(" saturated"));
    }
    for dtype in DType::FLOATS {
        // Long texts of few features; more features than threads have columns; the paper's shape.
        for shape in [[2, 300, 3, 2], [1, 2, 1_100, 40], [2, 5, 600, 60]] {
            cases.push(Attention::new(shape, (dtype, dtype)).build(""));
        }
    }
    // A text's sums exceed the memory of a workgroup, and of a block.
    cases.push(Attention::new([2, 3, 2_050, 5], (DType::F32, DType::F32)).build(""));
    cases.push(Attention::new([3, 2, 8, 2_000], (DType::F16, DType::F16)).build(""));
    cases.push(Attention::new([2, 2, 60_001, 2], (DType::F32, DType::BF16)).build(""));
    for (shape, dtype) in [
        ([32, 50, 600, 60], DType::F32),
        ([32, 50, 600, 60], DType::BF16),
        ([1, 50, 600, 60], DType::F32),
        ([256, 128, 600, 60], DType::F32),
        ([256, 128, 600, 60], DType::BF16),
    ] {
        let case = Attention { purpose: Purpose::Bench, ..Attention::new(shape, (dtype, dtype)) };
        cases.push(Attention { lengths: false, ..case }.build(""));
    }
    cases
}
