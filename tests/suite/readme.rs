//! The README's generated parts are what the code says now.

use std::collections::BTreeSet;
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
    check_block("operations", &table);
}

#[test]
fn readme_shows_the_latest_results_of_every_device() {
    let mut text = String::new();
    for file in latest_results("benches/results") {
        let report = read_json(&file);
        assert_eq!(report["complete"], true, "{}", file.display());
        write_results(&mut text, &file, &report);
    }
    check_block("performance", &text);
}

#[test]
fn readme_shows_the_latest_comparison_with_peers() {
    let mut text = String::new();
    for file in latest_results("benches/peers/results") {
        write_peers(&mut text, &file, &read_json(&file));
    }
    check_block("peers", &text);
}

#[test]
fn readme_shows_what_generation_takes() {
    let mut text = String::new();
    for device in entries(&repository("benches/generation")) {
        for file in entries(&device) {
            write_generation(&mut text, &device, &file, &read_json(&file));
        }
    }
    check_block("generation", &text);
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
    text.push_str("| | tokens/s | beside candle | drafts accepted | tokens a verification |\n");
    text.push_str("|---|---:|---:|---:|---:|\n");
    let runs = report["runs"].as_array().unwrap();
    let rate = |run: &Value| run["tokens_per_second"].as_f64().unwrap();
    // candle in its best type.
    let is_candle = |run: &&Value| run["name"].as_str().unwrap().starts_with("candle");
    let candle = runs.iter().filter(is_candle).map(rate).fold(0.0, f64::max);
    for run in runs {
        assert_ne!(run["equals_plain"], false, "{}", file.display());
        let percent = |value: f64| format!("{:.0} %", 100.0 * value);
        writeln!(
            text,
            "| {} | {:.0} | {:.2}x | {} | {} |",
            run["name"].as_str().unwrap(),
            rate(run),
            rate(run) / candle,
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

fn repository(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn write_results(text: &mut String, file: &Path, report: &Value) {
    let field = |name: &str| report[name].as_str().unwrap_or("unknown").to_owned();
    let commit = field("commit");
    let device = file.parent().and_then(Path::file_name).unwrap().to_string_lossy();
    writeln!(
        text,
        "**{device}**, {}, commit {}, `{}`:\n",
        &field("date")[..10],
        &commit[..commit.len().min(10)],
        field("command"),
    )
    .unwrap();
    for (backend, ceilings) in report["ceilings"].as_object().unwrap() {
        let name = report["device"][backend]["name"].as_str().unwrap_or_default();
        let speeds = ceilings_of(ceilings);
        writeln!(text, "Ceilings of that run, {backend} ({name}): {speeds}.\n").unwrap();
    }
    text.push_str("| backend | operation | dtype | case | median | GB/s | GFLOP/s | share of the roofline |\n");
    text.push_str("|---|---|---|---|---:|---:|---:|---:|\n");
    for row in report["results"].as_array().unwrap() {
        let word = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| row["cold"][name].as_f64().unwrap_or(f64::NAN);
        writeln!(
            text,
            "| {} | `{}` | {} | {} | {:.3} ms | {:.1} | {:.0} | {:.0} % |",
            word("backend"),
            word("op"),
            word("dtype"),
            word("case"),
            number("median_seconds") * 1e3,
            number("bytes_per_second") / 1e9,
            number("flops_per_second") / 1e9,
            number("roofline_percent"),
        )
        .unwrap();
    }
    text.push('\n');
}

fn ceilings_of(ceilings: &Value) -> String {
    let giga = |name: &str| ceilings[name].as_f64().map(|value| value / 1e9);
    let mut parts = Vec::new();
    parts.extend(giga("bytes_per_second").map(|speed| format!("memory {speed:.0} GB/s")));
    parts.extend(giga("flops_per_second").map(|speed| format!("f32 {speed:.0} GFLOP/s")));
    parts.extend(giga("bf16_flops_per_second").map(|speed| format!("bf16 {speed:.0} GFLOP/s")));
    parts.join(", ")
}

/// One line a shape, one column a number of rows.
fn write_peers(text: &mut String, file: &Path, report: &Value) {
    let device = file.parent().and_then(Path::file_name).unwrap().to_string_lossy();
    let (instructions, date) = (&report["instructions"], file.file_stem().unwrap());
    let known =
        [("candle-core", "candle_core"), ("burn", "burn"), ("gemm", "gemm"), ("torch", "torch")];
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
    if report["ceilings"].is_object() {
        let speeds = ceilings_of(&report["ceilings"]);
        writeln!(text, "Ceilings of that run: {speeds}.\n").unwrap();
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

/// Our time, and how many times as long others take: with a roof its share, then the best of all and candle; candle and burn
/// in results that were measured without.
fn peers_cell(result: &Value) -> String {
    let ours = result["siluette_seconds"].as_f64().unwrap();
    let ratio = |name: &str| Some(result[format!("{name}_seconds")].as_f64()? / ours);
    let time = format!("{:.2} ms", ours * 1e3);
    let Some(share) = ratio("roof").map(|roof| format!("{:.0} %", 100.0 * roof)) else {
        let ratios = ["candle", "burn"].into_iter().filter_map(ratio);
        let ratios: Vec<String> = ratios.map(|ratio| format!("{ratio:.1}x")).collect();
        return format!("{time}, {}", ratios.join(" / "));
    };
    let peers = ["torch", "torch_prepacked", "candle", "gemm", "burn"];
    let ratios = peers.into_iter().filter_map(|name| Some((name, ratio(name)?)));
    let (best, _) = ratios.min_by(|one, other| one.1.total_cmp(&other.1)).expect("a peer");
    let mut lines = vec![format!("{time}, {share}")];
    let mut shown = vec![best, "candle"];
    shown.dedup();
    for name in shown {
        let title = name.replace('_', ", ");
        lines.extend(ratio(name).map(|ratio| format!("{ratio:.1}x {title}")));
    }
    lines.join("<br>")
}

/// Compares the text between `<!-- NAME: ... -->` and `<!-- NAME end -->`; with `SILUETTE_BLESS` set,
/// rewrites it.
fn check_block(name: &str, expected: &str) {
    /// Blocks are renewed one after another.
    static README: Mutex<()> = Mutex::new(());
    let _guard = README.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
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
        "README.md is stale: SILUETTE_BLESS=1 cargo test --features cli,candle readme"
    );
}
