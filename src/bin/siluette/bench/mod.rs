//! `siluette bench`: how fast every operation is, against ceilings measured in the same run.

mod ceilings;
mod measure;
mod plot;
mod processor;
mod report;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::Args;
use serde_json::Value;
use siluette::conformance::{Case, Purpose, cases_for};
use siluette::registry::{self, Prepared};
use siluette::{Backend, Cost, Error};

use crate::Verdict;
use crate::devices::{self, Opened};
use crate::model::{self, Checkpoint};
use crate::output::{self, PendingFile};
use crate::selection::Selection;
use ceilings::Ceilings;
use measure::Measurement;
use processor::Stream;

/// Measure every operation on this machine's devices
///
/// Cold: copies of all tensors take turns until they exceed twice the last-level cache, so that every run
/// reads memory. Hot: the same tensors again and again, where they fit in the cache. Percentages are of the
/// roofline, whose ceilings are measured in the same run.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    selection: Selection,

    /// Write the results as JSON, after every row anew
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the roofline as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Measure the MLPs of a Hugging Face checkpoint of the Llama architecture
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

/// Numbers of tokens that a checkpoint's layers are measured with.
const MODEL_ROWS: [usize; 4] = [1, 8, 64, 512];

/// Prepares the inputs of this number: a checkpoint has as many as layers, a case one.
type Prepare = Box<dyn Fn(usize) -> Result<Box<dyn Prepared>, Error>>;

/// Something to measure.
struct Subject {
    op: &'static str,
    dtype: String,
    case: String,
    /// Sets of inputs that there are.
    variants: usize,
    prepare: Prepare,
}

/// A subject on a backend.
struct Row {
    op: &'static str,
    backend: Backend,
    dtype: String,
    case: String,
    outcome: Result<(Cost, Measurement), Error>,
}

/// A backend with what its device can do at best.
struct Roof {
    backend: Backend,
    ceilings: Ceilings,
}

pub fn execute(options: &Options) -> Result<Verdict, Error> {
    let subjects = subjects(options)?;
    // Before the work: a folder that cannot be written is told at once.
    for path in [&options.json, &options.plot].into_iter().flatten() {
        PendingFile::create(path)?;
    }
    let mut devices = devices::open(&options.selection);
    devices.retain(|opened| {
        // The scalar oracle would take hours, and nobody waits for it.
        opened.backend != Backend::Reference || options.selection.names(opened.backend)
    });
    let missing = devices.iter().any(Opened::is_required_but_missing);
    for opened in &devices {
        if let Err(error) = &opened.device {
            output::complain(&format!("NOT RUN: {error}"));
        }
    }
    let before = roofs(&devices)?;
    // After every row: whoever interrupts a long run keeps what was measured.
    let rows = measure_all(&subjects, &devices, |rows| match &options.json {
        Some(path) => write_json(path, &report::to_json(&devices, &before, rows, false)),
        None => Ok(()),
    })?;
    let roofs: Vec<Roof> = before
        .into_iter()
        .zip(roofs(&devices)?)
        .map(|(before, after)| Roof {
            backend: before.backend,
            ceilings: before.ceilings.higher(after.ceilings),
        })
        .collect();
    let failed = rows.iter().any(
        |row| matches!(&row.outcome, Err(error) if !matches!(error, Error::Unsupported { .. })),
    );
    output::print(&report::to_text(&devices, &roofs, &rows))?;
    if let Some(path) = &options.json {
        write_json(path, &report::to_json(&devices, &roofs, &rows, true))?;
    }
    if let Some(path) = &options.plot {
        PendingFile::create(path)?.commit(plot::roofline(&roofs, &rows)?.as_bytes())?;
    }
    Ok(if failed || missing { Verdict::Bad } else { Verdict::Good })
}

fn subjects(options: &Options) -> Result<Vec<Subject>, Error> {
    let mut subjects = match &options.model {
        Some(folder) => layers(Rc::new(Checkpoint::open(folder)?))?,
        None => cases_for(Purpose::Bench).into_iter().map(from_case).collect(),
    };
    subjects.retain(|subject| options.selection.has_operation(subject.op));
    Ok(subjects)
}

fn from_case(case: Case) -> Subject {
    Subject {
        op: case.op,
        dtype: case.dtype.clone(),
        case: case.name.clone(),
        variants: 1,
        prepare: Box::new(move |_| {
            registry::find(case.op)?.prepare(case.inputs()?, &case.parameters)
        }),
    }
}

fn layers(checkpoint: Rc<Checkpoint>) -> Result<Vec<Subject>, Error> {
    let info = registry::find(model::OPERATION)?;
    let dtype = checkpoint.dtype(0)?;
    let subject = |rows| {
        let checkpoint = checkpoint.clone();
        Subject {
            op: info.name,
            dtype: dtype.clone(),
            case: format!("{} rows={rows}", checkpoint.name()),
            variants: checkpoint.layers(),
            prepare: Box::new(move |layer| {
                let (inputs, parameters) = checkpoint.layer(layer, rows)?;
                info.prepare(inputs, &parameters)
            }),
        }
    };
    Ok(MODEL_ROWS.into_iter().map(subject).collect())
}

fn roofs(devices: &[Opened]) -> Result<Vec<Roof>, Error> {
    devices
        .iter()
        .filter_map(|opened| opened.device.as_ref().ok())
        .map(|device| Ok(Roof { backend: device.backend(), ceilings: Ceilings::measure(device)? }))
        .collect()
}

fn write_json(path: &Path, report: &Value) -> Result<(), Error> {
    PendingFile::create(path)?.commit(format!("{report:#}\n").as_bytes())
}

/// `each` sees all rows so far after every one.
fn measure_all(
    subjects: &[Subject],
    devices: &[Opened],
    each: impl Fn(&[Row]) -> Result<(), Error>,
) -> Result<Vec<Row>, Error> {
    let devices: Vec<_> = devices.iter().filter_map(|opened| opened.device.as_ref().ok()).collect();
    let progress = output::progress(subjects.len() * devices.len());
    let mut rows = Vec::new();
    for device in devices {
        let cache = device.cache_bytes().unwrap_or(0);
        let memory = matches!(device.backend(), Backend::Reference | Backend::Cpu)
            .then(|| Stream::new(cache));
        for subject in subjects {
            progress.set_message(format!("{} {} {}", subject.op, subject.dtype, subject.case));
            rows.push(Row {
                op: subject.op,
                backend: device.backend(),
                dtype: subject.dtype.clone(),
                case: subject.case.clone(),
                outcome: measure::measure(subject, device, memory.as_ref()),
            });
            each(&rows)?;
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}
