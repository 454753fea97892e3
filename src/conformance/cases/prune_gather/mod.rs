//! Cases of the structural pruning gathers, one file a group of operations.

mod movement;

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    movement::cases()
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(
    op: &str,
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Option<Tolerance> {
    movement::tolerance(op, inputs, outputs)
}
