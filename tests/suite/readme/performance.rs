//! What `siluette bench` measured: all of it beside the kernels, by family, and an overview in the README.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use siluette::registry::{self, OPERATIONS};

use super::{ceilings_of, check_block, latest_results, read_json};

#[test]
fn readme_shows_the_latest_results_of_every_device() {
    let mut text = String::new();
    for (file, report) in reports() {
        write_heading(&mut text, &file, &report);
        write_overview(&mut text, &report);
    }
    check_block("README.md", "performance", &text);
}

#[test]
fn readmes_of_kernels_show_their_profiles() {
    let mut families: Vec<&str> = OPERATIONS.iter().map(|info| info.family).collect();
    families.dedup();
    for family in families {
        let mut text = String::new();
        for (file, report) in reports() {
            let of_family = |row: &&Value| {
                registry::find(word(row, "op")).is_ok_and(|info| info.family == family)
            };
            let rows: Vec<&Value> =
                report["results"].as_array().unwrap().iter().filter(of_family).collect();
            if !rows.is_empty() {
                write_heading(&mut text, &file, &report);
                write_profile(&mut text, &report, &rows);
            }
        }
        if !text.is_empty() {
            check_block(&format!("kernels/{family}/README.md"), "profile", &text);
        }
    }
}

/// The latest of each device.
fn reports() -> impl Iterator<Item = (String, Value)> {
    latest_results("benches/results").into_iter().map(|file| {
        let report = read_json(&file);
        assert_eq!(report["complete"], true, "{}", file.display());
        let device = file.parent().and_then(Path::file_name).unwrap().to_string_lossy();
        (device.into_owned(), report)
    })
}

fn word<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

fn write_heading(text: &mut String, device: &str, report: &Value) {
    let commit = report["commit"].as_str().unwrap_or("unknown");
    writeln!(
        text,
        "**{device}**, {}, commit {}, `{}`:\n",
        &word(report, "date")[..10],
        &commit[..commit.len().min(10)],
        word(report, "command"),
    )
    .unwrap();
    for (backend, ceilings) in report["ceilings"].as_object().unwrap() {
        let name = report["device"][backend]["name"].as_str().unwrap_or_default();
        let speeds = ceilings_of(ceilings);
        writeln!(text, "Ceilings of that run, {backend} ({name}): {speeds}.\n").unwrap();
    }
}

/// A line for each shape, however many its rows.
fn write_overview(text: &mut String, report: &Value) {
    text.push_str(
        "| backend | operation | dtype | shape | rows: median, share of the roofline |\n",
    );
    text.push_str("|---|---|---|---|---|\n");
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for row in report["results"].as_array().unwrap() {
        let (rows, shape) = match word(row, "case").split_once(' ') {
            Some((rows, shape)) if rows.starts_with("rows=") => {
                (rows["rows=".len()..].to_owned() + ": ", shape)
            }
            _ => (String::new(), word(row, "case")),
        };
        let [backend, op, dtype] = ["backend", "op", "dtype"].map(|field| word(row, field));
        let line = format!("| {backend} | `{op}` | {dtype} | {shape} |");
        let (time, share) = (milliseconds(row), share_of_roofline(row));
        let cell = format!("{rows}{time}, {share}");
        match lines.iter_mut().find(|(other, _)| *other == line) {
            Some((_, cells)) => cells.push(cell),
            None => lines.push((line, vec![cell])),
        }
    }
    for (line, cells) in lines {
        writeln!(text, "{line} {} |", cells.join("; ")).unwrap();
    }
    text.push('\n');
}

/// What a call must move and multiply, what it took, and which of the two bounds it.
fn write_profile(text: &mut String, report: &Value, rows: &[&Value]) {
    text.push_str("| backend | operation | dtype | case | bytes | FLOPs | median | GB/s | GFLOP/s | limit | share of it |\n");
    text.push_str("|---|---|---|---|---:|---:|---:|---:|---:|---|---:|\n");
    for row in rows {
        let rate = |name: &str| row["cold"][name].as_f64().unwrap_or(f64::NAN) / 1e9;
        let bytes = row["bytes_read"].as_f64().unwrap() + row["bytes_written"].as_f64().unwrap();
        writeln!(
            text,
            "| {} | `{}` | {} | {} | {:.2} MB | {:.2} M | {} | {:.1} | {:.0} | {} | {} |",
            word(row, "backend"),
            word(row, "op"),
            word(row, "dtype"),
            word(row, "case"),
            bytes / 1e6,
            row["flops"].as_f64().unwrap() / 1e6,
            milliseconds(row),
            rate("bytes_per_second"),
            rate("flops_per_second"),
            limit(report, row, bytes),
            share_of_roofline(row),
        )
        .unwrap();
    }
    text.push('\n');
}

/// Whether memory or arithmetic takes longer at its ceiling.
fn limit(report: &Value, row: &Value, bytes: f64) -> &'static str {
    let ceilings = &report["ceilings"][word(row, "backend")];
    let own = format!("{}_flops_per_second", word(row, "dtype"));
    let flops = ceilings[own].as_f64().or(ceilings["flops_per_second"].as_f64()).unwrap();
    let memory = row["memory_bytes_per_second"].as_f64().unwrap();
    match row["flops"].as_f64().unwrap() / flops > bytes / memory {
        true => "arithmetic",
        false => "memory",
    }
}

fn milliseconds(row: &Value) -> String {
    format!("{:.3} ms", row["cold"]["median_seconds"].as_f64().unwrap() * 1e3)
}

fn share_of_roofline(row: &Value) -> String {
    format!("{:.0} %", row["cold"]["roofline_percent"].as_f64().unwrap())
}
