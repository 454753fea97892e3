//! Cases of early exit and self-speculation, one file a group of operations.

mod commit;
mod gate;
mod head;

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = head::cases();
    cases.extend(gate::cases());
    cases.extend(commit::cases());
    cases
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(op: &str, inputs: &NamedLayouts) -> Option<Tolerance> {
    head::tolerance(op, inputs).or_else(|| gate::tolerance(op))
}
