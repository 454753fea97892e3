//! Cases of `scatter_add` and `scatter_norm_gather`.

use super::{
    NORMAL, SCOPES, SHAPES, dtypes_name, fused_tolerance, indices, matrix, sum_tolerance, vector,
};
use crate::conformance::{Case, Fill, Purpose, TensorSpec};
use crate::dtype::DType;
use crate::ops::silu_mlp::MLP_DTYPES;
use crate::parameters::Parameters;

/// What a case of `scatter_add` or `scatter_norm_gather` varies.
#[derive(Clone, Copy)]
struct ScatterCase {
    /// Rows, features, and how many of these are written.
    shape: [usize; 3],
    dtypes: (DType, DType),
    /// Of `scatter_norm_gather`: how many features the next block reads, and the norm's scope.
    read: Option<(usize, &'static str)>,
    has_rank: bool,
    gap: usize,
    fill: Fill,
    out: Option<DType>,
    purpose: Purpose,
}

impl ScatterCase {
    fn new(shape: [usize; 3], dtypes: (DType, DType)) -> ScatterCase {
        ScatterCase {
            shape,
            dtypes,
            read: None,
            has_rank: false,
            gap: 0,
            fill: NORMAL,
            out: None,
            purpose: Purpose::Conformance,
        }
    }

    fn build(&self, label: &str) -> Case {
        let ([_, features, _], (activation, _)) = (self.shape, self.dtypes);
        let out = self.out.unwrap_or(activation);
        let mut parameters = Parameters::new();
        if let Some((_, scope)) = self.read {
            parameters = parameters.with("eps", "1e-6").with("norm_scope", scope);
        }
        if self.out.is_some() {
            parameters = parameters.with("out_dtype", out.name());
        }
        Case {
            op: if self.read.is_some() { "scatter_norm_gather" } else { "scatter_add" },
            name: self.name(label),
            dtype: dtypes_name(self.dtypes),
            purpose: self.purpose,
            tensors: self.tensors(),
            parameters,
            output_gap: self.gap,
            tolerance: match self.read {
                Some(_) => fused_tolerance(features, activation, out),
                None => sum_tolerance(out),
            },
        }
    }

    fn name(&self, label: &str) -> String {
        let [rows, features, written] = self.shape;
        let mut name = format!("rows={rows} features={features} written={written}");
        if let Some((read, scope)) = self.read {
            name += &format!(" read={read} norm={scope}");
        }
        if self.has_rank {
            name += " rank";
        }
        if self.gap > 0 {
            name += &format!(" gap={}", self.gap);
        }
        if let Some(out) = self.out {
            name += &format!(" out={out}");
        }
        name + label
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let ([rows, features, written], (activation, weight)) = (self.shape, self.dtypes);
        let (of, rank) = match self.read {
            Some(_) => ("out_indices", "out_rank"),
            None => ("indices", "rank"),
        };
        let mut tensors = vec![
            matrix("residual", activation, [rows, features], self.gap, self.fill),
            matrix("y", activation, [rows, written], self.gap, self.fill),
            indices(of, written, features),
        ];
        if self.has_rank {
            let fill = Fill::Rank { of, count: written };
            tensors.push(vector(rank, DType::I32, features, fill));
        }
        if let Some((read, _)) = self.read {
            let around_one = Fill::AroundOne { scale: 0.2 };
            tensors.push(vector("norm_weight", weight, features, around_one));
            tensors.push(indices("in_indices", read, features));
        }
        tensors
    }
}

pub(super) fn scatter_add(cases: &mut Vec<Case>) {
    for dtype in DType::FLOATS {
        for shape in SHAPES {
            for has_rank in [false, true] {
                let case = ScatterCase::new(shape, (dtype, dtype));
                cases.push(ScatterCase { has_rank, ..case }.build(""));
            }
        }
        let case = ScatterCase::new([5, 130, 67], (dtype, dtype));
        for (gap, out) in [(1, None), (3, None), (8, None), (1, Some(DType::F32))] {
            for has_rank in [false, true] {
                cases.push(ScatterCase { gap, out, has_rank, ..case }.build(""));
            }
        }
        cases.push(ScatterCase { fill: Fill::Extremes, ..case }.build(" extremes"));
    }
    let case = ScatterCase::new([3, 64, 33], (DType::F32, DType::F32));
    cases.push(ScatterCase { out: Some(DType::F16), ..case }.build(""));
    for rows in [1, 512] {
        for has_rank in [false, true] {
            let case = ScatterCase::new([rows, 4_096, 2_048], (DType::BF16, DType::BF16));
            cases.push(ScatterCase { has_rank, purpose: Purpose::Bench, ..case }.build(""));
        }
    }
}

pub(super) fn scatter_norm_gather(cases: &mut Vec<Case>) {
    for dtypes in MLP_DTYPES {
        // Without features there is no norm.
        for (index, shape) in SHAPES.into_iter().filter(|shape| shape[1] > 0).enumerate() {
            // From nothing to everything, and back.
            let read = [shape[1], shape[1] / 3, shape[2], 0][index % 4];
            let read = Some((read, SCOPES[index % 3]));
            let has_rank = index % 2 == 1;
            let case = ScatterCase { read, has_rank, ..ScatterCase::new(shape, dtypes) };
            cases.push(case.build(""));
        }
        for scope in SCOPES {
            for has_rank in [false, true] {
                let case = ScatterCase::new([3, 261, 130], dtypes);
                let case = ScatterCase { read: Some((99, scope)), has_rank, ..case };
                cases.push(case.build(""));
                cases.push(ScatterCase { gap: 1, ..case }.build(""));
                cases.push(ScatterCase { gap: 8, out: Some(DType::F32), ..case }.build(""));
                let outliers = Fill::Outliers { scale: 1.0 };
                cases.push(ScatterCase { fill: outliers, ..case }.build(" outliers"));
            }
        }
        // A row that no workgroup's or block's memory holds.
        let case = ScatterCase::new([2, 24_000, 9_000], dtypes);
        let read = Some((7_001, "full"));
        cases.push(ScatterCase { read, has_rank: true, ..case }.build(""));
    }
    for rows in [1, 512] {
        for has_rank in [false, true] {
            let case = ScatterCase::new([rows, 4_096, 2_048], (DType::BF16, DType::BF16));
            let case = ScatterCase { read: Some((2_048, "full")), has_rank, ..case };
            cases.push(ScatterCase { purpose: Purpose::Bench, ..case }.build(""));
        }
    }
}
