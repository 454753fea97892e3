//! `verify_tree` by its definition: every row's parent is found first, then children are looked up by it.

use super::VerifyTreeArgs;
use crate::ops::early_exit::verification::common;
use crate::ops::early_exit::verification::reference::{Candidates, write};
use crate::tensor::{TensorMut, TensorRef};

/// `args` are valid.
pub(super) fn verify_tree(args: VerifyTreeArgs<TensorRef<'_>, TensorMut<'_>>) {
    let ids = |tensor: TensorRef<'_>| -> Vec<i32> {
        tensor.to_f64().into_iter().map(|id| id as i32).collect()
    };
    let (draft, offsets, target) = (ids(args.draft), ids(args.offsets), ids(args.target));
    let (children, siblings) = (ids(args.first_child), ids(args.next_sibling));
    let mut sequences = Vec::new();
    let mut paths = Vec::new();
    for (index, bounds) in offsets.windows(2).enumerate() {
        let [first, end] = [bounds[0] as usize, bounds[1] as usize];
        let parents = parents(&children[first + index..=end + index], &siblings[first..end]);
        let mut candidates = Candidates::default();
        let mut path = Vec::new();
        let mut row = 0;
        loop {
            candidates.rows.push(first + index + row);
            candidates.correction = Some(target[first + index + row]).filter(|&token| token >= 0);
            let is_next = |node: &usize| {
                parents[*node] == Some(row) && Some(draft[first + node]) == candidates.correction
            };
            // Siblings are in ascending order.
            let Some(node) = (0..end - first).find(is_next) else { break };
            candidates.accepted.push(draft[first + node]);
            path.push(node);
            row = node + 1;
        }
        sequences.push(candidates);
        paths.push(path);
    }
    let mut path_out = args.path;
    let columns = {
        use crate::layout::HasLayout as _;
        path_out.layout().columns()
    };
    let left = write(common!(args), &sequences);
    path_out.write_f64(paths.into_iter().zip(left).flat_map(|(path, left)| {
        let nodes = path.into_iter().take(left).map(|node| node as f64);
        nodes.chain(std::iter::repeat_n(-1.0, columns - left))
    }));
}

/// The row that each draft is a child of, if any.
fn parents(children: &[i32], siblings: &[i32]) -> Vec<Option<usize>> {
    let mut parents = vec![None; siblings.len()];
    for (row, &child) in children.iter().enumerate() {
        let mut node = child;
        while let Ok(place) = usize::try_from(node) {
            parents[place] = Some(row);
            node = siblings[place];
        }
    }
    parents
}
