//! The command-line tool: what runs on this machine, whether it is right, how fast it is, one operation on
//! tensors from a file, and the pruning of checkpoints.
//!
//! All but the pruning is made from the registry and the case list, and knows no operation by name.
#![deny(unsafe_code)]

mod bench;
mod devices;
mod elements;
mod info;
mod model;
mod output;
mod prune;
mod pruned_model;
mod real_input;
mod run;
mod selection;
mod tensor_file;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use siluette::Error;

/// Hand-written CUDA and WGSL inference kernels: what runs here, whether it is right, how fast it is.
///
/// Exit codes: 0 if all went well, 1 if a verification failed or a required backend is missing, 2 for bad
/// usage or input.
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Info(info::Options),
    Verify(verify::Options),
    Bench(bench::Options),
    Run(run::Options),
    Prune(prune::Options),
}

/// How a command that ran to its end came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
}

impl Command {
    fn execute(self) -> Result<Verdict, Error> {
        match self {
            Command::Info(options) => info::execute(&options),
            Command::Verify(options) => verify::execute(&options),
            Command::Bench(options) => bench::execute(&options),
            Command::Run(options) => run::execute(&options),
            Command::Prune(options) => prune::execute(&options),
        }
    }
}

fn main() -> ExitCode {
    match CommandLine::parse().command.execute() {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Err(error) => {
            output::complain(&format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}
