//! Cases of what verifies drafts.

use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance, list_lengths};
use crate::dtype::DType;
use crate::parameters::Parameters;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    greedy(&mut cases);
    trees(&mut cases);
    cases
}

/// A ragged batch: sequence lengths from none to all of `max_draft`.
#[derive(Clone, Copy)]
pub(super) struct RaggedBatch {
    pub sequences: usize,
    pub max_draft: usize,
    /// How full the first sequence is, and others of its length.
    pub share: f64,
}

impl RaggedBatch {
    /// Drafts of all sequences.
    pub fn drafts(&self) -> usize {
        list_lengths(self.sequences, self.max_draft, self.share).sum()
    }

    /// Where sequences begin.
    pub fn offsets(&self) -> TensorSpec {
        let RaggedBatch { sequences: rows, max_draft: below, share } = *self;
        vector("offsets", DType::U32, rows + 1, Fill::ListOffsets { rows, below, share })
    }
}

pub(super) fn vector(name: &'static str, dtype: DType, length: usize, fill: Fill) -> TensorSpec {
    TensorSpec { name, dtype, shape: vec![length], gap: 0, fill }
}

fn greedy(cases: &mut Vec<Case>) {
    // Of two ids half of all drafts are accepted; of one all are.
    let pair = Fill::Integers { from: 0, below: 2 };
    let one = Fill::Integers { from: 3, below: 4 };
    let with_none = Fill::Integers { from: -1, below: 2 };
    let stop = Fill::Integers { from: 1, below: 2 };
    let budgets = Fill::Integers { from: -1, below: 5 };
    let mut add = |name: &str, sequences, max_draft, share, ids, stops, budget| {
        let batch = RaggedBatch { sequences, max_draft, share };
        let case = DraftCase { tree: false, batch, ids, stops, budget };
        cases.push(case.into_case(name, Purpose::Conformance));
    };
    add("one sequence", 1, 4, 1.0, pair, None, None);
    add("one of nothing", 1, 0, 0.0, pair, None, None);
    add("no sequences", 0, 4, 0.0, pair, None, None);
    add("all accepted", 5, 6, 0.7, one, None, None);
    add("short", 33, 3, 0.9, pair, None, None);
    add("short, stops", 70, 5, 0.9, pair, Some((3, stop)), None);
    add("short, budgets", 70, 5, 0.9, pair, None, Some(budgets));
    add("rows without tokens", 131, 7, 0.9, with_none, Some((2, stop)), Some(budgets));
    add("no stop ids", 5, 4, 0.9, pair, Some((0, stop)), None);
    add("longer than a warp", 9, 100, 0.6, one, None, None);
    add(
        "longer than a warp, budgets",
        9,
        100,
        0.6,
        one,
        None,
        Some(Fill::Integers { from: 20, below: 90 }),
    );
    add("wide ids", 9, 3, 0.9, Fill::Integers { from: i32::MAX - 2, below: i32::MAX }, None, None);
    for (sequences, max_draft) in [(1, 4), (256, 8)] {
        let batch = RaggedBatch { sequences, max_draft, share: 1.0 };
        let ids = Fill::Integers { from: 0, below: 2 };
        let stops = Some((2, Fill::Integers { from: 5, below: 9 }));
        let case = DraftCase { tree: false, batch, ids, stops, budget: Some(one) };
        let name = format!("{sequences} sequences of {max_draft}");
        cases.push(case.into_case(&name, Purpose::Bench));
    }
}

fn trees(cases: &mut Vec<Case>) {
    let ids = |below| Fill::Integers { from: 0, below };
    let stop = Some((2, Fill::Integers { from: 1, below: 3 }));
    let budgets = Some(Fill::Integers { from: -1, below: 5 });
    let mut add = |name: &str, sequences, max_draft, share, ids, stops, budget| {
        let batch = RaggedBatch { sequences, max_draft, share };
        let case = DraftCase { tree: true, batch, ids, stops, budget };
        cases.push(case.into_case(name, Purpose::Conformance));
    };
    add("one sequence", 1, 9, 1.0, ids(2), None, None);
    add("one of nothing", 1, 0, 0.0, ids(2), None, None);
    add("no sequences", 0, 4, 0.0, ids(2), None, None);
    add("every first child is accepted", 12, 24, 0.7, ids(1), None, None);
    add("two ids", 67, 12, 0.9, ids(2), None, None);
    add("four ids, stops", 67, 40, 0.9, ids(4), stop, None);
    add("two ids, budgets", 67, 12, 0.9, ids(2), None, budgets);
    add("longer than a warp", 9, 100, 0.6, ids(2), None, None);
    let none = Fill::Integers { from: -1, below: 2 };
    add("rows without tokens", 131, 16, 0.9, none, stop, budgets);
    let batch = RaggedBatch { sequences: 64, max_draft: 64, share: 1.0 };
    let case = DraftCase { tree: true, batch, ids: ids(4), stops: None, budget: None };
    cases.push(case.into_case("64 sequences of 64", Purpose::Bench));
}

struct DraftCase {
    tree: bool,
    batch: RaggedBatch,
    ids: Fill,
    stops: Option<(usize, Fill)>,
    budget: Option<Fill>,
}

impl DraftCase {
    fn into_case(self, name: &str, purpose: Purpose) -> Case {
        let (batch, drafts) = (self.batch, self.batch.drafts());
        let mut tensors = vec![
            vector("draft", DType::I32, drafts, self.ids),
            batch.offsets(),
            vector("target", DType::I32, drafts + batch.sequences, self.ids),
        ];
        if self.tree {
            let RaggedBatch { sequences: rows, max_draft: below, share } = batch;
            let links = |siblings| Fill::TreeLinks { rows, below, share, siblings };
            let count = drafts + batch.sequences;
            tensors.push(vector("first_child", DType::I32, count, links(false)));
            tensors.push(vector("next_sibling", DType::I32, drafts, links(true)));
        }
        if let Some((count, ids)) = self.stops {
            tensors.push(vector("stop_ids", DType::I32, count, ids));
        }
        if let Some(budget) = self.budget {
            tensors.push(vector("budget", DType::I32, batch.sequences, budget));
        }
        Case {
            op: if self.tree { "verify_tree" } else { "verify_greedy" },
            name: name.to_owned(),
            dtype: "i32".to_owned(),
            purpose,
            tensors,
            parameters: Parameters::new().with("max_draft", &batch.max_draft.to_string()),
            output_gap: usize::from(batch.sequences > 4),
            tolerance: Tolerance::Exact,
        }
    }
}
