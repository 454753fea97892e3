//! Cases of feature attention, one file an operation.

mod feature_attention;

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    feature_attention::cases()
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(op: &str, inputs: &NamedLayouts) -> Option<Tolerance> {
    match op {
        "feature_attention" => feature_attention::tolerance(inputs),
        _ => None,
    }
}
