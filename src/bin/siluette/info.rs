//! `siluette info`: what runs on this machine, and why the rest does not.

use clap::Args;
use serde_json::{Map, Value, json};
use siluette::conformance::{Case, Purpose, cases_for};
use siluette::device::NamedTensors;
use siluette::registry::{self, OPERATIONS, OperationInfo};
use siluette::{Device, Error, Tensor};

use crate::devices::{self, Opened};
use crate::selection::Selection;
use crate::{Verdict, output};

/// List backends, devices, drivers, and which operations run where
///
/// Each operation is tried once, in each element type, on its smallest conformance case; launches are what that takes.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    selection: Selection,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Whether a device runs an operation in one combination of element types.
struct Support {
    op: &'static str,
    dtype: String,
    /// Kernel launches or dispatches, if any, or why not.
    launches: Result<Option<usize>, String>,
}

pub fn execute(options: &Options) -> Result<Verdict, Error> {
    let cases = smallest_cases(&options.selection);
    let devices = devices::open(&options.selection);
    let supports: Vec<Vec<Support>> =
        devices.iter().map(|opened| support(opened, &cases)).collect();
    let text = if options.json {
        format!("{:#}\n", to_json(&devices, &supports))
    } else {
        to_text(options, &devices, &supports)
    };
    output::print(&text)?;
    Ok(Verdict::Good)
}

/// For each operation and element type, the case with the fewest elements that has any.
fn smallest_cases(selection: &Selection) -> Vec<Case> {
    let size = |case: &Case| -> usize {
        case.tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    };
    let mut cases = cases_for(Purpose::Conformance);
    cases.retain(|case| selection.has_operation(case.op));
    cases.retain(|case| case.tensors.iter().all(|tensor| !tensor.shape.contains(&0)));
    cases.sort_by_key(size);
    let mut smallest: Vec<Case> = Vec::new();
    for info in OPERATIONS {
        for case in cases.iter().filter(|case| case.op == info.name) {
            if smallest.iter().all(|seen| (seen.op, &seen.dtype) != (case.op, &case.dtype)) {
                smallest.push(case.clone());
            }
        }
    }
    smallest
}

fn support(opened: &Opened, cases: &[Case]) -> Vec<Support> {
    let Ok(device) = &opened.device else { return Vec::new() };
    cases
        .iter()
        .map(|case| Support {
            op: case.op,
            dtype: case.dtype.clone(),
            launches: attempt(device, case).map_err(|error| error.to_string()),
        })
        .collect()
}

fn attempt(device: &Device, case: &Case) -> Result<Option<usize>, Error> {
    let prepared = registry::find(case.op)?.prepare(case.inputs()?, &case.parameters)?;
    let outputs: NamedTensors = prepared
        .outputs()
        .iter()
        .map(|(name, layout)| (name.clone(), Tensor::zeros(*layout)))
        .collect();
    let mut loaded = prepared.load(device, outputs)?;
    loaded.run(1)?;
    Ok(loaded.launches())
}

fn features() -> Vec<&'static str> {
    [("cuda", cfg!(feature = "cuda")), ("wgpu", cfg!(feature = "wgpu"))]
        .into_iter()
        .filter_map(|(name, on)| on.then_some(name))
        .collect()
}

fn to_json(devices: &[Opened], supports: &[Vec<Support>]) -> Value {
    let backends: Map<String, Value> = devices
        .iter()
        .zip(supports)
        .map(|(opened, supports)| {
            let mut backend = opened.to_json();
            let operations = supports.iter().map(|support| {
                json!({
                    "op": support.op,
                    "dtype": support.dtype,
                    "supported": support.launches.is_ok(),
                    "reason": support.launches.as_ref().err(),
                    "launches": support.launches.as_ref().ok(),
                })
            });
            backend["operations"] = operations.collect();
            (opened.backend.name().to_owned(), backend)
        })
        .collect();
    let operations: Vec<Value> = OPERATIONS.iter().map(operation_to_json).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "features": features(),
        "backends": backends,
        "operations": operations,
    })
}

fn operation_to_json(info: &OperationInfo) -> Value {
    let tensors = info.listed_arguments().map(|argument| {
        json!({
            "name": argument.pattern,
            "role": format!("{:?}", argument.role).to_lowercase(),
            "optional": argument.optional,
            "description": argument.description,
        })
    });
    let parameters = info.parameters.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "values": parameter.values,
            "default": parameter.default,
            "description": parameter.description,
        })
    });
    json!({
        "op": info.name,
        "family": info.family,
        "summary": info.summary,
        "tensors": tensors.collect::<Vec<_>>(),
        "parameters": parameters.collect::<Vec<_>>(),
    })
}

fn to_text(options: &Options, devices: &[Opened], supports: &[Vec<Support>]) -> String {
    let mut text = format!(
        "siluette {} on {} {}, features: {}\n\nbackends\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        features().join(", "),
    );
    for (opened, supports) in devices.iter().zip(supports) {
        backend_text(&mut text, opened, supports);
    }
    text.push_str("\noperations\n");
    for info in OPERATIONS.iter().filter(|info| options.selection.has_operation(info.name)) {
        operation_text(&mut text, info);
    }
    text
}

fn backend_text(text: &mut String, opened: &Opened, supports: &[Support]) {
    let device = match &opened.device {
        Ok(device) => device,
        Err(error) => {
            *text += &format!("  {}: not available\n    {error}\n", opened.backend);
            return;
        }
    };
    *text += &format!("  {}: {}\n", opened.backend, device.name());
    for (name, value) in device.details() {
        *text += &format!("    {}: {value}\n", name.replace('_', " "));
    }
    for info in OPERATIONS {
        let of_operation = || supports.iter().filter(|support| support.op == info.name);
        let runs = || of_operation().filter(|support| support.launches.is_ok());
        let dtypes: Vec<&str> = runs().map(|support| support.dtype.as_str()).collect();
        if !dtypes.is_empty() {
            let launches = launches_text(runs());
            *text += &format!("    runs {} in {}{launches}\n", info.name, dtypes.join(", "));
        }
        for support in of_operation() {
            if let Err(reason) = &support.launches {
                *text +=
                    &format!("    does not run {} in {}: {reason}\n", info.name, support.dtype);
            }
        }
    }
}

/// How many launches these take: one number, or the least and the most.
fn launches_text<'a>(supports: impl Iterator<Item = &'a Support>) -> String {
    let launches: Vec<usize> =
        supports.filter_map(|support| support.launches.as_ref().ok().copied().flatten()).collect();
    match (launches.iter().min(), launches.iter().max()) {
        (Some(1), Some(1)) => " (1 launch)".to_owned(),
        (Some(least), Some(most)) if least == most => format!(" ({least} launches)"),
        (Some(least), Some(most)) => format!(" ({least} to {most} launches)"),
        _ => String::new(),
    }
}

fn operation_text(text: &mut String, info: &OperationInfo) {
    *text += &format!("  {}: {}\n", info.name, info.summary);
    for argument in info.listed_arguments() {
        let role = format!("{:?}", argument.role).to_lowercase();
        let optional = if argument.optional { "optional " } else { "" };
        let (name, description) = (argument.pattern, argument.description);
        *text += &format!("    {name}: {optional}{role}, {description}\n");
    }
    for parameter in info.parameters {
        let default = match parameter.default {
            "" => String::new(),
            default => format!(" (default {default})"),
        };
        let (name, values) = (parameter.name, parameter.values);
        *text += &format!("    --param {name}: {values}{default}; {}\n", parameter.description);
    }
}
