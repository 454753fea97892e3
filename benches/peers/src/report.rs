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
    // Of the run that each operation was measured in.
    let mut ceilings = former["ceilings"].as_object().cloned().unwrap_or_default();
    for result in comparison.results() {
        if let Some(op) = result["op"].as_str() {
            ceilings.insert(op.to_owned(), comparison.roof.json());
        }
        all.push(result);
    }
    let mut report = json!({
        "instructions": siluette::Cpu::new().name(),
        "candle_core": "0.11",
        "burn": "0.21",
        "gemm": "0.19",
        "ceilings": ceilings,
        "results": all,
    });
    // Results that stay may have had others beside them than this run.
    for name in ["torch", "openvino", "onnxruntime"] {
        let mut versions = comparison.peers.iter().flat_map(|peer| &peer.versions);
        let version = versions.find(|(library, _)| library == name);
        report[name] = version.map_or(former[name].clone(), |(_, version)| version.as_str().into());
    }
    Ok(std::fs::write(file, format!("{report:#}\n"))?)
}
