//! `siluette run`: one operation on tensors from a file.

use std::path::PathBuf;

use clap::Args;
use siluette::device::NamedTensors;
use siluette::registry::{OperationInfo, Prepared};
use siluette::{Backend, Device, Error, Parameters, Problem, Tensor};

use crate::output::PendingFile;
use crate::tensor_file::{self, TensorFile};
use crate::{Verdict, elements, selection};

/// Run one operation on tensors from a file
///
/// Tensors have the names of the operation's arguments; `siluette info` lists them. Nothing is written
/// unless all goes well.
#[derive(Debug, Args)]
pub struct Options {
    /// The operation
    #[arg(value_name = "OP", value_parser = selection::operation())]
    operation: &'static OperationInfo,

    /// Where to run it
    #[arg(long, value_parser = selection::backend())]
    backend: Backend,

    /// safetensors file with the inputs
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// safetensors file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// A parameter of the operation (may be repeated)
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = key_value)]
    parameters: Vec<(String, String)>,

    /// Only these outputs
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    outputs: Option<Vec<String>>,
}

/// A parameter as on the command line.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

pub fn execute(options: &Options) -> Result<Verdict, Error> {
    let info = options.operation;
    let parameters = parameters(options)?;
    let file = TensorFile::open(&options.input)?;
    let inputs = elements::inputs(&file, info)?;
    let prepared = info.prepare(inputs, &parameters)?;
    let wanted = wanted_outputs(options, &*prepared)?;
    // Before the work: a folder that cannot be written is told at once.
    let pending = PendingFile::create(&options.output)?;
    let device = Device::open(options.backend)?;
    let mut results = compute(&*prepared, &device, info, &wanted)?;
    results.retain(|name, _| wanted.contains(name));
    tensor_file::write(pending, &results, &note(options))?;
    Ok(Verdict::Good)
}

fn parameters(options: &Options) -> Result<Parameters, Error> {
    let mut parameters = Parameters::new();
    for (key, value) in &options.parameters {
        if parameters.iter().any(|(name, _)| name == key) {
            let got = format!("`{key}` twice");
            let expected = "each parameter once";
            let info = options.operation;
            return Err(elements::mistake(info, "param", Problem::Unexpected, expected, got));
        }
        parameters = parameters.with(key, value);
    }
    Ok(parameters)
}

/// The outputs to write: all that the inputs allow, or those asked for.
fn wanted_outputs(options: &Options, prepared: &dyn Prepared) -> Result<Vec<String>, Error> {
    let possible = prepared.outputs();
    let Some(wanted) = &options.outputs else {
        return Ok(possible.keys().cloned().collect());
    };
    match wanted.iter().find(|name| !possible.contains_key(*name)) {
        None => Ok(wanted.clone()),
        Some(name) => {
            let names: Vec<&str> = possible.keys().map(String::as_str).collect();
            let expected = format!("some of: {}", names.join(", "));
            let info = options.operation;
            let got = format!("`{name}`");
            Err(elements::mistake(info, "outputs", Problem::Unexpected, expected, got))
        }
    }
}

fn compute(
    prepared: &dyn Prepared,
    device: &Device,
    info: &OperationInfo,
    wanted: &[String],
) -> Result<NamedTensors, Error> {
    let is_optional = |name: &str| {
        info.arguments.iter().any(|argument| argument.name == name && argument.optional)
    };
    let outputs = prepared
        .outputs()
        .iter()
        .filter(|(name, _)| wanted.contains(name) || !is_optional(name))
        .map(|(name, layout)| (name.clone(), Tensor::zeros(*layout)))
        .collect();
    let mut loaded = prepared.load(device, outputs)?;
    loaded.run(1)?;
    let mut outputs = loaded.outputs()?;
    prepared.trim(&mut outputs)?;
    Ok(outputs)
}

/// How the file came to be, for its metadata.
fn note(options: &Options) -> String {
    let mut note = format!("{} --backend {}", options.operation.name, options.backend);
    for (key, value) in &options.parameters {
        note += &format!(" --param {key}={value}");
    }
    note
}
