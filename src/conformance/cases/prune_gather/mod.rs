//! Cases of the structural pruning gathers.

mod selection;

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    selection::cases()
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(
    op: &str,
    _inputs: &NamedLayouts,
    _outputs: &NamedLayouts,
) -> Option<Tolerance> {
    selection::OPERATIONS.contains(&op).then_some(Tolerance::Exact)
}
