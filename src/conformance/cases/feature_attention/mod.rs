//! Cases of feature attention and of the GRU under it, one file an operation.

mod bigru;
mod feature_attention;

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    [feature_attention::cases(), bigru::cases()].concat()
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(
    op: &str,
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Option<Tolerance> {
    match op {
        "feature_attention" => feature_attention::tolerance(inputs),
        "bigru" => {
            let out = outputs.get("out")?;
            Some(bigru::tolerance(out.dtype()))
        }
        _ => None,
    }
}
