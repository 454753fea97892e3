//! The pruning gathers on random sets, shapes, gaps and options.

use proptest::prelude::*;
use siluette::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use siluette::{DType, Parameters};

use crate::properties::{holds_everywhere, tolerance};

const NORM_SCOPES: [&str; 3] = ["full", "selected", "selected_sum_over_d"];

fn floats(name: &'static str, dtype: DType, shape: &[usize], gap: usize) -> TensorSpec {
    let gap = if shape.len() == 2 { gap } else { 0 };
    TensorSpec { name, dtype, shape: shape.to_vec(), gap, fill: Fill::Normal { scale: 0.3 } }
}

/// `count` of `below` features.
fn indices(name: &'static str, count: usize, below: usize) -> TensorSpec {
    let fill = Fill::Ascending { below };
    TensorSpec { name, dtype: DType::U32, shape: vec![count], gap: 0, fill }
}

fn case(
    op: &'static str,
    seed: u32,
    dtype: DType,
    tensors: Vec<TensorSpec>,
    parameters: Parameters,
) -> Case {
    let output_gap = tensors[0].gap;
    Case {
        op,
        name: format!("random {seed}"),
        dtype: dtype.name().to_owned(),
        purpose: Purpose::Conformance,
        tensors,
        parameters,
        output_gap,
        tolerance: tolerance(dtype),
    }
}

/// So many of `features`, from none to all.
fn share(features: usize, percent: usize) -> usize {
    features * percent / 100
}

fn scatter_norm_gather_case() -> impl Strategy<Value = Case> {
    let shape = (0usize..6, 1usize..300, 0usize..=100, 0usize..=100, 0usize..9);
    (shape, 0usize..3, 0usize..3, any::<bool>(), any::<u32>()).prop_map(
        |((rows, features, written, read, gap), dtype, scope, has_rank, seed)| {
            let dtype = DType::FLOATS[dtype];
            let (written, read) = (share(features, written), share(features, read));
            let mut tensors = vec![
                floats("residual", dtype, &[rows, features], gap),
                floats("y", dtype, &[rows, written], gap),
                indices("out_indices", written, features),
                floats("norm_weight", dtype, &[features], 0),
                indices("in_indices", read, features),
            ];
            if has_rank {
                let fill = Fill::Rank { of: "out_indices", count: written };
                let (dtype, shape) = (DType::I32, vec![features]);
                tensors.push(TensorSpec { name: "out_rank", dtype, shape, gap: 0, fill });
            }
            let parameters = Parameters::new().with("norm_scope", NORM_SCOPES[scope]);
            case("scatter_norm_gather", seed, dtype, tensors, parameters)
        },
    )
}

fn pruned_gated_mlp_case() -> impl Strategy<Value = Case> {
    let shape = (0usize..40, 1usize..90, 0usize..90, 0usize..=100, 0usize..=100, 0usize..9);
    (shape, 0usize..3, 0usize..3, any::<[bool; 2]>(), any::<u32>()).prop_map(
        |((rows, hidden, ffn, read, written, gap), dtype, scope, [norm, residual], seed)| {
            let dtype = DType::FLOATS[dtype];
            let (read, written) = (share(hidden, read), share(hidden, written));
            let mut tensors = vec![
                floats("x", dtype, &[rows, hidden], gap),
                indices("in_indices", read, hidden),
                floats("gate_weight", dtype, &[ffn, read], gap),
                floats("up_weight", dtype, &[ffn, read], gap),
                floats("down_weight", dtype, &[written, ffn], gap),
                indices("out_indices", written, hidden),
            ];
            let mut parameters = Parameters::new();
            if norm {
                tensors.push(floats("norm_weight", dtype, &[hidden], 0));
                parameters = parameters.with("norm_scope", NORM_SCOPES[scope]);
            }
            if residual {
                tensors.push(floats("residual", dtype, &[rows, hidden], gap));
            }
            case("pruned_gated_mlp", seed, dtype, tensors, parameters)
        },
    )
}

fn select_top_case() -> impl Strategy<Value = Case> {
    (0usize..9_000, 0usize..=100, 0usize..3, any::<bool>(), any::<u32>()).prop_map(
        |(elements, percent, dtype, ties, seed)| {
            let dtype = DType::FLOATS[dtype];
            let fill = if ties { Fill::Extremes } else { Fill::Normal { scale: 1.0 } };
            let scores = TensorSpec { fill, ..floats("scores", dtype, &[elements], 0) };
            let k = share(elements, percent).to_string();
            let parameters = Parameters::new().with("k", &k);
            let tolerance = Tolerance::Exact;
            Case { tolerance, ..case("select_top", seed, dtype, vec![scores], parameters) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scatter_norm_gather_of_any_sets(case in scatter_norm_gather_case()) {
        holds_everywhere(&case)?;
    }

    #[test]
    fn pruned_gated_mlp_of_any_sets(case in pruned_gated_mlp_case()) {
        holds_everywhere(&case)?;
    }

    #[test]
    fn select_top_of_any_scores(case in select_top_case()) {
        holds_everywhere(&case)?;
    }
}
