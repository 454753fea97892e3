//! The command-line tool, as a user meets it: exit codes, output, files.

mod bench;
mod prune;
mod run;
mod verify;

use std::process::{Command, Output, Stdio};

use safetensors::{Dtype, tensor::TensorView};
use siluette::registry::OPERATIONS;
use tempfile::TempDir;

use crate::support::is_required;

fn siluette(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_siluette"))
        .args(arguments)
        .env_remove("SILUETTE_REQUIRE")
        .output()
        .expect("the tool starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stderr: {}", text(&output.stderr));
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("stdout is JSON and nothing else")
}

/// A checkpoint of two layers, hidden 4, ffn 6, in two files, with norm weights in f32.
fn checkpoint(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let mut weight_map = serde_json::Map::new();
    for layer in 0..2 {
        let file = format!("model-{layer}.safetensors");
        let matrix = |name: &str, shape: [usize; 2]| {
            let bytes = (0..24u16).flat_map(|value| (0x3C00 + 64 * value).to_le_bytes()).collect();
            (format!("model.layers.{layer}.{name}.weight"), Dtype::F16, shape.to_vec(), bytes)
        };
        let norm: Vec<u8> = [1f32; 4].into_iter().flat_map(f32::to_le_bytes).collect();
        let norm_name = format!("model.layers.{layer}.post_attention_layernorm.weight");
        let tensors: [(String, Dtype, Vec<usize>, Vec<u8>); 4] = [
            matrix("mlp.gate_proj", [6, 4]),
            matrix("mlp.up_proj", [6, 4]),
            matrix("mlp.down_proj", [4, 6]),
            (norm_name, Dtype::F32, vec![4], norm),
        ];
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(folder.path().join(&file), bytes).unwrap();
        weight_map.extend(tensors.iter().map(|(name, ..)| (name.clone(), file.clone().into())));
    }
    let index = serde_json::json!({ "weight_map": weight_map }).to_string();
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    folder
}

#[test]
fn unknown_names_are_usage_errors() {
    for arguments in [
        &["run", "gated"][..],
        &["verify", "--op", "gated"],
        &["verify", "--backend", "metal"],
        &["bench", "--op", ""],
        &["info", "--xml"],
        &["prune"],
        &[],
    ] {
        let output = siluette(arguments);
        assert_exit(&output, 2);
        assert!(output.stdout.is_empty());
    }
    assert_exit(&siluette(&["--help"]), 0);
    assert_exit(&siluette(&["--version"]), 0);
}

#[test]
fn info_tells_devices_and_operations() {
    let output = siluette(&["info", "--backend", "cpu", "--json"]);
    assert_exit(&output, 0);
    let report = json(&output);
    let cpu = &report["backends"]["cpu"];
    assert_eq!(cpu["available"], true);
    assert!(cpu["details"]["threads"].is_string());
    for info in OPERATIONS {
        let mut supports = cpu["operations"].as_array().unwrap().iter();
        assert!(supports.any(|entry| entry["op"] == info.name && entry["supported"] == true));
    }
    let output = siluette(&["info", "--backend", "cpu"]);
    assert!(text(&output.stdout).contains("runs gated_mlp in f32"));
}

#[test]
fn info_tells_the_launches_of_devices() {
    let output = siluette(&["info", "--op", "feature_attention", "--json"]);
    let backends = &json(&output)["backends"];
    for (backend, expected) in [("cpu", None), ("wgpu", Some(1)), ("cuda", Some(1))] {
        let backend_report = &backends[backend];
        let is_there = backend_report["available"] == true;
        assert!(is_there || !is_required(backend), "{backend_report}");
        for entry in backend_report["operations"].as_array().into_iter().flatten() {
            assert_eq!(entry["launches"].as_u64(), expected, "{backend}: {entry}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let tool = Command::new(env!("CARGO_BIN_EXE_siluette"))
        .args(["info", "--backend", "cpu", "--json"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn();
    let output = tool.unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}
