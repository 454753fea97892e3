//! `siluette prune`: a checkpoint and its masks to a smaller checkpoint; scores to an edited one.

mod budget;
pub mod compact;
pub mod compute;
mod edit;
mod folder;
pub mod llama;
mod shards;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use siluette::{Error, Parameters, Problem};

use crate::Verdict;
use crate::output;

/// Prune a checkpoint of the Llama architecture
///
/// `disp` (DISP-LLM) keeps the features and neurons that masks name, and writes the weights that are left with
/// the index sets beside them. `dean` (DEAN) keeps every shape and zeroes the weights that two tasks share.
/// The model is read tensor by tensor; the output folder appears whole or not at all.
#[derive(Debug, Args)]
pub struct Options {
    /// Folder with config.json and safetensors files
    #[arg(long, value_name = "DIR")]
    model: PathBuf,

    /// Folder to make; it must not exist
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    output: Option<PathBuf>,

    /// How to prune
    #[arg(long, value_enum, default_value = "disp")]
    method: Method,

    /// disp: safetensors file with layers.{i}.{set}.mask, or .indices and .rank, for the sets attention_in,
    /// attention_out, mlp_in, mlp_mid and mlp_out
    #[arg(long, value_name = "FILE", conflicts_with = "budget")]
    masks: Option<PathBuf>,

    /// disp: instead of masks, the share of weights to keep, by the magnitude of the weights
    #[arg(long, value_name = "SHARE")]
    budget: Option<f64>,

    /// dean: safetensors file with general.{weight}, first.{weight} and second.{weight} for the weights to edit
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,

    /// dean: a parameter of coupled_neurons, p, q or mode (may be repeated)
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = crate::run::key_value)]
    parameters: Vec<(String, String)>,

    /// Say what would go, and write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// DISP-LLM: dimension-independent structural pruning
    Disp,
    /// DEAN: zeroing of coupled neurons
    Dean,
}

pub fn execute(options: &Options) -> Result<Verdict, Error> {
    check(options)?;
    let model = llama::Llama::open(&options.model)?;
    // Before the work: a folder that cannot be made is told at once.
    let output = match &options.output {
        Some(path) if !options.dry_run => {
            Some(folder::PendingFolder::create(path, &options.model)?)
        }
        _ => None,
    };
    match options.method {
        Method::Disp => {
            let sets = match (&options.masks, options.budget) {
                (Some(masks), _) => model.read_sets(masks)?,
                (None, Some(budget)) => budget::choose(&model, budget)?,
                (None, None) => {
                    return Err(missing("masks", "a file of masks, or --budget"));
                }
            };
            output::print(&compact::report(&model, &sets)?)?;
            if let Some(output) = output {
                compact::write(&model, &sets, output)?;
            }
        }
        Method::Dean => {
            let Some(scores) = &options.scores else {
                return Err(missing("scores", "a file of scores"));
            };
            let edits = edit::find(&model, scores, &parameters(options))?;
            output::print(&edits.report())?;
            if let Some(output) = output {
                edit::write(&model, &edits, output)?;
            }
        }
    }
    Ok(Verdict::Good)
}

/// Options that belong to the other method.
fn check(options: &Options) -> Result<(), Error> {
    let stray = match options.method {
        Method::Disp if options.scores.is_some() => Some("scores"),
        Method::Disp if !options.parameters.is_empty() => Some("param"),
        Method::Dean if options.masks.is_some() => Some("masks"),
        Method::Dean if options.budget.is_some() => Some("budget"),
        _ => None,
    };
    match stray {
        None => Ok(()),
        Some(name) => {
            let (expected, got) = ("none with this --method", "a value");
            Err(mistake(name, Problem::Unexpected, expected, got))
        }
    }
}

fn parameters(options: &Options) -> Parameters {
    options
        .parameters
        .iter()
        .fold(Parameters::new(), |parameters, (key, value)| parameters.with(key, value))
}

fn missing(name: &'static str, expected: &str) -> Error {
    mistake(name, Problem::Missing, expected, "none")
}

fn mistake(name: &'static str, problem: Problem, expected: &str, got: &str) -> Error {
    Error::Argument {
        op: "prune",
        argument: name.into(),
        problem,
        expected: expected.to_owned(),
        got: got.to_owned(),
        remedy: "".into(),
    }
}
