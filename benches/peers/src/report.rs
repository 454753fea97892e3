//! The file of results.

use std::path::Path;

use serde_json::{Value, json};

use crate::compare::Comparison;
use crate::measure::Failure;

/// Replaces what was measured; other operations keep their results.
pub fn write(
    file: &Path,
    comparison: Comparison,
    was_measured: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    let former = match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) => Value::Null,
    };
    let mut all = former["results"].as_array().cloned().unwrap_or_default();
    all.retain(|result| !was_measured(result["op"].as_str().unwrap_or("")));
    all.extend(comparison.results());
    // Results that stay may have had torch beside them when this run has not.
    let torch = comparison.torch.map_or(former["torch"].clone(), |torch| torch.version.into());
    let report = json!({
        "instructions": siluette::Cpu::new().name(),
        "candle_core": "0.11",
        "burn": "0.21",
        "gemm": "0.19",
        "torch": torch,
        "ceilings": comparison.roof.json(),
        "results": all,
    });
    Ok(std::fs::write(file, format!("{report:#}\n"))?)
}
