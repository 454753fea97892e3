//! Sequences in host memory.

use super::{Batch, Common, Finish, Outputs};
use crate::layout::HasLayout as _;
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

/// What a walk along a sequence's draft found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops::early_exit) struct Walk {
    /// Drafts accepted, stop ids and budget aside.
    pub accepted: usize,
    /// The token that follows them; `None` if the row has none.
    pub correction: Option<i32>,
}

/// The batch's inputs of valid values.
#[derive(Clone, Copy)]
pub(in crate::ops::early_exit) struct Sequences<'a> {
    offsets: &'a [u32],
    draft: &'a [i32],
    stop_ids: &'a [i32],
    budget: Option<&'a [i32]>,
}

/// One of them.
#[derive(Clone, Copy)]
pub(in crate::ops::early_exit) struct Sequence<'a> {
    /// Its drafts.
    pub draft: &'a [i32],
    /// Its first row of target.
    pub first_row: usize,
    stop_ids: &'a [i32],
    budget: Option<i32>,
}

impl<'a> Sequences<'a> {
    /// Of valid tensors.
    pub fn new<Out>(common: &Common<TensorRef<'a>, Out>) -> Sequences<'a> {
        Sequences {
            offsets: index_values(common.offsets),
            draft: integer_values(common.draft),
            stop_ids: common.stop_ids.map(integer_values).unwrap_or_default(),
            budget: common.budget.map(integer_values),
        }
    }

    /// Sequence `index`.
    pub fn get(&self, index: usize) -> Sequence<'a> {
        let [first, end] = [index, index + 1].map(|at| self.offsets[at] as usize);
        Sequence {
            draft: &self.draft[first..end],
            first_row: first + index,
            stop_ids: self.stop_ids,
            budget: self.budget.map(|budget| budget[index]),
        }
    }
}

/// How a sequence ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops::early_exit) struct End {
    pub accepted: usize,
    pub emitted: usize,
    pub finish: Finish,
}

impl Sequence<'_> {
    /// Cuts what a walk found at the first stop id and at the budget; `token` gives the tokens in their order, of which
    /// there are `accepted`, and the correction.
    pub fn end(&self, walk: Walk, token: impl Fn(usize) -> i32) -> End {
        let found = walk.accepted + usize::from(walk.correction.is_some());
        let is_stop = |place: &usize| self.stop_ids.contains(&token(*place));
        let until_stop = (0..found).find(is_stop).map(|place| place + 1);
        let allowed = self.budget.map(|budget| budget.max(0) as usize);
        let (emitted, finish) = match (until_stop, allowed) {
            (Some(stop), Some(allowed)) if stop <= allowed => (stop, Finish::Stop),
            (Some(stop), None) => (stop, Finish::Stop),
            (_, Some(allowed)) if found >= allowed => (allowed, Finish::Budget),
            _ if walk.correction.is_none() => (found, Finish::InvalidRow),
            _ => (found, Finish::Continue),
        };
        End { accepted: walk.accepted.min(emitted), emitted, finish }
    }
}

impl Outputs<TensorMut<'_>> {
    /// Writes a sequence's results; `last_row` is that of the last token emitted, if there is one.
    pub fn write(
        &mut self,
        index: usize,
        end: End,
        last_row: Option<usize>,
        token: impl Fn(usize) -> i32,
    ) {
        if let Some(tokens) = &mut self.tokens {
            fill_row(tokens, index, (0..end.emitted).map(&token));
        }
        let last = end.emitted.checked_sub(1);
        for (output, value) in [
            (&mut self.accepted, end.accepted as i32),
            (&mut self.emitted, end.emitted as i32),
            (&mut self.next_token, last.map_or(-1, &token)),
            (&mut self.last_row, last_row.map_or(-1, |row| row as i32)),
            (&mut self.finish, end.finish.code()),
        ] {
            if let Some(output) = output {
                integers(output)[index] = value;
            }
        }
    }
}

/// A row of values, then -1.
pub(in crate::ops::early_exit) fn fill_row(
    tensor: &mut TensorMut<'_>,
    row: usize,
    values: impl Iterator<Item = i32>,
) {
    let (stride, columns) = (tensor.layout().row_stride(), tensor.layout().columns());
    if columns > 0 {
        let row = &mut integers(tensor)[row * stride..][..columns];
        row.fill(-1);
        row.iter_mut().zip(values).for_each(|(out, value)| *out = value);
    }
}

/// Elements of a valid tensor of i32.
pub(in crate::ops::early_exit) fn integer_values(tensor: TensorRef<'_>) -> &[i32] {
    tensor.as_slice().unwrap_or_else(|| unreachable!("validated to hold i32"))
}

fn integers<'t>(tensor: &'t mut TensorMut<'_>) -> &'t mut [i32] {
    tensor.as_mut_slice().unwrap_or_else(|| unreachable!("validated to hold i32"))
}

/// Runs a walk for each sequence and writes what comes of it; along a chain.
pub(in crate::ops::early_exit) fn verify_chains(
    batch: &Batch,
    common: Common<TensorRef<'_>, TensorMut<'_>>,
    walk: impl Fn(&Sequence<'_>) -> Walk,
) {
    let sequences = Sequences::new(&common);
    let mut outputs = common.outputs;
    for index in 0..batch.sequences {
        let sequence = sequences.get(index);
        let walk = walk(&sequence);
        // There is a correction wherever one is asked for.
        let token = |place: usize| match place < walk.accepted {
            true => sequence.draft[place],
            false => walk.correction.unwrap_or(-1),
        };
        let end = sequence.end(walk, token);
        let last_row = end.emitted.checked_sub(1).map(|last| sequence.first_row + last);
        outputs.write(index, end, last_row, token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A draft of 10, 11, 12 of which `accepted` were; the correction is 20.
    fn end(
        accepted: usize,
        valid: bool,
        stop_ids: &[i32],
        budget: Option<i32>,
    ) -> (usize, usize, Finish) {
        let draft = [10, 11, 12];
        let sequence = Sequence { draft: &draft, first_row: 0, stop_ids, budget };
        let walk = Walk { accepted, correction: valid.then_some(20) };
        let token = |place: usize| if place < accepted { draft[place] } else { 20 };
        let end = sequence.end(walk, token);
        (end.accepted, end.emitted, end.finish)
    }

    #[test]
    fn drafts_and_a_correction_are_emitted() {
        assert_eq!(end(0, true, &[], None), (0, 1, Finish::Continue));
        assert_eq!(end(3, true, &[], None), (3, 4, Finish::Continue));
        assert_eq!(end(2, false, &[], None), (2, 2, Finish::InvalidRow));
    }

    #[test]
    fn the_earliest_stop_id_cuts_before_anything_is_counted() {
        assert_eq!(end(3, true, &[12, 11], None), (2, 2, Finish::Stop));
        assert_eq!(end(1, true, &[11], None), (1, 2, Finish::Continue));
        assert_eq!(end(1, true, &[20], None), (1, 2, Finish::Stop));
        assert_eq!(end(2, false, &[11], None), (2, 2, Finish::Stop));
    }

    #[test]
    fn a_budget_cuts_what_no_stop_id_has_cut() {
        assert_eq!(end(3, true, &[], Some(2)), (2, 2, Finish::Budget));
        assert_eq!(end(3, true, &[], Some(4)), (3, 4, Finish::Budget));
        assert_eq!(end(3, true, &[], Some(5)), (3, 4, Finish::Continue));
        assert_eq!(end(3, true, &[11], Some(2)), (2, 2, Finish::Stop));
        assert_eq!(end(3, true, &[12], Some(2)), (2, 2, Finish::Budget));
        assert_eq!(end(3, true, &[10], Some(0)), (0, 0, Finish::Budget));
        assert_eq!(end(3, true, &[], Some(-7)), (0, 0, Finish::Budget));
        assert_eq!(end(2, false, &[], Some(2)), (2, 2, Finish::Budget));
        assert_eq!(end(2, false, &[], Some(3)), (2, 2, Finish::InvalidRow));
    }
}
