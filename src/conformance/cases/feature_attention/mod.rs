//! Cases of feature attention and of the GRU under it, one file an operation.

mod attention;
mod bigru;
mod selective;

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    [attention::cases(), bigru::cases(), selective::cases()].concat()
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(
    op: &str,
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Option<Tolerance> {
    match op {
        "feature_attention" => attention::tolerance(inputs, outputs),
        "bigru" => {
            let out = outputs.get("out")?;
            Some(bigru::tolerance(out.dtype()))
        }
        "selective_feature_attention" => {
            let out = outputs.get("out")?;
            Some(selective::tolerance(out.dtype()))
        }
        _ => None,
    }
}
