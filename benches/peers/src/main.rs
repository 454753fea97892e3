//! The SwiGLU block, dense and pruned, a language model's head and a bidirectional GRU, by siluette and by candle, in
//! turns, on the same weights; but for the GRU's they are cold.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- [FILE.json [OPERATION]]`: results go to the file, those
//! of one operation alone in place of its former ones.
//!
//! Weights of several layers, more than twice the last-level cache together, take turns, as in a model. In each
//! round every contestant runs once on a layer of its own turn; medians are reported, so that what slows the
//! machine for a moment slows all alike. candle composes `matmul`, `silu` and `mul`, as its models do. Threads:
//! rayon's default for all, each pinned to a core. The pruned block reads and writes half of the features (DISP-LLM):
//! siluette gathers and scatters inside the block, candle by `index_select` and `index_add` around it. Of the head both give
//! the best token, candle by `matmul` and `argmax`. The GRU reads 32 texts; candle's has one direction and runs twice;
//! burn's, on its `flex` backend, has two.

mod burn_gru;
mod dense;
mod gru;
mod head;
mod measure;
mod pruned;
mod weights;

use std::path::{Path, PathBuf};

use candle_core::WithDType;
use serde_json::{Value, json};
use siluette::{DType, Float, bf16, f16};

use gru::Gru;
use head::Heads;
use measure::{Failure, Medians};
use weights::Layers;

/// Hidden features and neurons of SmolLM2 135M, of a 1 B and of a 7 B model.
const SHAPES: [(usize, usize); 3] = [(576, 1536), (2048, 8192), (4096, 11008)];
const ROWS: [usize; 4] = [1, 8, 64, 512];

/// Vocabulary and hidden features of SmolLM2 135M and of Llama 3.2 1B.
const HEADS: [(usize, usize); 2] = [(576, 49_152), (2048, 128_256)];
const HEAD_ROWS: [usize; 3] = [1, 4, 8];

/// Features of a token, hidden units a direction, and tokens of a text.
const GRUS: [(usize, usize); 3] = [(300, 50), (300, 150), (300, 300)];
const GRU_TOKENS: [usize; 2] = [32, 64];

/// Gives each of rayon's threads, which all contestants share, a core of its own: bursts of a few milliseconds are too
/// short for some kernels to move one away from another.
fn pin_threads() -> Result<(), Failure> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let pin = move |index: usize| {
        if let Some(core) = cores.get(index) {
            core_affinity::set_for_current(*core);
        }
    };
    Ok(rayon::ThreadPoolBuilder::new().start_handler(pin).build_global()?)
}

fn main() -> Result<(), Failure> {
    pin_threads()?;
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().map(PathBuf::from);
    let only = arguments.next();
    let is_wanted = |op: &str| only.as_deref().is_none_or(|only| only == op);
    println!("| operation | dtype | shape | rows | siluette, ms | others: ms, times ours |");
    println!("|---|---|---|---:|---:|---|");
    let mut results = Vec::new();
    for (hidden, ffn) in SHAPES.into_iter().filter(|_| is_wanted("gated_mlp")) {
        results.extend(dense::<bf16>(hidden, ffn)?);
        results.extend(dense::<f16>(hidden, ffn)?);
        results.extend(dense::<f32>(hidden, ffn)?);
    }
    for (hidden, ffn) in SHAPES.into_iter().filter(|_| is_wanted("pruned_gated_mlp")) {
        results.extend(pruned::<bf16>(hidden, ffn)?);
        results.extend(pruned::<f32>(hidden, ffn)?);
    }
    for (hidden, vocabulary) in HEADS.into_iter().filter(|_| is_wanted("exit_head")) {
        results.extend(heads::<bf16>(hidden, vocabulary)?);
        results.extend(heads::<f32>(hidden, vocabulary)?);
    }
    for (input, hidden) in GRUS.into_iter().filter(|_| is_wanted("bigru")) {
        let gru = Gru::new(input, hidden)?;
        let shape = [("hidden", hidden), ("input", input)];
        let measure = |tokens| gru::measure(&gru, tokens);
        results.extend(compare::<f32>("bigru", shape, &GRU_TOKENS, measure)?);
    }
    match file {
        Some(file) => write(&file, results, is_wanted),
        None => Ok(()),
    }
}

/// Replaces what was measured; other operations keep their results.
fn write(
    file: &Path,
    results: Vec<Value>,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    if let Ok(text) = std::fs::read(file) {
        let report: Value = serde_json::from_slice(&text)?;
        let former = report["results"].as_array().cloned().unwrap_or_default();
        all.extend(former.into_iter().filter(|it| !is_wanted(it["op"].as_str().unwrap_or(""))));
    }
    all.extend(results);
    let report = json!({
        "instructions": siluette::Cpu::new().name(),
        "candle_core": "0.11",
        "burn": "0.21",
        "results": all,
    });
    Ok(std::fs::write(file, format!("{report:#}\n"))?)
}

fn dense<T: Float + WithDType>(hidden: usize, ffn: usize) -> Result<Vec<Value>, Failure> {
    let layers = Layers::<T>::new(hidden, ffn)?;
    let shape = [("hidden", hidden), ("ffn", ffn)];
    compare::<T>("gated_mlp", shape, &ROWS, |rows| dense::measure(&layers, rows))
}

fn pruned<T: Float + WithDType>(hidden: usize, ffn: usize) -> Result<Vec<Value>, Failure> {
    let layers = Layers::<T>::new(hidden / 2, ffn)?;
    let shape = [("hidden", hidden), ("ffn", ffn)];
    compare::<T>("pruned_gated_mlp", shape, &ROWS, |rows| pruned::measure(&layers, hidden, rows))
}

fn heads<T: Float + WithDType>(hidden: usize, vocabulary: usize) -> Result<Vec<Value>, Failure> {
    let heads = Heads::<T>::new(hidden, vocabulary)?;
    let shape = [("hidden", hidden), ("vocabulary", vocabulary)];
    compare::<T>("exit_head", shape, &HEAD_ROWS, |rows| head::measure(&heads, rows))
}

fn compare<T: Float>(
    op: &str,
    shape: [(&str, usize); 2],
    rows: &[usize],
    measure: impl Fn(usize) -> Result<Medians, Failure>,
) -> Result<Vec<Value>, Failure> {
    let dtype: DType = T::DTYPE;
    let [(_, width), (_, height)] = shape;
    rows.iter()
        .map(|&rows| {
            let medians = measure(rows)?;
            let (_, ours) = medians[0];
            let others: Vec<String> = medians[1..]
                .iter()
                .map(|(name, theirs)| format!("{name} {:.3}, {:.1}x", theirs * 1e3, theirs / ours))
                .collect();
            println!(
                "| {op} | {dtype} | {width}/{height} | {rows} | {:.3} | {} |",
                ours * 1e3,
                others.join("; ")
            );
            let mut result = json!({
                "op": op,
                "dtype": dtype.name(),
                (shape[0].0): shape[0].1,
                (shape[1].0): shape[1].1,
                "rows": rows,
            });
            for (name, seconds) in medians {
                result[format!("{name}_seconds")] = seconds.into();
            }
            Ok(result)
        })
        .collect()
}
