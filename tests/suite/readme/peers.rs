//! The comparison with what people use instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{ceilings_of, check_block, latest_results, read_json};

#[test]
fn readme_shows_the_latest_comparison_with_peers() {
    let mut text = String::new();
    for file in latest_results("benches/peers/results") {
        write_peers(&mut text, &file, &read_json(&file));
    }
    check_block("README.md", "peers", &text);
}

/// One line a shape, one column a number of rows.
fn write_peers(text: &mut String, file: &Path, report: &Value) {
    let device = file.parent().and_then(Path::file_name).unwrap().to_string_lossy();
    let (instructions, date) = (&report["instructions"], file.file_stem().unwrap());
    let known = [
        ("candle-core", "candle_core"),
        ("burn", "burn"),
        ("gemm", "gemm"),
        ("torch", "torch"),
        ("OpenVINO", "openvino"),
        ("ONNX Runtime", "onnxruntime"),
    ];
    let version =
        |(name, field)| Some(format!("{name} {}", report[field].as_str()?.split('+').next()?));
    let versions: Vec<String> = known.into_iter().filter_map(version).collect();
    writeln!(
        text,
        "**{device}** ({}), {}, {}:\n",
        instructions.as_str().unwrap(),
        date.to_string_lossy(),
        versions.join(", "),
    )
    .unwrap();
    if let Some(ceilings) = report["ceilings"].as_object() {
        // Operations that were measured in one run have the same.
        let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (op, ceilings) in ceilings {
            runs.entry(ceilings_of(ceilings)).or_default().push(format!("`{op}`"));
        }
        let runs: Vec<String> =
            runs.iter().map(|(speeds, ops)| format!("{}: {speeds}", ops.join(", "))).collect();
        writeln!(text, "Ceilings, the highest of each run: {}.\n", runs.join("; ")).unwrap();
    }
    let results = report["results"].as_array().unwrap();
    // A table for blocks, one for heads and one for GRUs: the shapes of each have names of their own.
    for (columns, unit) in [("ffn", "rows"), ("vocabulary", "rows"), ("input", "tokens")] {
        let of_table = |result: &&Value| result[columns].is_u64();
        let of_table: Vec<&Value> = results.iter().filter(of_table).collect();
        if !of_table.is_empty() {
            write_peers_table(text, columns, unit, &of_table);
        }
    }
}

fn write_peers_table(text: &mut String, columns: &str, unit: &str, results: &[&Value]) {
    let rows: BTreeSet<u64> =
        results.iter().map(|result| result["rows"].as_u64().unwrap()).collect();
    let headings: Vec<String> = rows.iter().map(|rows| format!("{rows} {unit} |")).collect();
    writeln!(text, "| operation | dtype | hidden/{columns} | {}", headings.join(" ")).unwrap();
    writeln!(text, "|---|---|---|{}", "---:|".repeat(rows.len())).unwrap();
    for group in results.chunks(rows.len()) {
        let cells: Vec<String> =
            group.iter().map(|result| format!("{} |", peers_cell(result))).collect();
        let first = group[0];
        let (dtype, hidden, width) = (&first["dtype"], &first["hidden"], &first[columns]);
        let (op, dtype) = (first["op"].as_str().unwrap(), dtype.as_str().unwrap());
        writeln!(text, "| `{op}` | {dtype} | {hidden}/{width} | {}", cells.join(" ")).unwrap();
    }
    text.push('\n');
}

/// Our time, and how many times as long others take: with a roof its share, then the best of all, candle and, for a pruned
/// block, our dense one, and our time with packed weights; candle and burn in results that were measured without.
fn peers_cell(result: &Value) -> String {
    let ours = result["siluette_seconds"].as_f64().unwrap();
    let ratio = |name: &str| Some(result[format!("{name}_seconds")].as_f64()? / ours);
    let time = format!("{:.2} ms", ours * 1e3);
    let Some(share) = ratio("roof").map(|roof| format!("{:.0} %", 100.0 * roof)) else {
        let ratios = ["candle", "burn"].into_iter().filter_map(ratio);
        let ratios: Vec<String> = ratios.map(|ratio| format!("{ratio:.1}x")).collect();
        return format!("{time}, {}", ratios.join(" / "));
    };
    let peers = ["torch", "torch_prepacked", "openvino", "onnxruntime", "candle", "gemm", "burn"];
    let ratios = peers.into_iter().filter_map(|name| Some((name, ratio(name)?)));
    let (best, _) = ratios.min_by(|one, other| one.1.total_cmp(&other.1)).expect("a peer");
    let mut lines = vec![format!("{time}, {share}")];
    let mut shown = vec![best, "candle"];
    shown.dedup();
    shown.push("siluette_dense");
    for name in shown {
        let title = match name {
            "torch_prepacked" => "torch, prepacked",
            "openvino" => "OpenVINO",
            "onnxruntime" => "ONNX Runtime",
            "siluette_dense" => "our dense block",
            name => name,
        };
        lines.extend(ratio(name).map(|ratio| format!("{ratio:.1}x {title}")));
    }
    let packed = result["siluette_packed_seconds"].as_f64();
    lines.extend(packed.map(|packed| format!("packed {:.2} ms", packed * 1e3)));
    lines.join("<br>")
}
