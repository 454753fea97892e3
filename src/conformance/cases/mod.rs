//! The case list, one file a family.

mod early_exit;
mod feature_attention;
mod prune_gather;
mod silu_mlp;

use super::{Case, Purpose, Tolerance};
use crate::error::{Error, Problem};
use crate::operation::NamedLayouts;

/// Every case: conformance and bench, in the order of the registry.
pub fn cases() -> Vec<Case> {
    let mut cases = silu_mlp::cases();
    cases.extend(prune_gather::cases());
    cases.extend(early_exit::cases());
    cases.extend(feature_attention::cases());
    cases
}

/// The cases to verify, or to measure.
pub fn cases_for(purpose: Purpose) -> Vec<Case> {
    cases().into_iter().filter(|case| case.purpose == purpose).collect()
}

/// How exact an operation is on inputs that are not in the list.
///
/// # Errors
/// [`Problem::Value`] for an operation that has no cases.
pub fn tolerance_for(
    op: &str,
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Result<Tolerance, Error> {
    silu_mlp::tolerance(op, inputs, outputs)
        .or_else(|| prune_gather::tolerance(op, inputs, outputs))
        .or_else(|| early_exit::tolerance(op, inputs))
        .or_else(|| feature_attention::tolerance(op, inputs, outputs))
        .ok_or_else(|| {
            let expected = "an operation with conformance cases";
            Error::argument("siluette", "op", Problem::Value, expected, format!("`{op}`"), "")
        })
}
