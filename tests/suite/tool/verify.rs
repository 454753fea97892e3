//! `siluette verify`.

use std::path::Path;
use std::process::{Command, Output};

use safetensors::{Dtype, tensor::TensorView};
use siluette::conformance::{Purpose, cases_for};

use super::{assert_exit, checkpoint, json, siluette, text};

#[test]
fn verify_passes_on_the_cpu_and_says_so_in_json() {
    let output = siluette(&["verify", "--backend", "cpu,reference", "--op", "gated_mlp", "--json"]);
    assert_exit(&output, 0);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(report.as_object().unwrap().keys().collect::<Vec<_>>(), ["device", "results"]);
    assert!(report["device"]["cpu"]["name"].is_string());
    let results = report["results"].as_array().unwrap();
    let fields = ["op", "backend", "dtype", "case", "status", "max_abs", "nmse", "tolerance"];
    for result in results {
        assert_eq!(result.as_object().unwrap().keys().collect::<Vec<_>>(), fields);
        assert_eq!(result["status"], "pass", "{result}");
        assert_eq!(result["op"], "gated_mlp");
        assert!(result["max_abs"].is_number() && result["nmse"].is_number(), "{result}");
        assert!(result["tolerance"]["inner"].as_f64().unwrap() > 0.0);
    }
    let conformance = cases_for(Purpose::Conformance);
    let conformance = conformance.iter().filter(|case| case.op == "gated_mlp").count();
    let is_real =
        |result: &&serde_json::Value| result["case"].as_str().unwrap().starts_with("smollm2_layer");
    let real = |backend: &str| {
        results.iter().filter(is_real).filter(|result| result["backend"] == backend).count()
    };
    assert_eq!((real("cpu"), real("reference")), (2, 2));
    assert_eq!(results.len(), conformance + 4);
}

/// Runs the tool in a folder whose `tests/data` holds one recording of `silu_mul` with this result.
fn verify_recording(metadata: &[(&str, &str)], out: f32, extra: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("tests/data");
    std::fs::create_dir_all(&data).unwrap();
    let (one, out) = (1f32.to_le_bytes(), out.to_le_bytes());
    let tensors = [("gate", one), ("up", one), ("out", out)];
    let views = tensors
        .iter()
        .map(|(name, bytes)| (*name, TensorView::new(Dtype::F32, vec![1, 1], bytes).unwrap()));
    let metadata = metadata.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let bytes = safetensors::serialize(views, Some(metadata)).unwrap();
    std::fs::write(data.join("recording.safetensors"), bytes).unwrap();
    Command::new(env!("CARGO_BIN_EXE_siluette"))
        .args(["verify", "--backend", "cpu", "--op", "silu_mul"])
        .args(extra)
        .current_dir(folder.path())
        .output()
        .unwrap()
}

#[test]
fn verify_fails_on_a_wrong_result() {
    let silu_of_one = (1.0 / (1.0 + (-1f64).exp())) as f32;
    let metadata = [("op", "silu_mul"), ("out_dtype", "f32")];
    let output = verify_recording(&metadata, silu_of_one, &["--json"]);
    assert_exit(&output, 0);
    let output = verify_recording(&metadata, silu_of_one + 1e-3, &["--json"]);
    assert_exit(&output, 1);
    let report = json(&output);
    let failed: Vec<_> = report["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|result| result["status"] == "fail")
        .map(|result| result["case"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["recording"]);
    assert!(text(&output.stderr).contains("FAIL: cpu silu_mul f32 recording: out: "));

    let output = verify_recording(&metadata, f32::NAN, &[]);
    assert_exit(&output, 1);
    assert!(text(&output.stdout).contains("FAIL: cpu silu_mul f32 recording"));
    let output = verify_recording(&[("op", "silu")], silu_of_one, &[]);
    assert_exit(&output, 2);
}

#[test]
fn verify_prints_a_table() {
    let output = siluette(&["verify", "--backend", "cpu", "--op", "silu_mul"]);
    assert_exit(&output, 0);
    let line = text(&output.stdout).lines().find(|line| line.starts_with("cpu ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let count = cases_for(Purpose::Conformance).iter().filter(|case| case.op == "silu_mul").count();
    assert_eq!(words, ["cpu", "silu_mul", "cases", &count.to_string(), "0", "0"]);
}

#[test]
fn verify_runs_the_layers_of_a_checkpoint() {
    let folder = checkpoint(r#"{"num_hidden_layers": 2, "rms_norm_eps": 1e-5}"#);
    let model = folder.path().to_str().unwrap();
    let output = siluette(&["verify", "--backend", "cpu", "--model", model, "--json"]);
    assert_exit(&output, 0);
    let report = json(&output);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|result| result["status"] == "pass" && result["dtype"] == "f16"));
}

#[test]
fn verify_refuses_what_is_no_checkpoint() {
    let refuse = |folder: &Path, word: &str| {
        let output = siluette(&["verify", "--backend", "cpu", "--model", folder.to_str().unwrap()]);
        assert_exit(&output, 2);
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    };
    refuse(Path::new("/nowhere"), "config.json");
    refuse(checkpoint("{").path(), "config.json");
    refuse(checkpoint(r#"{"num_hidden_layers": 3}"#).path(), "model.layers.2.mlp.up_proj");
    let gelu = r#"{"num_hidden_layers": 2, "hidden_act": "gelu"}"#;
    refuse(checkpoint(gelu).path(), "gelu");
    let folder = checkpoint(r#"{"num_hidden_layers": 2}"#);
    std::fs::remove_file(folder.path().join("model-1.safetensors")).unwrap();
    refuse(folder.path(), "model-1.safetensors");
}

#[test]
fn a_missing_backend_is_a_failure_only_where_it_is_required() {
    let verify = |require: &str| {
        Command::new(env!("CARGO_BIN_EXE_siluette"))
            .args(["verify", "--backend", "cuda", "--op", "silu_mul", "--json"])
            .env("SILUETTE_REQUIRE", require)
            .output()
            .unwrap()
    };
    let output = verify("wgpu");
    if json(&output)["device"]["cuda"]["available"] == true {
        println!("NOT RUN: this machine has CUDA");
        return;
    }
    assert_exit(&output, 0);
    assert!(text(&output.stderr).contains("NOT RUN: cuda: "), "{}", text(&output.stderr));
    assert!(json(&output)["device"]["cuda"]["reason"].is_string());
    assert_exit(&verify("wgpu,cuda"), 1);
}
