//! `verify_tree` on the CPU.

use super::{VerifyTree, VerifyTreeArgs};
use crate::backend::cpu::Cpu;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::early_exit::verification::common;
use crate::ops::early_exit::verification::host::{
    Sequence, Sequences, Walk, fill_row, integer_values,
};
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`VerifyTree`] on the CPU, on the caller's thread: a few numbers a sequence.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; outputs are then untouched.
    pub fn verify_tree(
        &self,
        op: &VerifyTree,
        args: VerifyTreeArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        let target = integer_values(args.target);
        let (children, siblings) =
            (integer_values(args.first_child), integer_values(args.next_sibling));
        let batch = op.batch(&args)?;
        let mut path_out = args.path;
        let common = common!(args);
        let sequences = Sequences::new(&common);
        let mut outputs = common.outputs;
        let mut path = Vec::with_capacity(op.max_draft);
        for index in 0..batch.sequences {
            let sequence = sequences.get(index);
            let tree = Tree {
                target: &target[sequence.first_row..],
                children: &children[sequence.first_row..],
                siblings: &siblings[sequence.first_row - index..],
            };
            let walk = tree.walk(&sequence, &mut path);
            let token = |place: usize| match path.get(place) {
                Some(&node) => sequence.draft[node],
                None => walk.correction.unwrap_or(-1),
            };
            let end = sequence.end(walk, token);
            let last_row = match end.emitted {
                0 => None,
                1 => Some(sequence.first_row),
                emitted => Some(sequence.first_row + path[emitted - 2] + 1),
            };
            outputs.write(index, end, last_row, token);
            fill_row(&mut path_out, index, path[..end.accepted].iter().map(|&node| node as i32));
        }
        Ok(())
    }
}

/// A sequence's tensors, from its first element on.
struct Tree<'a> {
    target: &'a [i32],
    children: &'a [i32],
    siblings: &'a [i32],
}

impl Tree<'_> {
    fn walk(&self, sequence: &Sequence<'_>, path: &mut Vec<usize>) -> Walk {
        path.clear();
        let mut row = 0;
        loop {
            let token = self.target[row];
            if token < 0 {
                return Walk { accepted: path.len(), correction: None };
            }
            let next = |&node: &usize| usize::try_from(self.siblings[node]).ok();
            let first = usize::try_from(self.children[row]).ok();
            let mut nodes = std::iter::successors(first, next);
            let Some(node) = nodes.find(|&node| sequence.draft[node] == token) else {
                return Walk { accepted: path.len(), correction: Some(token) };
            };
            path.push(node);
            row = node + 1;
        }
    }
}
