//! Text from a Llama, by candle alone and by candle with siluette: plain, drafting with its own first layers
//! (LayerSkip, arXiv 2404.16710), and pruned (DISP-LLM, arXiv 2410.11988).
//!
//! ```sh
//! cargo run --release --features candle --example layerskip
//! cargo run --release --features candle --example layerskip -- --prompt "It was" --length 200 --exit-layer 3
//! cargo run --release --features candle --example layerskip -- --model DIR    # a Hugging Face folder of a Llama
//! ```
//!
//! Drafts are verified, so that the tokens must be those of plain decoding. Exits with 1 if they are not, with 2 for bad
//! input.

mod engine;

use std::process::ExitCode;

use clap::Parser as _;

use engine::{Failure, Options};

fn main() -> ExitCode {
    give_candle_its_threads();
    match engine::execute(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: drafting changed the tokens");
            ExitCode::from(1)
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(match failure {
                Failure::Input(_) => 2,
                Failure::Siluette(_) | Failure::Candle(_) => 1,
            })
        }
    }
}

/// Unless it is told how many threads it has, candle reads that from /proc/cpuinfo anew for each product: a third of its time
/// with a small model.
fn give_candle_its_threads() {
    const NAME: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(NAME).is_none() {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(NAME, threads.to_string()) };
    }
}
