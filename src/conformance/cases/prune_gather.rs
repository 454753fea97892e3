//! Cases of the structural pruning gathers.

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(
    _op: &str,
    _inputs: &NamedLayouts,
    _outputs: &NamedLayouts,
) -> Option<Tolerance> {
    None
}
