//! Cases of the operations that move features between rows of different widths.

mod gather;
mod scatter;

use crate::conformance::{Case, Fill, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::operation::NamedLayouts;

const F32_EPSILON: f64 = f32::EPSILON as f64;
const SCOPES: [&str; 3] = ["full", "selected", "selected_sum_over_d"];
const NORMAL: Fill = Fill::Normal { scale: 2.0 };

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    gather::gather_norm(&mut cases);
    scatter::scatter_add(&mut cases);
    scatter::scatter_norm_gather(&mut cases);
    gather::compact_weight(&mut cases);
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
