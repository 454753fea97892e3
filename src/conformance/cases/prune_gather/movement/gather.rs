//! Cases of `gather_norm` and `compact_weight`.

use super::{
    NORMAL, SCOPES, SHAPES, copy_tolerance, dtypes_name, indices, matrix, norm_tolerance, vector,
};
use crate::conformance::{Case, Fill, Purpose, Tolerance};
use crate::dtype::DType;
use crate::ops::silu_mlp::MLP_DTYPES;
use crate::parameters::Parameters;

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

pub(super) fn gather_norm(cases: &mut Vec<Case>) {
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

/// Shape of the weight, rows and columns kept, padding, gap.
type CompactCase = ([usize; 2], Option<usize>, Option<usize>, usize, usize);

pub(super) fn compact_weight(cases: &mut Vec<Case>) {
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
