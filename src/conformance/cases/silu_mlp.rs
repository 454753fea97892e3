//! Cases of the fused SiLU MLPs.

use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::operation::NamedLayouts;
use crate::ops::silu_mlp::MLP_DTYPES;
use crate::parameters::Parameters;

const F32_EPSILON: f64 = f32::EPSILON as f64;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    silu_mul(&mut cases);
    for gated in [true, false] {
        mlp_shapes(&mut cases, gated);
        mlp_options(&mut cases, gated);
        mlp_values(&mut cases, gated);
    }
    benches(&mut cases);
    cases
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(
    op: &str,
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Option<Tolerance> {
    let out = outputs.get("out")?.dtype();
    match op {
        "silu_mul" => Some(silu_mul_tolerance(out)),
        "gated_mlp" | "silu_mlp" => {
            let longest_sum = inputs.get("up_weight")?.shape().iter().copied().max()?;
            Some(mlp_tolerance(inputs.get("x")?.dtype(), out, longest_sum))
        }
        _ => None,
    }
}

fn silu_mul(cases: &mut Vec<Case>) {
    let mut push =
        |rows: usize, columns: usize, gap: usize, dtype: DType, fill: Fill, out: DType| {
            let spec = |name| TensorSpec { name, dtype, shape: vec![rows, columns], gap, fill };
            let mut name = format!("rows={rows} columns={columns}");
            if gap > 0 {
                name += &format!(" gap={gap}");
            }
            let mut parameters = Parameters::new();
            if out != dtype {
                name += &format!(" out={out}");
                parameters = parameters.with("out_dtype", out.name());
            }
            if let Fill::Extremes = fill {
                name += " extremes";
            }
            cases.push(Case {
                op: "silu_mul",
                name,
                dtype: dtype.name().to_owned(),
                purpose: Purpose::Conformance,
                tensors: vec![spec("gate"), spec("up")],
                parameters,
                output_gap: gap,
                tolerance: silu_mul_tolerance(out),
            });
        };
    let normal = Fill::Normal { scale: 4.0 };
    for dtype in DType::FLOATS {
        for (rows, columns) in
            [(0, 5), (5, 0), (1, 1), (2, 33), (3, 31), (17, 129), (33, 1_000), (1, 4_096)]
        {
            push(rows, columns, 0, dtype, normal, dtype);
        }
        // 1 and 3 misalign rows of every type; 1000 is the other half of a stacked tensor.
        for gap in [1, 3, 8, 1_000] {
            push(5, 1_000, gap, dtype, normal, dtype);
        }
        push(7, 257, 0, dtype, Fill::Extremes, dtype);
        push(7, 257, 1, dtype, Fill::Extremes, DType::F32);
    }
    push(4, 64, 0, DType::F32, normal, DType::BF16);
    push(4, 63, 1, DType::F32, normal, DType::F16);
}

/// One rounding of a product of f32 factors. `exp` may be off by 17 ulp (what Mesa's lavapipe does; CUDA and
/// the CPU stay within 2), quotient and product add 2 more.
fn silu_mul_tolerance(out: DType) -> Tolerance {
    let outer = 0.5 * epsilon(out);
    let inner = 20.0 * F32_EPSILON;
    Tolerance::Rounded { inner, outer, nmse: (0.4 * epsilon(out)).powi(2) + inner * inner }
}

/// What an MLP case varies; the rest is random normal, contiguous and plain.
#[derive(Clone, Copy)]
struct MlpCase {
    gated: bool,
    rows: usize,
    hidden: usize,
    ffn: usize,
    dtypes: (DType, DType),
    x: Fill,
    weight_scale: f64,
    gap: usize,
    biases: bool,
    norm: bool,
    residual: bool,
    round_gate_up: bool,
    batch_invariant: bool,
    out: Option<DType>,
    purpose: Purpose,
}

impl MlpCase {
    fn new(gated: bool, [rows, hidden, ffn]: [usize; 3], dtypes: (DType, DType)) -> MlpCase {
        MlpCase {
            gated,
            rows,
            hidden,
            ffn,
            dtypes,
            x: Fill::Normal { scale: 1.0 },
            weight_scale: 1.0,
            gap: 0,
            biases: false,
            norm: false,
            residual: false,
            round_gate_up: false,
            batch_invariant: false,
            out: None,
            purpose: Purpose::Conformance,
        }
    }

    fn build(&self, label: &str) -> Case {
        let (activation, weight) = self.dtypes;
        let out = self.out.unwrap_or(activation);
        Case {
            op: if self.gated { "gated_mlp" } else { "silu_mlp" },
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
            tolerance: mlp_tolerance(activation, out, self.hidden.max(self.ffn)),
        }
    }

    fn name(&self, label: &str) -> String {
        let mut name = format!("rows={} hidden={} ffn={}", self.rows, self.hidden, self.ffn);
        let gap = (self.gap > 0).then(|| format!("gap={}", self.gap));
        let out = self.out.map(|out| format!("out={out}"));
        let options = [
            gap.as_deref(),
            self.biases.then_some("biases"),
            self.norm.then_some("norm"),
            self.residual.then_some("residual"),
            self.round_gate_up.then_some("round_gate_up"),
            self.batch_invariant.then_some("batch_invariant"),
            out.as_deref(),
            (!label.is_empty()).then_some(label),
        ];
        for option in options.into_iter().flatten() {
            name.push(' ');
            name.push_str(option);
        }
        name
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let (activation, weight) = self.dtypes;
        let (rows, hidden, ffn, gap) = (self.rows, self.hidden, self.ffn, self.gap);
        let unit = Fill::Normal { scale: 1.0 };
        // Variances add up to about 1 in every layer, as in a trained network.
        let first = Fill::Normal { scale: self.weight_scale / (hidden as f64).sqrt() };
        let second = Fill::Normal { scale: self.weight_scale / (ffn.max(1) as f64).sqrt() };
        let matrix = |name, dtype, shape: [usize; 2], fill| TensorSpec {
            name,
            dtype,
            shape: shape.to_vec(),
            gap,
            fill,
        };
        let vector = |name, length, fill| TensorSpec {
            name,
            dtype: weight,
            shape: vec![length],
            gap: 0,
            fill,
        };
        let mut tensors = vec![
            matrix("x", activation, [rows, hidden], self.x),
            matrix("up_weight", weight, [ffn, hidden], first),
            matrix("down_weight", weight, [hidden, ffn], second),
        ];
        if self.gated {
            tensors.push(matrix("gate_weight", weight, [ffn, hidden], first));
        }
        if self.biases {
            if self.gated {
                tensors.push(vector("gate_bias", ffn, unit));
            }
            tensors.push(vector("up_bias", ffn, unit));
            tensors.push(vector("down_bias", hidden, unit));
        }
        if self.norm {
            tensors.push(vector("norm_weight", hidden, Fill::AroundOne { scale: 0.2 }));
        }
        if self.residual {
            tensors.push(matrix("residual", activation, [rows, hidden], unit));
        }
        tensors
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = Parameters::new();
        if self.norm {
            parameters = parameters.with("eps", "1e-5");
        }
        if self.round_gate_up {
            parameters = parameters.with("rounding", "round_gate_up");
        }
        if self.batch_invariant {
            parameters = parameters.with("batch_invariant", "true");
        }
        if let Some(out) = self.out {
            parameters = parameters.with("out_dtype", out.name());
        }
        parameters
    }
}

/// Against an oracle that rounds at the same points, a kernel may differ by one unit of the activation type
/// in each `h` (its f32 sum fell on the other side of a tie), by f32 rounding in each product, and by
/// half a unit of the output type. Sums of `n` products in f32 err by `sqrt(n)` rounding errors at
/// random, `exp` by 17 ulp (lavapipe).
pub(super) fn mlp_tolerance(activation: DType, out: DType, longest_sum: usize) -> Tolerance {
    let sum = (20.0 + (longest_sum as f64).sqrt()) * F32_EPSILON;
    let inner = epsilon(activation) + sum;
    let outer = 0.5 * epsilon(out);
    let nmse = (0.5 * epsilon(activation)).powi(2) + (0.4 * epsilon(out)).powi(2) + sum * sum;
    Tolerance::Rounded { inner, outer, nmse }
}

pub(super) fn epsilon(dtype: DType) -> f64 {
    dtype.epsilon().expect("a floating-point type")
}

fn mlp_shapes(cases: &mut Vec<Case>, gated: bool) {
    // Every boundary between kernels (1, 2, 3, 4, 8, 9, 16, 17, 64, 65 rows) and of tiles (32, 64, 128
    // columns), one below and one above; no neurons at all; wide and tall.
    const SHAPES: [[usize; 3]; 20] = [
        [0, 32, 64],
        [1, 1, 1],
        [1, 31, 33],
        [1, 512, 1_030],
        [2, 64, 96],
        [3, 33, 31],
        [4, 200, 72],
        [4, 64, 0],
        [7, 1, 40],
        [8, 256, 130],
        [9, 63, 65],
        [16, 96, 160],
        [17, 80, 72],
        [33, 64, 48],
        [48, 129, 127],
        [64, 128, 128],
        [65, 127, 129],
        [128, 64, 64],
        [130, 192, 200],
        [200, 40, 520],
    ];
    for shape in SHAPES {
        for dtypes in MLP_DTYPES {
            cases.push(MlpCase::new(gated, shape, dtypes).build(""));
        }
    }
}

fn mlp_options(cases: &mut Vec<Case>, gated: bool) {
    let shapes = [[1, 72, 104], [2, 65, 50], [5, 96, 40], [20, 64, 80], [70, 48, 136]];
    for shape in shapes {
        for dtypes in MLP_DTYPES {
            let base = MlpCase::new(gated, shape, dtypes);
            let all = MlpCase { biases: true, norm: true, residual: true, ..base };
            let variants = [
                MlpCase { biases: true, ..base },
                MlpCase { norm: true, ..base },
                MlpCase { residual: true, ..base },
                MlpCase { round_gate_up: true, ..all },
                MlpCase { batch_invariant: true, ..all },
                MlpCase { gap: 1, ..all },
                MlpCase { gap: 8, out: Some(DType::F32), ..all },
            ];
            cases.extend(variants.map(|case| case.build("")));
        }
    }
    let mixed = [(DType::BF16, DType::F16), (DType::F16, DType::BF16), (DType::F32, DType::BF16)];
    for (activation, out) in mixed {
        let case = MlpCase::new(gated, [3, 64, 33], (activation, activation));
        cases.push(MlpCase { out: Some(out), gap: 1, ..case }.build(""));
    }
}

/// Values that broke other projects' kernels: activations of 1e4 and more, and a few huge ones among
/// small ones.
fn mlp_values(cases: &mut Vec<Case>, gated: bool) {
    for rows in [1, 6, 40, 80] {
        for dtypes in MLP_DTYPES {
            let base = MlpCase::new(gated, [rows, 192, 128], dtypes);
            // Weights small enough that h stays below f16's largest value, 65504.
            let outliers = Fill::Outliers { scale: 1.0 };
            let case = MlpCase { x: outliers, weight_scale: 0.05, residual: true, ..base };
            cases.push(case.build("outliers"));
            if dtypes.0 != DType::F16 {
                let case = MlpCase { x: Fill::Normal { scale: 3e4 }, ..base };
                cases.push(case.build("activations of 3e4"));
            }
        }
    }
}

fn benches(cases: &mut Vec<Case>) {
    let bf16 = (DType::BF16, DType::BF16);
    let f32 = (DType::F32, DType::F32);
    for (hidden, ffn) in [(576, 1_536), (2_048, 8_192), (4_096, 11_008)] {
        for rows in [1, 8, 64, 512] {
            for dtypes in [bf16, f32] {
                let case = MlpCase::new(true, [rows, hidden, ffn], dtypes);
                cases.push(MlpCase { purpose: Purpose::Bench, ..case }.build(""));
            }
        }
    }
    let plain = MlpCase::new(false, [1, 2_048, 8_192], bf16);
    cases.push(MlpCase { purpose: Purpose::Bench, ..plain }.build(""));
    for rows in [1, 512] {
        let spec = |name| TensorSpec {
            name,
            dtype: DType::BF16,
            shape: vec![rows, 8_192],
            gap: 0,
            fill: Fill::Normal { scale: 4.0 },
        };
        cases.push(Case {
            op: "silu_mul",
            name: format!("rows={rows} columns=8192"),
            dtype: DType::BF16.name().to_owned(),
            purpose: Purpose::Bench,
            tensors: vec![spec("gate"), spec("up")],
            parameters: Parameters::new(),
            output_gap: 0,
            tolerance: silu_mul_tolerance(DType::BF16),
        });
    }
}
