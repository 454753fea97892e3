//! Cases of the operations that choose elements. Nothing is rounded: results are exact.

use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::parameters::Parameters;

pub(super) const OPERATIONS: [&str; 5] =
    ["compact_mask", "invert_indices", "select_top", "coupled_neurons", "zero_entries"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    compact_mask(&mut cases);
    invert_indices(&mut cases);
    select_top(&mut cases);
    coupled_neurons(&mut cases);
    zero_entries(&mut cases);
    cases
}

fn compact_mask(cases: &mut Vec<Case>) {
    let mut push = |shape: &[usize], gap: usize, share: f64, purpose: Purpose| {
        let mut name = format!("mask={shape:?} share={share}");
        if gap > 0 {
            name += &format!(" gap={gap}");
        }
        let fill = Fill::Mask { share };
        cases.push(Case {
            op: "compact_mask",
            name,
            dtype: "u8".to_owned(),
            purpose,
            tensors: vec![TensorSpec {
                name: "mask",
                dtype: DType::U8,
                shape: shape.to_vec(),
                gap,
                fill,
            }],
            parameters: Parameters::new(),
            output_gap: gap,
            tolerance: Tolerance::Exact,
        });
    };
    // 2048 and 4096 are the tiles of a workgroup and of a block.
    for features in [0, 1, 31, 33, 257, 2_047, 2_049, 4_095, 4_096, 4_097, 10_007] {
        push(&[features], 0, 0.5, Purpose::Conformance);
    }
    for share in [0.0, 0.001, 1.0] {
        push(&[4_099], 0, share, Purpose::Conformance);
    }
    for (masks, features) in [(0, 7), (5, 0), (1, 1), (7, 33), (300, 3), (3, 4_100)] {
        push(&[masks, features], 0, 0.5, Purpose::Conformance);
    }
    // 1, 2 and 3 let rows start anywhere in a word.
    for gap in [1, 2, 3, 17] {
        push(&[4, 1_000], gap, 0.3, Purpose::Conformance);
    }
    // Five sets a layer of LLaMA-2 7B, and one long mask.
    push(&[160, 11_008], 0, 0.5, Purpose::Bench);
    push(&[1 << 20], 0, 0.5, Purpose::Bench);
}

fn invert_indices(cases: &mut Vec<Case>) {
    let mut push = |features: usize, selected: usize, below: usize, purpose: Purpose| {
        let range = if below > features { " beyond" } else { "" };
        cases.push(Case {
            op: "invert_indices",
            name: format!("features={features} selected={selected}{range}"),
            dtype: "u32".to_owned(),
            purpose,
            tensors: vec![TensorSpec {
                name: "indices",
                dtype: DType::U32,
                shape: vec![selected],
                gap: 0,
                fill: Fill::Ascending { below },
            }],
            parameters: Parameters::new().with("features", &features.to_string()),
            output_gap: 0,
            tolerance: Tolerance::Exact,
        });
    };
    // 1024 features are a block's.
    for features in [31, 33, 1_023, 1_024, 1_025, 5_003] {
        for selected in [0, 1, features / 2, features] {
            push(features, selected, features, Purpose::Conformance);
        }
    }
    for (features, selected) in [(0, 0), (1, 0), (1, 1)] {
        push(features, selected, features, Purpose::Conformance);
    }
    // The last of them are no features.
    for (features, selected) in [(0, 3), (7, 1), (1_000, 257), (1_000, 999), (3, 1_000)] {
        push(features, selected, 2 * features + selected, Purpose::Conformance);
    }
    push(11_008, 5_504, 11_008, Purpose::Bench);
}

fn select_top(cases: &mut Vec<Case>) {
    let mut push = |shape: &[usize], k: usize, gap: usize, dtype: DType, fill: Fill| {
        let mut name = format!("scores={shape:?} k={k}");
        if gap > 0 {
            name += &format!(" gap={gap}");
        }
        name += match fill {
            Fill::Extremes => " extremes",
            Fill::Normal { scale: 0.0 } => " equal",
            _ => "",
        };
        cases.push(Case {
            op: "select_top",
            name,
            dtype: dtype.name().to_owned(),
            purpose: Purpose::Conformance,
            tensors: vec![TensorSpec { name: "scores", dtype, shape: shape.to_vec(), gap, fill }],
            parameters: Parameters::new().with("k", &k.to_string()),
            output_gap: 0,
            tolerance: Tolerance::Exact,
        });
    };
    let normal = Fill::Normal { scale: 1.0 };
    for dtype in DType::FLOATS {
        for (elements, k) in [(0, 0), (1, 0), (1, 1), (31, 31), (33, 1), (33, 32), (1_000, 7)] {
            push(&[elements], k, 0, dtype, normal);
        }
        // Tiles of 2048 and 4096, and a member or two in each.
        for elements in [2_047, 2_049, 4_095, 4_097, 10_007] {
            push(&[elements], elements / 2_000, 0, dtype, normal);
            push(&[elements], elements / 2, 0, dtype, normal);
        }
        // Ties by the thousand, zeros of both signs among them, cut in the middle of a tile.
        for k in [1, 500, 2_048, 5_000, 10_006] {
            push(&[10_007], k, 0, dtype, Fill::Extremes);
            push(&[10_007], k, 0, dtype, Fill::Normal { scale: 0.0 });
        }
        for gap in [1, 3, 8] {
            push(&[37, 301], 1_000, gap, dtype, normal);
        }
        push(&[3, 4_000], 11_999, 0, dtype, normal);
    }
    // More tiles than a block walks over at once.
    push(&[2_200_000], 40_000, 0, DType::BF16, normal);
    // Enough for the CPU to look at a sample first.
    push(&[300_000], 150_000, 0, DType::F32, normal);
    push(&[300_000], 22, 0, DType::F16, normal);
    // A matrix of LLaMA-2 7B, and more.
    let sizes = DType::FLOATS.map(|dtype| (dtype, 4_096 * 11_008));
    for (dtype, elements) in sizes.into_iter().chain([(DType::F32, 100_000_000)]) {
        cases.push(Case {
            op: "select_top",
            name: format!("scores=[{elements}] k=22"),
            dtype: dtype.name().to_owned(),
            purpose: Purpose::Bench,
            tensors: vec![TensorSpec {
                name: "scores",
                dtype,
                shape: vec![elements],
                gap: 0,
                fill: normal,
            }],
            parameters: Parameters::new().with("k", "22"),
            output_gap: 0,
            tolerance: Tolerance::Exact,
        });
    }
}

fn coupled_neurons(cases: &mut Vec<Case>) {
    let mut push = |shape: &[usize], [p, q]: [&str; 2], gap: usize, dtype: DType, fill: Fill| {
        let elements: usize = shape.iter().product();
        for mode in ["intersect", "positional_compat"] {
            let spec = |name| TensorSpec { name, dtype, shape: shape.to_vec(), gap, fill };
            let extremes = if fill == Fill::Extremes { " extremes" } else { "" };
            cases.push(Case {
                op: "coupled_neurons",
                name: format!("scores={shape:?} p={p} q={q} gap={gap} {mode}{extremes}"),
                dtype: dtype.name().to_owned(),
                purpose: if elements > 1 << 22 { Purpose::Bench } else { Purpose::Conformance },
                tensors: vec![spec("general"), spec("first"), spec("second")],
                parameters: Parameters::new().with("p", p).with("q", q).with("mode", mode),
                output_gap: 0,
                tolerance: Tolerance::Exact,
            });
        }
    };
    let normal = Fill::Normal { scale: 1.0 };
    for dtype in DType::FLOATS {
        for shape in [&[0][..], &[1], &[31], &[33], &[2_047], &[4_097], &[33, 305]] {
            push(shape, ["0.2", "0.4"], 0, dtype, normal);
        }
        for shares in [["0", "0.1"], ["0.1", "0"], ["0", "1"], ["1", "1"], ["0.001", "0.05"]] {
            push(&[5_003], shares, 0, dtype, normal);
        }
        // The three tensors' ties fall on the same entries.
        push(&[5_003], ["0.1", "0.3"], 0, dtype, Fill::Extremes);
        for gap in [1, 3, 8] {
            push(&[21, 205], ["0.1", "0.3"], gap, dtype, normal);
        }
        // A matrix of LLaMA-2 7B, with the paper's shares.
        push(&[4_096, 11_008], ["5e-7", "5e-7"], 0, dtype, normal);
    }
}

fn zero_entries(cases: &mut Vec<Case>) {
    let mut push =
        |shape: &[usize], k: usize, count: bool, gap: usize, dtype: DType, fill: Fill| {
            let elements: usize = shape.iter().product();
            let index = |name, length: usize, below: usize| TensorSpec {
                name,
                dtype: DType::U32,
                shape: vec![length],
                gap: 0,
                fill: Fill::Ascending { below },
            };
            let mut name = format!("weight={shape:?} k={k} gap={gap}");
            let weight = TensorSpec { name: "weight", dtype, shape: shape.to_vec(), gap, fill };
            let mut tensors = vec![weight, index("indices", k, elements)];
            if count {
                name += " count";
                tensors.push(index("count", 1, k + 1));
            }
            if fill == Fill::Extremes {
                name += " extremes";
            }
            cases.push(Case {
                op: "zero_entries",
                name,
                dtype: dtype.name().to_owned(),
                purpose: if elements > 1 << 22 { Purpose::Bench } else { Purpose::Conformance },
                tensors,
                parameters: Parameters::new(),
                output_gap: gap,
                tolerance: Tolerance::Exact,
            });
        };
    let normal = Fill::Normal { scale: 1.0 };
    for dtype in DType::FLOATS {
        push(&[0], 0, false, 0, dtype, normal);
        push(&[0, 5], 0, true, 0, dtype, normal);
        push(&[5, 0], 0, false, 0, dtype, normal);
        for elements in [1, 31, 33, 2_047, 2_049] {
            for k in std::collections::BTreeSet::from([0, 1, elements]) {
                push(&[elements], k, false, 0, dtype, normal);
            }
        }
        push(&[33, 305], 700, true, 0, dtype, normal);
        push(&[2, 4_100], 300, false, 0, dtype, Fill::Extremes);
        for gap in [1, 3, 8] {
            push(&[21, 205], 500, true, gap, dtype, normal);
            push(&[21, 208], 500, false, gap, dtype, normal);
        }
        push(&[4_096, 11_008], 22, true, 0, dtype, normal);
    }
}
