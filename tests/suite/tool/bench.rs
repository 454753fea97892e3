//! `siluette bench`.

use super::{assert_exit, checkpoint, siluette, text};

#[test]
fn bench_reports_times_and_ceilings() {
    let folder = checkpoint(r#"{"num_hidden_layers": 2, "rms_norm_eps": 1e-5}"#);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = folder.path().to_str().unwrap();
    let (json_file, plot) = (path("bench.json"), path("bench.svg"));
    let arguments = ["bench", "--backend", "cpu", "--model", model];
    let output = siluette(&[&arguments[..], &["--json", &json_file, "--plot", &plot]].concat());
    assert_exit(&output, 0);
    assert!(text(&output.stdout).contains("% roof"));
    let report = std::fs::read(&json_file).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    for field in ["device", "commit", "date", "command", "ceilings", "results"] {
        assert!(!report[field].is_null(), "{field}");
    }
    assert_eq!(report["complete"], true);
    let positive = |value: &serde_json::Value| value.as_f64().is_some_and(|value| value > 0.0);
    assert!(positive(&report["ceilings"]["cpu"]["bytes_per_second"]));
    assert!(positive(&report["ceilings"]["cpu"]["flops_per_second"]));
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    for result in results {
        for timing in ["cold", "hot"] {
            assert!(positive(&result[timing]["median_seconds"]), "{result}");
        }
        assert!(positive(&result["memory_bytes_per_second"]), "{result}");
        assert!(positive(&result["cold"]["roofline_percent"]), "{result}");
        // 2 * 3 projections * hidden 4 * ffn 6, a token.
        assert_eq!(result["flops"].as_u64().unwrap() % 144, 0);
    }
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert_eq!(svg.matches("<circle").count(), 4);
}

#[test]
fn bench_tells_at_once_that_it_cannot_write() {
    let output = siluette(&["bench", "--backend", "cpu", "--json", "/nowhere/bench.json"]);
    assert_exit(&output, 2);
    assert!(text(&output.stderr).contains("/nowhere"), "{}", text(&output.stderr));
}
