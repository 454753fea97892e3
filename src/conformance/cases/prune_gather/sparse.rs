//! Cases of the block whose tokens each use some of the neurons.

use crate::conformance::cases::silu_mlp::mlp_tolerance;
use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance, list_lengths};
use crate::dtype::DType;
use crate::operation::NamedLayouts;
use crate::ops::silu_mlp::MLP_DTYPES;
use crate::parameters::Parameters;

const OP: &str = "sparse_gated_mlp";
const BF16: (DType, DType) = (DType::BF16, DType::BF16);
/// Of [`Fill::Steps`] for activations.
const X_STEP: f64 = 0.5;

/// How a case's tokens select.
#[derive(Clone, Copy, PartialEq)]
enum Select {
    /// Every activation but zeros.
    Nonzero,
    /// A threshold near the largest negative activations, which are -0.278 at most: of both signs, about half.
    Low,
    /// A threshold that only positive activations exceed, about one in five.
    High,
    /// One that nothing exceeds.
    Nothing,
    /// Given, for inputs that no two devices are compared on.
    Threshold(f64),
    /// Lists of about this share.
    Lists(f64),
}

/// What a case varies; the rest is contiguous and plain.
#[derive(Clone, Copy)]
struct SparseCase {
    rows: usize,
    hidden: usize,
    ffn: usize,
    dtypes: (DType, DType),
    select: Select,
    transposed_down: bool,
    x: Option<Fill>,
    weight_scale: f64,
    gap: usize,
    norm: bool,
    residual: bool,
    round_gate_up: bool,
    batch_invariant: bool,
    out: Option<DType>,
    purpose: Purpose,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    shapes(&mut cases);
    options(&mut cases);
    values(&mut cases);
    benches(&mut cases);
    cases
}

pub(super) fn tolerance(
    op: &str,
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Option<Tolerance> {
    let (x, out) = (inputs.get("x")?.dtype(), outputs.get("out")?.dtype());
    let longest_sum = inputs.get("up_weight")?.shape().iter().copied().max()?;
    (op == OP).then(|| mlp_tolerance(x, out, longest_sum))
}

fn shapes(cases: &mut Vec<Case>) {
    // Rows on both sides of every boundary between kernels, neurons and features on both sides of tiles; no neurons.
    const SHAPES: [[usize; 3]; 16] = [
        [0, 32, 64],
        [1, 1, 1],
        [1, 31, 33],
        [1, 512, 1_030],
        [1, 96, 5_000],
        [2, 4_104, 16],
        [3, 33, 31],
        [4, 64, 0],
        [7, 40, 129],
        [8, 256, 136],
        [9, 63, 65],
        [16, 128, 72],
        [17, 80, 33],
        [33, 64, 48],
        [65, 127, 129],
        [130, 72, 200],
    ];
    const WAYS: [(bool, Select); 4] = [
        (false, Select::Low),
        (true, Select::Lists(0.3)),
        (true, Select::Low),
        (false, Select::Lists(0.3)),
    ];
    for (place, sizes) in SHAPES.into_iter().enumerate() {
        for (turn, dtypes) in MLP_DTYPES.into_iter().enumerate() {
            // Every way in one type, in the others by turns.
            let ways =
                if dtypes == BF16 { 0..4 } else { (place + turn) % 4..(place + turn) % 4 + 1 };
            for (transposed_down, select) in WAYS[ways].iter().copied() {
                let case = SparseCase::new(sizes, dtypes, select);
                cases.push(SparseCase { transposed_down, ..case }.build(""));
            }
        }
    }
    for select in
        [Select::Nonzero, Select::High, Select::Nothing, Select::Lists(0.0), Select::Lists(1.0)]
    {
        for rows in [1, 5, 20] {
            for transposed_down in [false, true] {
                let case = SparseCase::new([rows, 72, 104], BF16, select);
                cases.push(SparseCase { transposed_down, ..case }.build(""));
            }
        }
    }
}

fn options(cases: &mut Vec<Case>) {
    const SELECTS: [Select; 2] = [Select::High, Select::Lists(0.4)];
    let shapes = [[1, 72, 104], [2, 65, 50], [5, 96, 40], [20, 64, 80], [70, 48, 136]];
    for (place, sizes) in shapes.into_iter().enumerate() {
        for (turn, dtypes) in MLP_DTYPES.into_iter().enumerate() {
            // Both in one type, in the others by turns.
            let first = (place + turn) % 2;
            let selects = if dtypes == BF16 { 0..2 } else { first..first + 1 };
            for select in SELECTS[selects].iter().copied() {
                let base = SparseCase::new(sizes, dtypes, select);
                let all = SparseCase { norm: true, residual: true, ..base };
                let transposed = SparseCase { transposed_down: true, ..all };
                let variants = [
                    SparseCase { residual: true, ..base },
                    SparseCase { norm: true, ..base },
                    SparseCase { round_gate_up: true, ..all },
                    SparseCase { batch_invariant: true, ..all },
                    SparseCase { gap: 1, ..all },
                    SparseCase { gap: 8, out: Some(DType::F32), ..all },
                    transposed,
                    SparseCase { batch_invariant: true, ..transposed },
                    SparseCase { gap: 1, round_gate_up: true, ..transposed },
                    SparseCase { gap: 8, out: Some(DType::F32), ..transposed },
                ];
                cases.extend(variants.map(|case| case.build("")));
            }
        }
    }
    let narrow = SparseCase::new([3, 64, 33], (DType::F32, DType::F32), Select::Low);
    for transposed_down in [false, true] {
        let case = SparseCase { out: Some(DType::BF16), gap: 1, transposed_down, ..narrow };
        cases.push(case.build(""));
    }
}

/// Activations of 1e4 and more, and a few huge ones among small ones.
fn values(cases: &mut Vec<Case>) {
    for rows in [1, 6, 40] {
        for dtypes in MLP_DTYPES {
            for transposed_down in [false, true] {
                let lists = SparseCase::new([rows, 192, 128], dtypes, Select::Lists(0.5));
                let lists = SparseCase { transposed_down, ..lists };
                // Weights small enough that h stays below f16's largest value, 65504.
                let x = Some(Fill::Outliers { scale: 1.0 });
                let case = SparseCase { x, weight_scale: 0.05, residual: true, ..lists };
                cases.push(case.build("outliers"));
                if dtypes.0 != DType::F16 {
                    let x = Some(Fill::Normal { scale: 3e4 });
                    cases.push(SparseCase { x, ..lists }.build("activations of 3e4"));
                    let x = Some(Fill::Steps { step: 32_768.0 });
                    let case = SparseCase { x, select: Select::High, ..lists };
                    cases.push(case.build("activations of 65536"));
                }
            }
        }
    }
}

/// One neuron in ten, by threshold and by list.
fn benches(cases: &mut Vec<Case>) {
    // silu of the upper decile of the standard normal distribution, 1.2816.
    const UPPER_DECILE: f64 = 1.003;
    for [hidden, ffn] in [[2_048, 8_192], [4_096, 11_008]] {
        for select in [Select::Threshold(UPPER_DECILE), Select::Lists(0.1)] {
            for transposed_down in [false, true] {
                let x = Some(Fill::Normal { scale: 1.0 });
                let case = SparseCase::new([1, hidden, ffn], BF16, select);
                let purpose = Purpose::Bench;
                cases.push(SparseCase { transposed_down, x, purpose, ..case }.build(""));
            }
        }
    }
}

impl SparseCase {
    fn new(sizes: [usize; 3], dtypes: (DType, DType), select: Select) -> SparseCase {
        let [rows, hidden, ffn] = sizes;
        SparseCase {
            rows,
            hidden,
            ffn,
            dtypes,
            select,
            transposed_down: false,
            x: None,
            weight_scale: 1.0,
            gap: 0,
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
        let longest = self.hidden.max(self.ffn);
        Case {
            op: OP,
            name: self.name(label),
            dtype: match activation == weight {
                true => activation.name().to_owned(),
                false => format!("{activation}/{weight}"),
            },
            purpose: self.purpose,
            tensors: self.tensors(),
            parameters: self.parameters(),
            output_gap: self.gap,
            tolerance: mlp_tolerance(activation, self.out.unwrap_or(activation), longest),
        }
    }

    fn name(&self, label: &str) -> String {
        let mut name = format!("rows={} hidden={} ffn={}", self.rows, self.hidden, self.ffn);
        name += &match self.select {
            Select::Nonzero => " threshold=0".to_owned(),
            Select::Low => " low threshold".to_owned(),
            Select::High => " high threshold".to_owned(),
            Select::Nothing => " threshold above all".to_owned(),
            Select::Threshold(threshold) => format!(" threshold={threshold}"),
            Select::Lists(share) => format!(" lists={share}"),
        };
        let gap = (self.gap > 0).then(|| format!("gap={}", self.gap));
        let out = self.out.map(|out| format!("out={out}"));
        let options = [
            self.transposed_down.then_some("transposed_down"),
            gap.as_deref(),
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

    /// A threshold cannot be met by devices that sum in different orders if an activation lies within rounding of it. With
    /// thresholds, activations and gate weights are small integers times powers of two, so that all devices have the same
    /// gates, and the threshold lies in the middle of a gap between the activations that such gates can have.
    fn threshold(&self) -> Option<f64> {
        let step = self.gate_step() * X_STEP;
        match self.select {
            Select::Nonzero => Some(0.0),
            Select::Low => Some(widest_gap(step, [0.15, 0.27])),
            Select::High => Some(widest_gap(step, [0.5, 0.9])),
            Select::Nothing => Some(1e30),
            Select::Threshold(threshold) => Some(threshold),
            Select::Lists(_) => None,
        }
    }

    /// So that gates have about the variance of a trained network's, 1.
    fn gate_step(&self) -> f64 {
        0.5f64.powi((self.hidden as f64).sqrt().log2().round() as i32)
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let (activation, weight) = self.dtypes;
        let (rows, hidden, ffn) = (self.rows, self.hidden, self.ffn);
        let normal = Fill::Normal { scale: 1.0 };
        let scaled = |columns: usize| {
            let scale = self.weight_scale / (columns.max(1) as f64).sqrt();
            Fill::Normal { scale }
        };
        let exact = !matches!(self.select, Select::Threshold(_) | Select::Lists(_));
        let (x, gate) = match exact {
            true => (Fill::Steps { step: X_STEP }, Fill::Steps { step: self.gate_step() }),
            false => (normal, scaled(hidden)),
        };
        let matrix = |name, dtype, shape: [usize; 2], fill| TensorSpec {
            name,
            dtype,
            shape: shape.to_vec(),
            gap: self.gap,
            fill,
        };
        let vector = |name, dtype, length, fill| TensorSpec {
            name,
            dtype,
            shape: vec![length],
            gap: 0,
            fill,
        };
        let down = if self.transposed_down { [ffn, hidden] } else { [hidden, ffn] };
        let mut tensors = vec![
            matrix("x", activation, [rows, hidden], self.x.unwrap_or(x)),
            matrix("gate_weight", weight, [ffn, hidden], gate),
            matrix("up_weight", weight, [ffn, hidden], scaled(hidden)),
            matrix("down_weight", weight, down, scaled(ffn)),
        ];
        if let Select::Lists(share) = self.select {
            let (total, below) = (list_lengths(rows, ffn, share).sum(), ffn);
            let offsets = Fill::ListOffsets { rows, below, share };
            tensors.extend([
                vector("neurons", DType::U32, total, Fill::Lists { rows, below, share }),
                vector("neuron_offsets", DType::U32, rows + 1, offsets),
            ]);
        }
        if self.norm {
            // Weights of 1 keep a row's normalised activations on steps, if of another size.
            let scale = if exact { 0.0 } else { 0.2 };
            tensors.push(vector("norm_weight", weight, hidden, Fill::AroundOne { scale }));
        }
        if self.residual {
            tensors.push(matrix("residual", activation, [rows, hidden], normal));
        }
        tensors
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = Parameters::new();
        let mut add = |name, value: Option<String>| {
            if let Some(value) = value {
                parameters = std::mem::take(&mut parameters).with(name, &value);
            }
        };
        let yes = |option: bool| option.then(|| "true".to_owned());
        add("threshold", self.threshold().map(|threshold| format!("{threshold}")));
        add("transposed_down", yes(self.transposed_down));
        add("eps", self.norm.then(|| "1e-5".to_owned()));
        add("rounding", self.round_gate_up.then(|| "round_gate_up".to_owned()));
        add("batch_invariant", yes(self.batch_invariant));
        add("out_dtype", self.out.map(|out| out.name().to_owned()));
        parameters
    }
}

/// The middle of the widest gap, within a range, between activations of gates that are multiples of `step`.
fn widest_gap(step: f64, [from, to]: [f64; 2]) -> f64 {
    let silu = |gate: f64| gate / (1.0 + (-gate).exp());
    let most = (8.0 / step) as i64;
    let within = |activation: &f64| (from..to).contains(activation);
    let gates = (-most..=most).map(|gate| gate as f64 * step);
    let mut activations: Vec<f64> =
        gates.map(|gate| silu(gate).abs()).filter(within).chain([from, to]).collect();
    activations.sort_by(f64::total_cmp);
    let gaps = activations.windows(2).map(|pair| (pair[1] - pair[0], (pair[0] + pair[1]) / 2.0));
    gaps.max_by(|a, b| a.0.total_cmp(&b.0)).map_or(from, |(_, middle)| middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No activation of a case comes within ten times what a device's `silu` may be off by.
    #[test]
    fn thresholds_lie_in_gaps() {
        for hidden in [1, 31, 512, 4_104] {
            for select in [Select::Low, Select::High] {
                let case = SparseCase::new([1, hidden, 1], BF16, select);
                let (threshold, step) = (case.threshold().unwrap(), case.gate_step() * X_STEP);
                let silu = |gate: f64| (gate / (1.0 + (-gate).exp())).abs();
                for gate in (-100_000..100_000).map(|gate| f64::from(gate) * step) {
                    let distance = (silu(gate) - threshold).abs() / threshold;
                    assert!(distance > 1e-4, "{hidden}: {gate} is {distance} from {threshold}");
                }
            }
        }
    }
}
