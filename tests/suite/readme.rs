//! The README's generated parts are what the code says now.

use std::fmt::Write as _;
use std::path::Path;

use siluette::conformance::{Purpose, cases_for};
use siluette::registry::OPERATIONS;

#[test]
fn readme_lists_the_operations() {
    let mut table =
        String::from("| operation | equation | dtypes | options |\n|---|---|---|---|\n");
    for info in OPERATIONS {
        let mut dtypes: Vec<String> = Vec::new();
        for case in cases_for(Purpose::Conformance) {
            if case.op == info.name && !dtypes.contains(&case.dtype) {
                dtypes.push(case.dtype);
            }
        }
        let optional = info.arguments.iter().filter(|info| info.optional).map(|info| info.name);
        let parameters = info.parameters.iter().map(|info| info.name);
        let options: Vec<String> =
            optional.chain(parameters).map(|name| format!("`{name}`")).collect();
        writeln!(
            table,
            "| `{}` | `{}` | {} | yes | yes | yes | yes | {} |",
            info.name,
            info.summary,
            dtypes.join(", "),
            options.join(", ")
        )
        .unwrap();
    }
    check_block("operations", &table);
}

/// Compares the text between `<!-- NAME: ... -->` and `<!-- NAME end -->`; with `SILUETTE_BLESS` set,
/// rewrites it.
fn check_block(name: &str, expected: &str) {
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
        "README.md is stale: SILUETTE_BLESS=1 cargo test --features cli readme"
    );
}
