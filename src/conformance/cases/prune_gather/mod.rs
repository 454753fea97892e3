//! Cases of the structural pruning gathers, one file a group of operations.

mod block_case;
mod blocks;
mod movement;
mod selection;
mod sparse;

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = blocks::cases();
    cases.extend(sparse::cases());
    cases.extend(movement::cases());
    cases.extend(selection::cases());
    cases
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(
    op: &str,
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Option<Tolerance> {
    if selection::OPERATIONS.contains(&op) {
        return Some(Tolerance::Exact);
    }
    blocks::tolerance(op, inputs, outputs)
        .or_else(|| sparse::tolerance(op, inputs, outputs))
        .or_else(|| movement::tolerance(op, inputs, outputs))
}
