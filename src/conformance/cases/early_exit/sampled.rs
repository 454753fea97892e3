//! Cases of `verify_sampled`.

use super::verification::{RaggedBatch, vector};
use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::parameters::Parameters;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    shapes(&mut cases);
    filters(&mut cases);
    values(&mut cases);
    ends(&mut cases);
    benches(&mut cases);
    cases
}

/// What a case varies.
#[derive(Clone, Copy)]
struct SampledCase {
    batch: RaggedBatch,
    vocabulary: usize,
    dtype: DType,
    mode: &'static str,
    target: Fill,
    probabilities: bool,
    sequential: bool,
    temperature: bool,
    /// One more than the largest k.
    top_k: Option<usize>,
    top_p: Option<Fill>,
    min_p: bool,
    /// Given, instead of drawn by position.
    uniforms: bool,
    seeds: bool,
    valid: Option<usize>,
    gap: usize,
    stops: bool,
    budget: bool,
    purpose: Purpose,
}

const LOGITS: Fill = Fill::Normal { scale: 3.0 };
const MODES: [&str; 4] = ["match", "one_hot", "full", "block"];

impl SampledCase {
    fn new(mode: &'static str, sequences: usize, max_draft: usize, vocabulary: usize) -> Self {
        SampledCase {
            batch: RaggedBatch { sequences, max_draft, share: 0.8 },
            vocabulary,
            dtype: DType::F32,
            mode,
            target: LOGITS,
            probabilities: false,
            sequential: false,
            temperature: false,
            top_k: None,
            top_p: None,
            min_p: false,
            uniforms: false,
            seeds: false,
            valid: None,
            gap: 0,
            stops: false,
            budget: false,
            purpose: Purpose::Conformance,
        }
    }

    fn name(&self) -> String {
        let RaggedBatch { sequences, max_draft, .. } = self.batch;
        let mut name = format!("{} {sequences}x{max_draft} of {}", self.mode, self.vocabulary);
        for (given, word) in [
            (self.probabilities, " probabilities"),
            (self.sequential, " sequential"),
            (self.temperature, " temperature"),
            (self.top_k.is_some(), " top_k"),
            (self.top_p.is_some(), " top_p"),
            (self.min_p, " min_p"),
            (self.uniforms, " uniforms"),
            (self.seeds, " seeds"),
            (self.valid.is_some(), " valid"),
            (self.gap > 0, " gap"),
            (self.stops, " stops"),
            (self.budget, " budget"),
        ] {
            name.push_str(if given { word } else { "" });
        }
        if self.target != LOGITS {
            name.push_str(&format!(" {:?}", self.target));
        }
        name
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let (sequences, drafts) = (self.batch.sequences, self.batch.drafts());
        let rows = |name, count, columns, dtype, fill| TensorSpec {
            name,
            dtype,
            shape: vec![count, columns],
            gap: self.gap,
            fill,
        };
        let ids = Fill::Integers { from: -1, below: self.vocabulary as i32 };
        let mut tensors = vec![
            rows("target", drafts + sequences, self.vocabulary, self.dtype, self.target),
            vector("draft", DType::I32, drafts, ids),
            self.batch.offsets(),
        ];
        if matches!(self.mode, "full" | "block") {
            let q = rows("draft_distribution", drafts, self.vocabulary, self.dtype, self.target);
            tensors.push(q);
        }
        let mut add = |given: bool, name, dtype, fill| {
            if given {
                tensors.push(vector(name, dtype, sequences, fill));
            }
        };
        let integers = |from, below| Fill::Integers { from, below };
        add(self.temperature, "temperature", DType::F32, Fill::AroundOne { scale: 0.15 });
        let k = self.top_k.unwrap_or(1) as i32;
        add(self.top_k.is_some(), "top_k", DType::I32, integers(0, k));
        add(self.top_p.is_some(), "top_p", DType::F32, self.top_p.unwrap_or(Fill::Uniform));
        add(self.min_p, "min_p", DType::F32, Fill::Uniform);
        add(self.budget, "budget", DType::I32, integers(-1, 5));
        add(!self.uniforms, "positions", DType::I32, integers(0, 1 << 20));
        if self.uniforms {
            tensors.push(rows("uniforms", drafts + sequences, 2, DType::F32, Fill::Uniform));
        }
        if self.seeds {
            let words = integers(0, i32::MAX);
            tensors.push(rows("seeds", sequences, 2, DType::U32, words));
        }
        if self.stops {
            tensors.push(vector("stop_ids", DType::I32, 2, integers(-1, 2)));
        }
        tensors
    }

    fn build(&self) -> Case {
        let parameters = [
            Some(("mode", self.mode.to_owned())),
            Some(("max_draft", self.batch.max_draft.to_string())),
            Some(("seed", "81985529216486895".to_owned())),
            self.probabilities.then(|| ("values", "probabilities".to_owned())),
            self.sequential.then(|| ("filter", "sequential".to_owned())),
            self.valid.map(|valid| ("valid_vocab", valid.to_string())),
        ];
        let parameters = parameters.into_iter().flatten();
        let parameters =
            parameters.fold(Parameters::new(), |all, (name, value)| all.with(name, &value));
        Case {
            op: "verify_sampled",
            name: self.name(),
            dtype: self.dtype.name().to_owned(),
            purpose: self.purpose,
            tensors: self.tensors(),
            parameters,
            output_gap: self.gap,
            tolerance: Tolerance::Exact,
        }
    }
}

fn shapes(cases: &mut Vec<Case>) {
    for mode in MODES {
        for (index, (sequences, max_draft, vocabulary)) in
            [(0, 3, 5), (1, 0, 1), (1, 4, 31), (5, 3, 3), (3, 2, 513)].into_iter().enumerate()
        {
            let dtype = DType::FLOATS[index % 3];
            let case = SampledCase::new(mode, sequences, max_draft, vocabulary);
            cases.push(SampledCase { dtype, ..case }.build());
        }
    }
    // Longer than one pass of a block, in every type, from rows that start anywhere.
    for dtype in DType::FLOATS {
        let case = SampledCase::new("full", 2, 2, 4_133);
        cases.push(SampledCase { dtype, gap: 3, uniforms: true, ..case }.build());
        let case = SampledCase::new("match", 2, 1, 2_057);
        cases.push(SampledCase { dtype, temperature: true, seeds: true, ..case }.build());
    }
}

fn filters(cases: &mut Vec<Case>) {
    for (mode, dtype) in MODES.into_iter().zip(DType::FLOATS.into_iter().cycle()) {
        for sequential in [false, true] {
            let case = SampledCase::new(mode, 6, 2, 97);
            let case = SampledCase { dtype, sequential, temperature: true, ..case };
            let top_p = Some(Fill::Uniform);
            cases.push(SampledCase { top_k: Some(7), top_p, seeds: true, ..case }.build());
        }
        let case = SampledCase::new(mode, 6, 3, 4);
        let case = SampledCase { dtype, uniforms: mode != "match", ..case };
        cases.push(SampledCase { top_k: Some(4), ..case }.build());
        cases.push(SampledCase { top_p: Some(Fill::Uniform), ..case }.build());
        cases.push(SampledCase { min_p: true, valid: Some(3), ..case }.build());
        // Whole rows of equals: which of them stay is decided by their ids.
        let equal = SampledCase { target: Fill::Normal { scale: 0.0 }, ..case };
        let equal = SampledCase { vocabulary: 700, top_p: Some(Fill::Uniform), ..equal };
        cases.push(SampledCase { top_k: Some(600), ..equal }.build());
    }
}

fn values(cases: &mut Vec<Case>) {
    for (mode, dtype) in [
        ("one_hot", DType::F32),
        ("one_hot", DType::BF16),
        ("full", DType::F32),
        ("full", DType::F16),
        ("block", DType::F32),
        ("block", DType::BF16),
    ] {
        let case = SampledCase::new(mode, 7, 3, 5);
        let case = SampledCase { dtype, probabilities: true, ..case };
        // Multiples of 1/16: every sum is exact, and sums meet top_p exactly.
        let exact = SampledCase { target: Fill::Probabilities { steps: 4 }, ..case };
        cases.push(exact.build());
        let top_p = Some(Fill::Constant { value: 0.625 });
        cases.push(SampledCase { uniforms: true, top_p, ..exact }.build());
        cases.push(SampledCase { vocabulary: 130, gap: 1, ..exact }.build());
    }
    for mode in MODES {
        let case = SampledCase::new(mode, 9, 3, 64);
        cases.push(SampledCase { target: Fill::Extremes, ..case }.build());
        // Drafts of probability e^-100 are not drawn: what q gives them cannot be told from 0.
        if matches!(mode, "match" | "one_hot") {
            cases.push(SampledCase { target: Fill::Outliers { scale: 1.0 }, ..case }.build());
        }
    }
}

fn ends(cases: &mut Vec<Case>) {
    // p and q so close that walks end anywhere.
    for mode in ["full", "block"] {
        let close = SampledCase::new(mode, 40, 4, 31);
        let target = Fill::Normal { scale: 0.7 };
        cases.push(SampledCase { target, ..close }.build());
        cases.push(SampledCase { target, uniforms: true, dtype: DType::F16, ..close }.build());
    }
    for (mode, dtype) in MODES.into_iter().zip(DType::FLOATS.into_iter().cycle()) {
        let case = SampledCase { dtype, ..SampledCase::new(mode, 33, 3, 3) };
        cases.push(SampledCase { stops: true, ..case }.build());
        cases.push(SampledCase { budget: true, gap: 2, ..case }.build());
    }
}

fn benches(cases: &mut Vec<Case>) {
    for sequences in [1, 16] {
        for dtype in [DType::BF16, DType::F32] {
            let case = SampledCase {
                batch: RaggedBatch { sequences, max_draft: 4, share: 1.0 },
                dtype,
                purpose: Purpose::Bench,
                ..SampledCase::new("one_hot", sequences, 4, 128_256)
            };
            cases.push(SampledCase { top_p: Some(Fill::Constant { value: 0.9 }), ..case }.build());
            cases.push(SampledCase { mode: "full", ..case }.build());
        }
    }
}
