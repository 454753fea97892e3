//! Cases of `commit_cache`.

use super::gate::{exact, parameters, spec};
use crate::conformance::{Case, Fill, Purpose, TensorSpec};
use crate::dtype::DType;

const NORMAL: Fill = Fill::Normal { scale: 1.0 };

/// What a case varies.
#[derive(Clone, Copy)]
struct Commit {
    batch: usize,
    capacity: usize,
    page_size: Option<usize>,
    /// Drafts, and nodes that they are of: a tree.
    tree: Option<[usize; 2]>,
    /// Groups and columns of the cache.
    groups: usize,
    columns: usize,
    dtype: DType,
    gap: usize,
    fill: Fill,
    purpose: Purpose,
}

const CHAINS: Commit = Commit {
    batch: 5,
    capacity: 48,
    page_size: None,
    tree: None,
    groups: 0,
    columns: 0,
    dtype: DType::F32,
    gap: 0,
    fill: NORMAL,
    purpose: Purpose::Conformance,
};

impl Commit {
    /// Pages of all sequences and a few more, of which some are not there.
    fn pages(&self, page_size: usize) -> usize {
        self.batch * (self.capacity / page_size) + 2
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let Commit { batch, capacity, gap, .. } = *self;
        let drafts = self.tree.map_or(4, |[drafts, _]| drafts);
        let integers = |from: i32, below: usize| Fill::Integers { from, below: below as i32 };
        let (lengths, emitted) = match self.purpose {
            // Of some the end is beyond the capacity; one in many is no length at all.
            Purpose::Conformance => (integers(-1, capacity + 1), integers(0, drafts + 2)),
            // As much moves as can.
            Purpose::Bench => (integers(0, capacity / 2), integers(drafts as i32 + 1, drafts + 2)),
        };
        let mut tensors = vec![
            spec("length", DType::I32, &[batch], 0, lengths),
            spec("emitted", DType::I32, &[batch], 0, emitted),
        ];
        let blocks = self.page_size.map(|page_size| [self.pages(page_size), page_size]);
        if let Some([drafts, nodes]) = self.tree {
            let fill = Fill::Paths { below: nodes };
            tensors.push(spec("path", DType::I32, &[batch, drafts], gap, fill));
            let [blocks, rows] = blocks.unwrap_or([batch, capacity]);
            let shape = [self.groups, blocks, rows, self.columns];
            tensors.push(spec("cache", self.dtype, &shape, gap, self.fill));
        }
        if let (Some(page_size), Some([pages, _])) = (self.page_size, blocks) {
            let nowhere = if self.purpose == Purpose::Bench { 0 } else { pages / 16 };
            let fill = Fill::Permutation { below: pages + nowhere };
            let shape = [batch, capacity / page_size];
            tensors.push(spec("page_table", DType::I32, &shape, gap, fill));
        }
        tensors
    }

    fn build(&self) -> Case {
        let mut name = format!("batch={} capacity={}", self.batch, self.capacity);
        let mut pairs = Vec::new();
        if let Some(page_size) = self.page_size {
            name += &format!(" page={page_size}");
        }
        let (capacity, page_size) =
            (self.capacity.to_string(), self.page_size.unwrap_or_default().to_string());
        if let Some([drafts, nodes]) = self.tree {
            let (groups, columns) = (self.groups, self.columns);
            name += &format!(" drafts={drafts} nodes={nodes} groups={groups} columns={columns}");
        } else if self.page_size.is_some() {
            pairs.push(("page_size", page_size.as_str()));
        } else {
            pairs.push(("capacity", capacity.as_str()));
        }
        let label = if self.fill == NORMAL { "" } else { " extremes" };
        name += &format!(" gap={}{label}", self.gap);
        let case = exact("commit_cache", name, self.dtype, self.tensors());
        let purpose = self.purpose;
        Case { parameters: parameters(&pairs), output_gap: self.gap, purpose, ..case }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |case: Commit| cases.push(case.build());
    for batch in [0, 1, 31, 33, 300] {
        push(Commit { batch, ..CHAINS });
        push(Commit { batch, page_size: Some(8), gap: batch % 2, ..CHAINS });
    }
    push(Commit { capacity: 0, ..CHAINS });
    push(Commit { capacity: 0, page_size: Some(4), ..CHAINS });
    // More pages than a block or a workgroup looks at in one step.
    push(Commit { batch: 9, capacity: 300, page_size: Some(1), ..CHAINS });
    for dtype in DType::FLOATS {
        // Blocks of 512 columns in f32 and of 1024 in halves.
        let shapes = [[1, 1], [3, 31], [2, 33], [2, 64], [1, 513], [2, 1_023], [1, 1_032]];
        for (index, [groups, columns]) in shapes.into_iter().enumerate() {
            let tree = Some([[1, 1], [3, 9], [6, 6], [5, 17]][index % 4]);
            let case = Commit { dtype, tree, groups, columns, batch: 7, ..CHAINS };
            push(case);
            push(Commit { page_size: Some([1, 3, 16][index % 3]), ..case });
        }
        let base =
            Commit { dtype, tree: Some([6, 11]), groups: 3, columns: 67, batch: 12, ..CHAINS };
        for (gap, page_size) in [(1, None), (1, Some(6)), (5, Some(4)), (8, None), (8, Some(2))] {
            push(Commit { gap, page_size, fill: Fill::Extremes, ..base });
        }
        // A path that is longer than a block or a workgroup looks at in one step.
        let tree = Some([300, 310]);
        push(Commit { tree, capacity: 340, page_size: Some(20), columns: 8, ..base });
        push(Commit { columns: 0, ..base });
        push(Commit { groups: 0, ..base });
    }
    for page_size in [None, Some(16)] {
        let tree = Some([8, 64]);
        let (dtype, purpose) = (DType::BF16, Purpose::Bench);
        let case = Commit { batch: 3, capacity: 256, page_size, tree, dtype, purpose, ..CHAINS };
        push(Commit { groups: 32, columns: 1_024, ..case });
    }
    cases
}
