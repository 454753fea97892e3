//! The SwiGLU block, dense and pruned, a language model's head and a bidirectional GRU, by siluette and by what people use,
//! in turns; but for the GRU's, weights are cold.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- [--torch PYTHON] [--runtimes PYTHON] [FILE.json [OPERATION]]`:
//! results go to the file, those of one operation alone in place of its former ones. PYTHON is one that has torch, or openvino,
//! onnxruntime and onnx, or Python 3.11 that may install them.
//!
//! Weights of several layers, more than twice the last-level cache together, take turns, as in a model. In each
//! round every contestant runs once on a layer of its own turn; medians are reported, so that what slows the
//! machine for a moment slows all alike. Threads: rayon's default for all, each pinned to a core and awake when the clock
//! starts. Calls come from one of them, as an engine's should.
//!
//! - `siluette_packed` is the dense block on weights in panels (`PackedWeight`); all else of ours is on weights as they lie.
//! - candle composes `matmul`, `silu` and `mul`, as its models do. The pruned block reads and writes half of the features
//!   (DISP-LLM): siluette gathers and scatters inside the block, candle by `index_select` and `index_add` around it. Of the
//!   head both give the best token, candle by `matmul` and `argmax`. The GRU reads 32 texts; candle's has one direction and
//!   runs twice.
//! - burn's GRU, on its `flex` backend, has both directions.
//! - gemm is the crate that candle multiplies with, on the dense block and the types that it has. Both use AVX-512 in here,
//!   which the feature `x86-v4` brings.
//! - torch does as candle does (`torch_peer.py`), in a process of its own on the same cores, with a clock of its own, on weights
//!   as a checkpoint has them and, `torch_prepacked`, in the layouts of MKL and oneDNN. Its idle threads look for work for
//!   some hundred microseconds (`GOMP_SPINCOUNT`, `KMP_BLOCKTIME`), and the next contestant starts when they sleep; set
//!   `OMP_WAIT_POLICY=PASSIVE` where other programs use the cores.
//! - OpenVINO and, in f32, ONNX Runtime run models of the dense block, the head and the GRU (`runtimes_peer.py`), likewise.
//!
//! The roof is what the bytes and operations of a call take at the speeds of memory and of multiply-adds in registers, which
//! are measured before each shape: the highest so far counts in what is printed, the highest of the run in the file.

mod burn_gru;
mod compare;
mod coprocess;
mod dense;
mod gemm_mlp;
mod gru;
mod head;
mod measure;
mod pruned;
mod report;
mod roof;
mod weights;

use std::path::PathBuf;

use compare::Comparison;
use coprocess::Coprocess;
use measure::Failure;
use siluette::{bf16, f16};

/// Hidden features and neurons of SmolLM2 135M, of a 1 B and of a 7 B model.
const SHAPES: [(usize, usize); 3] = [(576, 1536), (2048, 8192), (4096, 11008)];

/// Vocabulary and hidden features of SmolLM2 135M and of Llama 3.2 1B.
const HEADS: [(usize, usize); 2] = [(576, 49_152), (2048, 128_256)];

/// Features of a token and hidden units a direction.
const GRUS: [(usize, usize); 3] = [(300, 50), (300, 150), (300, 300)];

/// Scripts of this package's folder, by the option that asks for them.
const SCRIPTS: [(&str, &str); 2] =
    [("--torch", "torch_peer.py"), ("--runtimes", "runtimes_peer.py")];

/// What the command line asks for.
struct Options {
    /// A Python and the script that it runs.
    peers: Vec<(String, &'static str)>,
    file: Option<PathBuf>,
    operation: Option<String>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, Failure> {
        let mut options = Options { peers: Vec::new(), file: None, operation: None };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let script = SCRIPTS.iter().find(|(option, _)| *option == argument);
            if let Some((option, script)) = script {
                let python = arguments.next().ok_or(format!("{option} asks for a PYTHON"))?;
                options.peers.push((python, script));
            } else if argument.starts_with('-') {
                let message = "no such option (--torch PYTHON, --runtimes PYTHON)";
                return Err(format!("{argument}: {message}").into());
            } else if options.file.is_none() {
                options.file = Some(argument.into());
            } else if options.operation.is_none() {
                options.operation = Some(argument);
            } else {
                return Err(format!("{argument}: one file and one operation at most").into());
            }
        }
        Ok(options)
    }

    fn wants(&self, op: &str) -> bool {
        self.operation.as_deref().is_none_or(|only| only == op)
    }
}

/// Gives each of rayon's threads, which all contestants but torch share, a core of its own: bursts of a few milliseconds are
/// too short for some kernels to move one away from another.
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
    let options = Options::parse(std::env::args().skip(1))?;
    pin_threads()?;
    // From this thread, which is not pinned: a process may use the cores of the thread that starts it.
    let peers = options.peers.iter().map(|(python, script)| Coprocess::start(python, script));
    let peers = peers.collect::<Result<Vec<_>, Failure>>()?;
    // As an engine's loop on a thread of the pool: from outside, each call would first have to wake one.
    Ok(rayon::scope(|_| run(&options, peers).map_err(|error| error.to_string()))?)
}

fn run(options: &Options, peers: Vec<Coprocess>) -> Result<(), Failure> {
    let mut comparison = Comparison::new(peers)?;
    println!("{}, {}\n", siluette::Cpu::new().name(), comparison.roof);
    println!(
        "| operation | dtype | shape | rows | siluette, ms | of the roof | others: ms, times ours |"
    );
    println!("|---|---|---|---:|---:|---:|---|");
    for (hidden, ffn) in SHAPES.into_iter().filter(|_| options.wants("gated_mlp")) {
        comparison.dense::<bf16>(hidden, ffn)?;
        comparison.dense::<f16>(hidden, ffn)?;
        comparison.dense::<f32>(hidden, ffn)?;
    }
    for (hidden, ffn) in SHAPES.into_iter().filter(|_| options.wants("pruned_gated_mlp")) {
        comparison.pruned::<bf16>(hidden, ffn)?;
        comparison.pruned::<f32>(hidden, ffn)?;
    }
    for (hidden, vocabulary) in HEADS.into_iter().filter(|_| options.wants("exit_head")) {
        comparison.head::<bf16>(hidden, vocabulary)?;
        comparison.head::<f32>(hidden, vocabulary)?;
    }
    for (input, hidden) in GRUS.into_iter().filter(|_| options.wants("bigru")) {
        comparison.gru(input, hidden)?;
    }
    match &options.file {
        Some(file) => report::write(file, comparison, |op| options.wants(op)),
        None => Ok(()),
    }
}
