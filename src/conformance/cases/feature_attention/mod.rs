//! Cases of feature attention and of the GRU under it, one file an operation.

mod bigru;

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    bigru::cases()
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(op: &str, outputs: &NamedLayouts) -> Option<Tolerance> {
    match op {
        "bigru" => {
            let out = outputs.get("out")?;
            Some(bigru::tolerance(out.dtype()))
        }
        _ => None,
    }
}
