//! The case list, one file a family.

mod silu_mlp;

use super::{Case, Purpose};

/// Every case: conformance and bench, in the order of the registry.
pub fn cases() -> Vec<Case> {
    silu_mlp::cases()
}

/// The cases to verify, or to measure.
pub fn cases_for(purpose: Purpose) -> Vec<Case> {
    cases().into_iter().filter(|case| case.purpose == purpose).collect()
}
