//! Cases of pruned and masked blocks.

use super::block_case::{BlockCase, Kind, linear_tolerance};
use crate::conformance::cases::silu_mlp::mlp_tolerance;
use crate::conformance::{Case, Fill, Purpose, Tolerance};
use crate::dtype::DType;
use crate::operation::NamedLayouts;
use crate::ops::silu_mlp::MLP_DTYPES;

const BF16: (DType, DType) = (DType::BF16, DType::BF16);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    linear(&mut cases);
    pruned(&mut cases);
    masked(&mut cases);
    benches(&mut cases);
    cases
}

pub(super) fn tolerance(
    op: &str,
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Option<Tolerance> {
    let (x, out) = (inputs.get("x")?.dtype(), outputs.get("out")?.dtype());
    let longest_sum = |weight: &str| inputs.get(weight)?.shape().iter().copied().max();
    match op {
        "pruned_linear" => {
            let rounds = inputs.contains_key("norm_weight");
            Some(linear_tolerance(x, rounds, out, longest_sum("weight")?))
        }
        "pruned_gated_mlp" | "masked_gated_mlp" => {
            Some(mlp_tolerance(x, out, longest_sum("up_weight")?))
        }
        _ => None,
    }
}

fn linear(cases: &mut Vec<Case>) {
    // Rows, hidden, inputs, outputs and width on both sides of every boundary between kernels and tiles; one
    // feature, every feature, none.
    const SHAPES: [[usize; 5]; 18] = [
        [0, 32, 16, 20, 40],
        [1, 1, 1, 1, 1],
        [1, 700, 1, 1, 900],
        [1, 512, 300, 130, 257],
        [2, 64, 31, 33, 70],
        [3, 33, 33, 31, 31],
        [4, 40, 0, 9, 30],
        [4, 40, 20, 0, 30],
        [8, 256, 128, 127, 256],
        [9, 63, 40, 65, 129],
        [17, 80, 8, 16, 80],
        [33, 64, 32, 64, 64],
        [64, 128, 120, 128, 300],
        [65, 127, 64, 129, 260],
        [70, 40, 0, 24, 33],
        [70, 40, 16, 0, 33],
        [130, 600, 520, 72, 100],
        [130, 64, 40, 3, 4_096],
    ];
    for [rows, hidden, inputs, outputs, width] in SHAPES {
        for dtypes in MLP_DTYPES {
            for (gathers, scatters) in [(false, false), (true, false), (false, true), (true, true)]
            {
                let inputs = if gathers { inputs } else { hidden };
                let sizes = [rows, hidden, inputs, 0, outputs];
                let case = BlockCase::new(Kind::Linear { gathers, scatters }, sizes, dtypes);
                let width = if scatters { width } else { outputs };
                cases.push(BlockCase { width, residual: scatters, ..case }.build(""));
            }
        }
    }
    for sizes in [[1, 72, 40, 0, 50], [5, 96, 40, 0, 24], [20, 64, 33, 0, 80], [70, 48, 24, 0, 136]]
    {
        for dtypes in MLP_DTYPES {
            let both = Kind::Linear { gathers: true, scatters: true };
            let case = BlockCase { width: 140, ..BlockCase::new(both, sizes, dtypes) };
            let all = BlockCase { bias: true, residual: true, ..case };
            let dense = BlockCase {
                kind: Kind::Linear { gathers: false, scatters: false },
                inputs: sizes[1],
                width: sizes[4],
                bias: true,
                ..case
            };
            let gathered = Kind::Linear { gathers: true, scatters: false };
            let variants = [
                dense,
                BlockCase { residual: true, norm_scope: Some("full"), ..dense },
                BlockCase { kind: gathered, norm_scope: Some("selected"), ..dense }
                    .reading(sizes[2]),
                BlockCase { norm_scope: Some("full"), ..all },
                BlockCase { norm_scope: Some("selected"), gap: 1, ..all },
                BlockCase { norm_scope: Some("selected_sum_over_d"), batch_invariant: true, ..all },
                BlockCase { gap: 8, out: Some(DType::F32), ..all },
            ];
            cases.extend(variants.map(|case| case.build("")));
        }
    }
}

fn pruned(cases: &mut Vec<Case>) {
    // As for the dense block, with sets that are empty, full, of one member, or far apart.
    const SHAPES: [[usize; 5]; 24] = [
        [0, 32, 16, 64, 16],
        [1, 1, 1, 1, 1],
        [1, 64, 1, 33, 1],
        [1, 512, 257, 1_030, 200],
        [1, 4_096, 3, 8, 2],
        [2, 64, 31, 96, 33],
        [3, 33, 33, 31, 33],
        [4, 200, 0, 72, 100],
        [4, 200, 100, 0, 100],
        [4, 200, 100, 72, 0],
        [4, 64, 0, 0, 0],
        [7, 40, 1, 1, 40],
        [8, 256, 128, 136, 127],
        [9, 63, 40, 65, 63],
        [16, 192, 96, 160, 31],
        [17, 80, 40, 72, 8],
        [33, 64, 32, 48, 64],
        [64, 300, 128, 128, 129],
        [65, 127, 64, 129, 60],
        [70, 64, 0, 40, 32],
        [70, 64, 32, 40, 0],
        [128, 64, 64, 64, 64],
        [130, 192, 96, 200, 129],
        [200, 4_096, 24, 520, 3],
    ];
    for sizes in SHAPES {
        for dtypes in MLP_DTYPES {
            cases.push(BlockCase::new(Kind::Pruned, sizes, dtypes).build(""));
        }
    }
    for sizes in [
        [1, 72, 40, 104, 33],
        [2, 65, 33, 50, 20],
        [5, 96, 48, 40, 60],
        [20, 64, 31, 80, 33],
        [70, 48, 24, 136, 30],
    ] {
        for dtypes in MLP_DTYPES {
            let base = BlockCase::new(Kind::Pruned, sizes, dtypes);
            let all = BlockCase { norm_scope: Some("full"), residual: true, ..base };
            let variants = [
                BlockCase { residual: true, ..base },
                BlockCase { norm_scope: Some("full"), ..base },
                BlockCase { norm_scope: Some("selected"), ..all },
                BlockCase { norm_scope: Some("selected_sum_over_d"), ..all },
                BlockCase { round_gate_up: true, ..all },
                BlockCase { batch_invariant: true, ..all },
                BlockCase { gap: 1, ..all },
                BlockCase { gap: 8, out: Some(DType::F32), ..all },
            ];
            cases.extend(variants.map(|case| case.build("")));
        }
    }
    values(cases, Kind::Pruned, [96, 90]);
    let case = BlockCase::new(Kind::Pruned, [3, 64, 20, 33, 31], (DType::F32, DType::F32));
    cases.push(BlockCase { out: Some(DType::BF16), gap: 1, ..case }.build(""));
}

fn masked(cases: &mut Vec<Case>) {
    let dense = |[rows, hidden, ffn]: [usize; 3]| [rows, hidden, hidden, ffn, hidden];
    for shape in [
        [0, 32, 64],
        [1, 1, 1],
        [1, 512, 1_030],
        [3, 33, 31],
        [4, 64, 0],
        [9, 63, 65],
        [17, 80, 72],
        [65, 127, 129],
        [130, 192, 200],
    ] {
        for dtypes in MLP_DTYPES {
            let base = BlockCase::new(Kind::Masked, dense(shape), dtypes);
            cases.push(base.build(""));
        }
    }
    for shape in [[1, 72, 104], [5, 96, 40], [20, 64, 80], [70, 48, 136]] {
        for dtypes in MLP_DTYPES {
            let base = BlockCase::new(Kind::Masked, dense(shape), dtypes);
            let all = BlockCase { norm_scope: Some("full"), residual: true, ..base };
            let soft = BlockCase { masks: Fill::AroundOne { scale: 0.3 }, ..all };
            let variants = [
                BlockCase { masks: soft.masks, ..base }.build("soft"),
                soft.build("soft"),
                BlockCase { masks: Fill::Mask { share: 0.0 }, ..all }.build("nothing kept"),
                BlockCase { masks: Fill::Mask { share: 1.0 }, ..all }.build("everything kept"),
                BlockCase { round_gate_up: true, ..soft }.build("soft"),
                BlockCase { batch_invariant: true, ..soft }.build("soft"),
                BlockCase { gap: 1, ..soft }.build("soft"),
                BlockCase { gap: 8, out: Some(DType::F32), ..soft }.build("soft"),
            ];
            cases.extend(variants);
        }
    }
    values(cases, Kind::Masked, [192, 192]);
}

/// Activations of 1e4 and more, and a few huge ones among small ones.
fn values(cases: &mut Vec<Case>, kind: Kind, [inputs, outputs]: [usize; 2]) {
    for rows in [1, 6, 40, 80] {
        for dtypes in MLP_DTYPES {
            let base = BlockCase::new(kind, [rows, 192, inputs, 128, outputs], dtypes);
            // Weights small enough that h stays below f16's largest value, 65504.
            let outliers = Fill::Outliers { scale: 1.0 };
            let case = BlockCase { x: outliers, weight_scale: 0.05, residual: true, ..base };
            cases.push(case.build("outliers"));
            if dtypes.0 != DType::F16 {
                let case = BlockCase { x: Fill::Normal { scale: 3e4 }, ..base };
                cases.push(case.build("activations of 3e4"));
            }
        }
    }
}

/// Half of a block's weights, three ways: half of the features, half of the neurons, or some of both.
fn benches(cases: &mut Vec<Case>) {
    for (hidden, ffn, [features, neurons]) in
        [(2_048, 8_192, [1_448, 5_792]), (4_096, 11_008, [2_896, 7_784])]
    {
        for rows in [1, 8] {
            let ways = [
                [hidden / 2, ffn, hidden / 2],
                [hidden, ffn / 2, hidden],
                [features, neurons, features],
            ];
            for [inputs, ffn, outputs] in ways {
                let sizes = [rows, hidden, inputs, ffn, outputs];
                let case = BlockCase::new(Kind::Pruned, sizes, BF16);
                let norm_scope = Some("full");
                let bench = BlockCase { norm_scope, purpose: Purpose::Bench, ..case };
                cases.push(bench.build(""));
            }
            let both = Kind::Linear { gathers: true, scatters: true };
            for (kind, inputs) in
                [(both, hidden / 2), (Kind::Linear { gathers: false, scatters: false }, hidden)]
            {
                let outputs = inputs;
                let case = BlockCase::new(kind, [rows, hidden, inputs, 0, outputs], BF16);
                let residual = kind == both;
                cases.push(BlockCase { residual, purpose: Purpose::Bench, ..case }.build(""));
            }
        }
    }
    let masked = BlockCase::new(Kind::Masked, [8, 2_048, 2_048, 8_192, 2_048], BF16);
    cases.push(BlockCase { purpose: Purpose::Bench, ..masked }.build(""));
}
