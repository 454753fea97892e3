//! Generated parts of the READMEs are what the code and the committed results say now.

mod peers;
mod performance;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;
use siluette::Backend;
use siluette::arguments::ArgumentInfo;
use siluette::conformance::{Purpose, cases_for};
use siluette::registry::OPERATIONS;

#[test]
fn readme_lists_the_operations() {
    // Every backend runs every case: `conformance` fails for one that does not.
    let backends = Backend::ALL.map(Backend::name);
    let mut table = format!(
        "| operation | equation | dtypes | {} | options |\n|---|---|---|{}---|\n",
        backends.join(" | "),
        "---|".repeat(backends.len()),
    );
    for info in OPERATIONS {
        let mut dtypes: Vec<String> = Vec::new();
        for case in cases_for(Purpose::Conformance) {
            if case.op == info.name && !dtypes.contains(&case.dtype) {
                dtypes.push(case.dtype);
            }
        }
        // Tensors of layers go without saying.
        let is_option = |info: &&ArgumentInfo| info.optional && info.pattern == info.name;
        let optional = info.listed_arguments().filter(is_option).map(|info| info.name);
        let parameters = info.parameters.iter().map(|info| info.name);
        let options: Vec<String> =
            optional.chain(parameters).map(|name| format!("`{name}`")).collect();
        writeln!(
            table,
            "| `{}` | `{}` | {} | {}{} |",
            info.name,
            info.summary,
            dtypes.join(", "),
            "yes | ".repeat(backends.len()),
            options.join(", ")
        )
        .unwrap();
    }
    check_block("README.md", "operations", &table);
}

#[test]
fn readme_shows_what_generation_takes() {
    let mut text = String::new();
    for device in entries(&repository("benches/generation")) {
        for file in entries(&device) {
            write_generation(&mut text, &device, &file, &read_json(&file));
        }
    }
    check_block("README.md", "generation", &text);
}

fn write_generation(text: &mut String, device: &Path, file: &Path, report: &Value) {
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    writeln!(
        text,
        "**{}** on {}, {} threads, exit behind layer {}, drafts of {}, medians of {} rounds:\n",
        name(file),
        name(device),
        report["threads"],
        report["exit_layer"],
        report["draft_length"],
        report["rounds"],
    )
    .unwrap();
    let runs = report["runs"].as_array().unwrap();
    // Older results do not have it.
    let mlps = |run: &Value| run["mlp_milliseconds_per_token"].as_f64();
    let has_mlps = runs.iter().any(|run| mlps(run).is_some());
    let (heading, rule) = if has_mlps { (" MLPs, ms a token |", "---:|") } else { ("", "") };
    writeln!(
        text,
        "| | tokens/s | beside candle |{heading} drafts accepted | tokens a verification |\n\
         |---|---:|---:|{rule}---:|---:|"
    )
    .unwrap();
    let rate = |run: &Value| run["tokens_per_second"].as_f64().unwrap();
    // candle in its best type.
    let is_candle = |run: &&Value| run["name"].as_str().unwrap().starts_with("candle");
    let candle = runs.iter().filter(is_candle).map(rate).fold(0.0, f64::max);
    for run in runs {
        assert_ne!(run["equals_plain"], false, "{}", file.display());
        let percent = |value: f64| format!("{:.0} %", 100.0 * value);
        writeln!(
            text,
            "| {} | {:.0} | {:.2}x |{} {} | {} |",
            run["name"].as_str().unwrap(),
            rate(run),
            rate(run) / candle,
            mlps(run).map(|time| format!(" {time:.2} |")).unwrap_or_default(),
            run["acceptance"].as_f64().map(percent).unwrap_or_default(),
            run["tokens_per_verification"].as_f64().map(|n| format!("{n:.2}")).unwrap_or_default(),
        )
        .unwrap();
    }
    text.push('\n');
}

fn read_json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// `FOLDER/DEVICE/DATE.json`, the last date of each device.
fn latest_results(folder: &str) -> Vec<PathBuf> {
    let devices = entries(&repository(folder)).into_iter().filter(|path| path.is_dir());
    devices.map(|device| entries(&device).pop().expect("a device with results")).collect()
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn ceilings_of(ceilings: &Value) -> String {
    let giga = |name: &str| ceilings[name].as_f64().map(|value| value / 1e9);
    let mut parts = Vec::new();
    parts.extend(giga("bytes_per_second").map(|speed| format!("memory {speed:.0} GB/s")));
    parts.extend(giga("flops_per_second").map(|speed| format!("f32 {speed:.0} GFLOP/s")));
    parts.extend(giga("bf16_flops_per_second").map(|speed| format!("bf16 {speed:.0} GFLOP/s")));
    parts.join(", ")
}

/// Compares the text between `<!-- NAME: ... -->` and `<!-- NAME end -->`; with `SILUETTE_BLESS` set,
/// rewrites it. `file` is relative to the repository.
fn check_block(file: &str, name: &str, expected: &str) {
    /// Blocks are renewed one after another.
    static FILES: Mutex<()> = Mutex::new(());
    let _guard = FILES.lock();
    let path = repository(file);
    let readme = std::fs::read_to_string(&path).unwrap();
    let (opening, closing) = (format!("<!-- {name}:"), format!("<!-- {name} end -->"));
    let (before, rest) = readme.split_once(&opening).expect("the opening mark");
    let (comment, rest) = rest.split_once("-->\n").expect("the end of the opening mark");
    let (current, after) = rest.split_once(&closing).expect("the closing mark");
    if std::env::var_os("SILUETTE_BLESS").is_some() {
        let renewed = format!("{before}{opening}{comment}-->\n{expected}{closing}{after}");
        std::fs::write(&path, renewed).unwrap();
        return;
    }
    assert_eq!(
        current, expected,
        "{file} is stale: SILUETTE_BLESS=1 cargo test --features cli,candle readme"
    );
}
