//! `siluette verify`: the conformance cases and real input, on this machine's devices.

use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;
use serde_json::{Value, json};
use siluette::conformance::{Case, Oracle, Outcome, Purpose, Status, Tolerance, cases_for};
use siluette::registry;
use siluette::{Backend, Error};

use crate::devices::{self, Opened};
use crate::model::{self, Checkpoint};
use crate::pruned_model::PrunedModel;
use crate::real_input::{self, Recording};
use crate::selection::Selection;
use crate::{Verdict, output};

/// Check every operation on this machine's devices against the scalar reference
///
/// Runs the conformance cases, and real weights and hidden states with the results that PyTorch gives, or
/// with --model every layer of a checkpoint instead. Backends that are not available are listed with the
/// reason; the environment variable SILUETTE_REQUIRE=wgpu,cuda (or real_input) makes that a failure.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    selection: Selection,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Verify the MLPs of a Hugging Face checkpoint of the Llama architecture
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// Verify this folder of `siluette prune`, made from the model: its MLPs, one after the other, against the
    /// model's own under masks
    #[arg(long, value_name = "DIR", requires = "model")]
    pruned: Option<PathBuf>,
}

/// Tokens that a checkpoint's layers are run on: the oracle's time grows with them.
const MODEL_ROWS: usize = 2;

/// Something to verify; the oracle runs when its turn comes.
struct Subject {
    op: &'static str,
    dtype: String,
    case: String,
    /// What it counts as in the table.
    group: &'static str,
    /// Whether the expected results come from elsewhere than the reference.
    judges_reference: bool,
    oracle: Box<dyn Fn() -> Result<Oracle, Error>>,
}

/// A subject on a backend.
struct Row {
    op: &'static str,
    backend: Backend,
    dtype: String,
    case: String,
    group: &'static str,
    outcome: Outcome,
    tolerance: Option<Tolerance>,
}

pub fn execute(options: &Options) -> Result<Verdict, Error> {
    let mut notes = Vec::new();
    let mut missing = false;
    let mut subjects = match (&options.model, &options.pruned) {
        (Some(folder), Some(pruned)) => pruned_layers(PrunedModel::open(folder, pruned)?)?,
        (Some(folder), None) => layers(Rc::new(Checkpoint::open(folder)?))?,
        (None, _) => cases_for(Purpose::Conformance).into_iter().map(from_case).collect(),
    };
    if options.model.is_none() {
        let recordings = real_input::find()?;
        if recordings.is_empty() {
            missing = devices::is_required(real_input::REQUIREMENT);
            notes.push(format!("NOT RUN: {}", real_input::MISSING));
        }
        for recording in recordings {
            subjects.push(from_recording(recording)?);
        }
    }
    let devices = devices::open(&options.selection);
    for opened in &devices {
        missing |= opened.is_required_but_missing();
        if let Err(error) = &opened.device {
            notes.push(format!("NOT RUN: {error}"));
        }
    }
    let rows = check_all(options, subjects, &devices);
    let failed = rows.iter().any(|row| matches!(row.outcome.status, Status::Fail(_)));
    report(options, &devices, &rows, &notes)?;
    Ok(if failed || missing { Verdict::Bad } else { Verdict::Good })
}

fn from_case(case: Case) -> Subject {
    Subject {
        op: case.op,
        dtype: case.dtype.clone(),
        case: case.name.clone(),
        group: "cases",
        judges_reference: false,
        oracle: Box::new(move || Oracle::new(&case)),
    }
}

fn from_recording(recording: Recording) -> Result<Subject, Error> {
    Ok(Subject {
        op: recording.info.name,
        dtype: recording.dtype()?,
        case: recording.name(),
        group: "real input",
        judges_reference: true,
        oracle: Box::new(move || recording.oracle()),
    })
}

fn layers(checkpoint: Rc<Checkpoint>) -> Result<Vec<Subject>, Error> {
    let info = registry::find(model::OPERATION)?;
    (0..checkpoint.layers())
        .map(|layer| {
            let checkpoint = checkpoint.clone();
            Ok(Subject {
                op: info.name,
                dtype: checkpoint.dtype(layer)?,
                case: format!("{} layer={layer} rows={MODEL_ROWS}", checkpoint.name()),
                group: "model",
                judges_reference: false,
                oracle: Box::new(move || {
                    let (inputs, parameters) = checkpoint.layer(layer, MODEL_ROWS)?;
                    Oracle::for_inputs(info, inputs, &parameters)
                }),
            })
        })
        .collect()
}

/// Each layer on what the masked model gives for the layers before it.
fn pruned_layers(model: PrunedModel) -> Result<Vec<Subject>, Error> {
    let model = Rc::new(model);
    (0..model.layers())
        .map(|layer| {
            let model = model.clone();
            Ok(Subject {
                op: PrunedModel::OPERATION,
                dtype: model.dtype(layer)?,
                case: format!("{} layer={layer} rows={MODEL_ROWS}", model.name()),
                group: "model",
                judges_reference: false,
                oracle: Box::new(move || model.oracle(layer, MODEL_ROWS)),
            })
        })
        .collect()
}

fn check_all(options: &Options, mut subjects: Vec<Subject>, devices: &[Opened]) -> Vec<Row> {
    subjects.retain(|subject| options.selection.has_operation(subject.op));
    let progress = output::progress(subjects.len());
    let mut rows = Vec::new();
    for subject in subjects {
        progress.set_message(format!("{} {} {}", subject.op, subject.dtype, subject.case));
        rows.extend(check(&subject, devices));
        progress.inc(1);
    }
    progress.finish_and_clear();
    rows
}

fn check(subject: &Subject, devices: &[Opened]) -> Vec<Row> {
    let devices: Vec<_> = devices
        .iter()
        .filter_map(|opened| opened.device.as_ref().ok())
        .filter(|device| subject.judges_reference || device.backend() != Backend::Reference)
        .collect();
    if devices.is_empty() {
        return Vec::new();
    }
    let oracle = (subject.oracle)();
    let outcome = |device| match &oracle {
        Ok(oracle) => oracle.check(device),
        Err(error) => {
            Outcome { status: Status::Fail(format!("oracle: {error}")), comparison: None }
        }
    };
    devices
        .into_iter()
        .map(|device| Row {
            op: subject.op,
            backend: device.backend(),
            dtype: subject.dtype.clone(),
            case: subject.case.clone(),
            group: subject.group,
            outcome: outcome(device),
            tolerance: oracle.as_ref().ok().map(Oracle::tolerance),
        })
        .collect()
}

fn report(
    options: &Options,
    devices: &[Opened],
    rows: &[Row],
    notes: &[String],
) -> Result<(), Error> {
    let reasons = reasons(rows);
    if options.json {
        for line in notes.iter().chain(&reasons) {
            output::complain(line);
        }
        let results: Vec<Value> = rows.iter().map(Row::to_json).collect();
        let report = json!({ "device": devices::to_json(devices), "results": results });
        return output::print(&format!("{report:#}\n"));
    }
    let mut text = String::new();
    for opened in devices {
        if let Ok(device) = &opened.device {
            text += &format!("{}: {}\n", opened.backend, device.name());
        }
    }
    text += &format!("\n{}", counts(rows));
    for line in reasons.iter().chain(notes) {
        text += &format!("{line}\n");
    }
    output::print(&text)
}

/// A line for each case that did not pass.
fn reasons(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .filter_map(|row| {
            let (word, reason) = match &row.outcome.status {
                Status::Pass => return None,
                Status::Fail(reason) => ("FAIL", reason),
                Status::Unsupported(reason) => ("UNSUPPORTED", reason),
            };
            Some(format!("{word}: {} {} {} {}: {reason}", row.backend, row.op, row.dtype, row.case))
        })
        .collect()
}

/// How many passed, by backend, operation and group.
fn counts(rows: &[Row]) -> String {
    let heading = ["backend", "operation", "on", "pass", "fail", "unsupported"];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    let mut seen = Vec::new();
    for row in rows {
        let key = (row.backend, row.op, row.group);
        if !seen.contains(&key) {
            seen.push(key);
        }
    }
    seen.sort_by_key(|(backend, ..)| *backend);
    for key in seen {
        let of_key = || rows.iter().filter(|row| (row.backend, row.op, row.group) == key);
        let count = |status: &str| {
            of_key().filter(|row| status_name(&row.outcome.status) == status).count().to_string()
        };
        let (backend, op, group) = key;
        lines.push(vec![
            backend.name().to_owned(),
            op.to_owned(),
            group.to_owned(),
            count("pass"),
            count("fail"),
            count("unsupported"),
        ]);
    }
    output::table(&lines, 3)
}

fn status_name(status: &Status) -> &'static str {
    match status {
        Status::Pass => "pass",
        Status::Fail(_) => "fail",
        Status::Unsupported(_) => "unsupported",
    }
}

impl Row {
    fn to_json(&self) -> Value {
        let comparison = self.outcome.comparison;
        json!({
            "op": self.op,
            "backend": self.backend.name(),
            "dtype": self.dtype,
            "case": self.case,
            "status": status_name(&self.outcome.status),
            "max_abs": comparison.map(|comparison| comparison.max_absolute_error),
            "nmse": comparison.map(|comparison| comparison.nmse),
            "tolerance": self.tolerance.map(tolerance_to_json),
        })
    }
}

/// `"exact"`, or the coefficients of the error bound.
fn tolerance_to_json(tolerance: Tolerance) -> Value {
    match tolerance {
        Tolerance::Exact => json!("exact"),
        Tolerance::Rounded { inner, outer, nmse } => {
            json!({ "inner": inner, "outer": outer, "nmse": nmse })
        }
    }
}
