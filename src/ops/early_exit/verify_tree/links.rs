//! The links of trees, in host memory.

use super::{VerifyTree, VerifyTreeArgs};
use crate::error::{Error, Problem};
use crate::operation::Operation as _;
use crate::ops::early_exit::verification::host::integer_values;
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::TensorRef;

/// That every link of valid tensors leads forward, inside its sequence, and to a draft that no other leads to. Offsets
/// have been checked.
pub(super) fn check<Out>(args: &VerifyTreeArgs<TensorRef<'_>, Out>) -> Result<(), Error> {
    let [children, siblings] = [args.first_child, args.next_sibling].map(integer_values);
    let mut is_linked = vec![false; siblings.len()];
    for (index, bounds) in index_values(args.offsets).windows(2).enumerate() {
        let [first, end] = [bounds[0] as usize, bounds[1] as usize];
        let drafts = end - first;
        for row in 0..=drafts {
            // The draft of row r is r - 1: its children lie behind it.
            let position = first + index + row;
            follow("first_child", children[position], row, drafts, position, |node| {
                std::mem::replace(&mut is_linked[first + node], true)
            })?;
        }
        for node in 0..drafts {
            let position = first + node;
            follow("next_sibling", siblings[position], node + 1, drafts, position, |node| {
                std::mem::replace(&mut is_linked[first + node], true)
            })?;
        }
    }
    Ok(())
}

fn follow(
    name: &'static str,
    link: i32,
    least: usize,
    drafts: usize,
    position: usize,
    mut visit: impl FnMut(usize) -> bool,
) -> Result<(), Error> {
    let refuse = |expected: String, remedy| {
        let got = format!("{link} at position {position}");
        Err(Error::argument(VerifyTree::NAME, name, Problem::Value, expected, got, remedy))
    };
    match usize::try_from(link) {
        Err(_) if link == -1 => Ok(()),
        Ok(node) if (least..drafts).contains(&node) => match visit(node) {
            true => refuse(
                "a draft that nothing else leads to".to_owned(),
                "every draft has one parent and is once among its children",
            ),
            false => Ok(()),
        },
        _ if least < drafts => refuse(
            format!("{least} to {} or -1", drafts - 1),
            "links lead to later drafts of the same sequence, or nowhere",
        ),
        _ => refuse("-1".to_owned(), "links lead to later drafts of the same sequence, or nowhere"),
    }
}
