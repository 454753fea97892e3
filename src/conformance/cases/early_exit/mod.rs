//! Cases of early exit and self-speculation, one file a group of operations.

mod commit;
mod gate;
mod head;
mod sampled;
mod verification;

use crate::conformance::{Case, Tolerance};
use crate::operation::NamedLayouts;

pub(super) fn cases() -> Vec<Case> {
    let groups =
        [head::cases(), verification::cases(), sampled::cases(), gate::cases(), commit::cases()];
    groups.concat()
}

/// The tolerance of any inputs, or `None` for operations of other families.
pub(super) fn tolerance(op: &str, inputs: &NamedLayouts) -> Option<Tolerance> {
    match op {
        // Integers are compared exactly, always.
        "verify_greedy" | "verify_tree" | "verify_sampled" | "commit_cache" => {
            Some(Tolerance::Exact)
        }
        "exit_gate" | "compact_rows" | "scatter_rows" => Some(Tolerance::Exact),
        _ => head::tolerance(op, inputs),
    }
}
