//! Properties that hold for any shape, stride and option, checked on random ones.

use std::sync::LazyLock;

use proptest::prelude::*;
use siluette::conformance::{Case, Fill, Oracle, Purpose, Status, TensorSpec, Tolerance};
use siluette::{Backend, DType, Device, Layout, Parameters};

use crate::support::open;

/// Random shapes, gaps and dtypes of `silu_mul` against the oracle.
fn silu_mul_case() -> impl Strategy<Value = Case> {
    (0usize..40, 0usize..300, 0usize..9, 0usize..9, 0usize..3, any::<u32>()).prop_map(
        |(rows, columns, gap, output_gap, dtype, seed)| {
            let dtype = DType::FLOATS[dtype];
            let spec = |name, gap| TensorSpec {
                name,
                dtype,
                shape: vec![rows, columns],
                gap,
                fill: Fill::Normal { scale: 8.0 },
            };
            Case {
                op: "silu_mul",
                name: format!("random {seed}"),
                dtype: dtype.name().to_owned(),
                purpose: Purpose::Conformance,
                tensors: vec![spec("gate", gap), spec("up", output_gap)],
                parameters: Parameters::new(),
                output_gap,
                tolerance: tolerance(dtype),
            }
        },
    )
}

/// Random shapes, gaps, dtypes and options of `gated_mlp` against the oracle.
fn gated_mlp_case() -> impl Strategy<Value = Case> {
    let shape = (0usize..80, 1usize..70, 0usize..70, 0usize..9);
    (shape, 0usize..3, any::<[bool; 4]>(), any::<u32>()).prop_map(
        |((rows, hidden, ffn, gap), dtype, [norm, residual, biases, early], seed)| {
            let dtype = DType::FLOATS[dtype];
            let spec = |name, shape: &[usize]| TensorSpec {
                name,
                dtype,
                shape: shape.to_vec(),
                gap: if shape.len() == 2 { gap } else { 0 },
                fill: Fill::Normal { scale: 0.3 },
            };
            let mut tensors = vec![
                spec("x", &[rows, hidden]),
                spec("gate_weight", &[ffn, hidden]),
                spec("up_weight", &[ffn, hidden]),
                spec("down_weight", &[hidden, ffn]),
            ];
            if norm {
                tensors.push(spec("norm_weight", &[hidden]));
            }
            if residual {
                tensors.push(spec("residual", &[rows, hidden]));
            }
            if biases {
                tensors.push(spec("gate_bias", &[ffn]));
                tensors.push(spec("down_bias", &[hidden]));
            }
            let rounding = if early { "round_gate_up" } else { "keep_f32" };
            Case {
                op: "gated_mlp",
                name: format!("random {seed}"),
                dtype: dtype.name().to_owned(),
                purpose: Purpose::Conformance,
                tensors,
                parameters: Parameters::new().with("rounding", rounding),
                output_gap: gap,
                tolerance: tolerance(dtype),
            }
        },
    )
}

/// As wide as the case list's for the largest shapes here; the mean square cannot be held for a handful
/// of elements.
pub fn tolerance(dtype: DType) -> Tolerance {
    let epsilon = dtype.epsilon().unwrap();
    let f32_sum = 30.0 * f64::from(f32::EPSILON);
    Tolerance::Rounded { inner: epsilon + f32_sum, outer: 0.5 * epsilon, nmse: f64::INFINITY }
}

pub fn holds_everywhere(case: &Case) -> Result<(), TestCaseError> {
    let oracle = Oracle::new(case).map_err(|error| TestCaseError::fail(error.to_string()))?;
    for device in &*DEVICES {
        let status = oracle.check(device).status;
        let description = format!("{}: {status:?} for {:?}", device.name(), case.tensors);
        prop_assert!(!matches!(status, Status::Fail(_)), "{}", description);
    }
    Ok(())
}

/// Opened once: a device takes longer to open than a case to run.
static DEVICES: LazyLock<Vec<Device>> = LazyLock::new(|| {
    [Backend::Cpu, Backend::Wgpu, Backend::Cuda].into_iter().filter_map(open).collect()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn silu_mul_of_any_shape(case in silu_mul_case()) {
        holds_everywhere(&case)?;
    }

    #[test]
    fn gated_mlp_of_any_shape(case in gated_mlp_case()) {
        holds_everywhere(&case)?;
    }

    #[test]
    fn layouts_span_their_last_element(
        shape in prop::collection::vec(0usize..6, 0..=4),
        extra in prop::collection::vec(0usize..5, 4),
    ) {
        let mut strides = vec![1; shape.len()];
        for axis in (0..shape.len().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * shape[axis + 1].max(1) + extra[axis];
        }
        let layout = Layout::strided(DType::F32, &shape, &strides).unwrap();
        let last: usize = shape.iter().zip(&strides).map(|(&n, &stride)| n.saturating_sub(1) * stride).sum();
        let expected = if shape.contains(&0) { 0 } else { last + 1 };
        prop_assert_eq!(layout.span(), expected);
        prop_assert_eq!(layout.elements(), shape.iter().product::<usize>());
    }

    #[test]
    fn hostile_layouts_never_panic(
        shape in prop::collection::vec(any::<usize>(), 0..6),
        strides in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let _ = Layout::contiguous(DType::F16, &shape);
        if let Ok(layout) = Layout::strided(DType::F16, &shape, &strides) {
            prop_assert!(layout.span().checked_mul(2).is_some());
        }
    }
}
