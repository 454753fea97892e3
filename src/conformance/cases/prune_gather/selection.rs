//! Cases of the operations that choose elements. Nothing is rounded: results are exact.

use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::parameters::Parameters;

pub(super) const OPERATIONS: [&str; 1] = ["compact_mask"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    compact_mask(&mut cases);
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
