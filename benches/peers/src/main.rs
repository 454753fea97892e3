//! The SwiGLU block by siluette and by candle, dense and pruned, in turns, on the same cold weights.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- [FILE.json]`
//!
//! Weights of several layers, more than twice the last-level cache together, take turns, as in a model. In each
//! round every contestant runs once on a layer of its own turn; medians are reported, so that what slows the
//! machine for a moment slows all alike. candle composes `matmul`, `silu` and `mul`, as its models do. Threads:
//! rayon's default for both. The pruned block reads and writes half of the features (DISP-LLM): siluette gathers and
//! scatters inside the block, candle by `index_select` and `index_add` around it.

mod dense;
mod measure;
mod pruned;
mod weights;

use std::path::PathBuf;

use candle_core::WithDType;
use serde_json::{Value, json};
use siluette::{DType, Float, bf16, f16};

use measure::{Failure, Medians};
use weights::Layers;

/// Hidden features and neurons of SmolLM2 135M, of a 1 B and of a 7 B model.
const SHAPES: [(usize, usize); 3] = [(576, 1536), (2048, 8192), (4096, 11008)];
const ROWS: [usize; 4] = [1, 8, 64, 512];

fn main() -> Result<(), Failure> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    println!("| operation | dtype | hidden/ffn | rows | siluette | candle | candle / siluette |");
    println!("|---|---|---|---:|---:|---:|---:|");
    let mut results = Vec::new();
    for (hidden, ffn) in SHAPES {
        results.extend(dense::<bf16>(hidden, ffn)?);
        results.extend(dense::<f16>(hidden, ffn)?);
        results.extend(dense::<f32>(hidden, ffn)?);
    }
    for (hidden, ffn) in SHAPES {
        results.extend(pruned::<bf16>(hidden, ffn)?);
        results.extend(pruned::<f32>(hidden, ffn)?);
    }
    if let Some(file) = file {
        let report = json!({
            "instructions": siluette::Cpu::new().name(),
            "candle_core": "0.11",
            "results": results,
        });
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    Ok(())
}

fn dense<T: Float + WithDType>(hidden: usize, ffn: usize) -> Result<Vec<Value>, Failure> {
    let layers = Layers::<T>::new(hidden, ffn)?;
    compare::<T>("gated_mlp", hidden, ffn, |rows| dense::measure(&layers, rows))
}

fn pruned<T: Float + WithDType>(hidden: usize, ffn: usize) -> Result<Vec<Value>, Failure> {
    let layers = Layers::<T>::new(hidden / 2, ffn)?;
    compare::<T>("pruned_gated_mlp", hidden, ffn, |rows| pruned::measure(&layers, hidden, rows))
}

fn compare<T: Float>(
    op: &str,
    hidden: usize,
    ffn: usize,
    measure: impl Fn(usize) -> Result<Medians, Failure>,
) -> Result<Vec<Value>, Failure> {
    let dtype: DType = T::DTYPE;
    ROWS.into_iter()
        .map(|rows| {
            let Medians { siluette, candle } = measure(rows)?;
            println!(
                "| {op} | {dtype} | {hidden}/{ffn} | {rows} | {:.3} ms | {:.3} ms | {:.1} |",
                siluette * 1e3,
                candle * 1e3,
                candle / siluette
            );
            Ok(json!({
                "op": op,
                "dtype": dtype.name(),
                "hidden": hidden,
                "ffn": ffn,
                "rows": rows,
                "siluette_seconds": siluette,
                "candle_seconds": candle,
            }))
        })
        .collect()
}
