//! `verify_greedy` by its definition.

use super::VerifyGreedyArgs;
use crate::ops::early_exit::verification::common;
use crate::ops::early_exit::verification::reference::{Candidates, write};
use crate::tensor::{TensorMut, TensorRef};

/// `args` are valid.
pub(super) fn verify_greedy(args: VerifyGreedyArgs<TensorRef<'_>, TensorMut<'_>>) {
    let ids = |tensor: TensorRef<'_>| -> Vec<i32> {
        tensor.to_f64().into_iter().map(|id| id as i32).collect()
    };
    let (draft, offsets, target) = (ids(args.draft), ids(args.offsets), ids(args.target));
    let mut sequences = Vec::new();
    for (index, bounds) in offsets.windows(2).enumerate() {
        let first_row = bounds[0] as usize + index;
        let mut rows = target[first_row..].iter().copied();
        let all_rows = (first_row..=index + bounds[1] as usize).collect();
        let mut candidates = Candidates { rows: all_rows, ..Candidates::default() };
        let mut next = rows.next().filter(|&token| token >= 0);
        for &token in &draft[bounds[0] as usize..bounds[1] as usize] {
            if next != Some(token) {
                break;
            }
            candidates.accepted.push(token);
            next = rows.next().filter(|&token| token >= 0);
        }
        candidates.correction = next;
        sequences.push(candidates);
    }
    write(common!(args), &sequences);
}
