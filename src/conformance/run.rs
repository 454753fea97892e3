//! Running a case: the oracle once, then any number of devices.

use super::{Case, Comparison, Tolerance, poison, with_gap};
use crate::device::{Device, NamedTensors};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{HasLayout, Layout};
use crate::operation::{Cost, NamedLayouts};
use crate::registry::{self, Prepared};
use crate::tensor::Tensor;

/// A case with its expected results.
pub struct Oracle<'a> {
    case: &'a Case,
    prepared: Box<dyn Prepared>,
    /// In f32, so that only the device's result is rounded to a narrower type.
    expected: NamedTensors,
}

/// What became of a case on a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Every output is within the tolerance, and nothing else was written.
    Pass,
    /// A wrong result or an error, in words.
    Fail(String),
    /// The device cannot run it, in words.
    Unsupported(String),
}

/// A case on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What became of it.
    pub status: Status,
    /// The worst of the outputs' comparisons.
    pub comparison: Comparison,
}

impl<'a> Oracle<'a> {
    /// Draws the inputs and runs the scalar oracle.
    ///
    /// # Errors
    /// A case that the operation refuses.
    pub fn new(case: &'a Case) -> Result<Oracle<'a>, Error> {
        let prepared = registry::find(case.op)?.prepare(case.inputs()?, &case.parameters)?;
        let wide = prepared
            .outputs()
            .iter()
            .map(|(name, layout)| Ok((name.clone(), Tensor::zeros(widened(case, layout)?))))
            .collect::<Result<NamedTensors, Error>>()?;
        let mut oracle = prepared.load(&Device::Reference, wide)?;
        oracle.run(1)?;
        let expected = oracle.outputs()?;
        Ok(Oracle { case, prepared, expected })
    }

    /// FLOPs and bytes of one run.
    pub fn cost(&self) -> Cost {
        self.prepared.cost()
    }

    /// The validated operation.
    pub fn prepared(&self) -> &dyn Prepared {
        &*self.prepared
    }

    /// Runs the case on a device, into poisoned outputs, and compares.
    pub fn check(&self, device: &Device) -> Outcome {
        match self.run(device) {
            Ok(outputs) => self.compare(&outputs),
            Err(error @ Error::Unsupported { .. }) => Outcome {
                status: Status::Unsupported(error.to_string()),
                comparison: Comparison::default(),
            },
            Err(error) => Outcome {
                status: Status::Fail(error.to_string()),
                comparison: Comparison::default(),
            },
        }
    }

    fn run(&self, device: &Device) -> Result<NamedTensors, Error> {
        let mut loaded =
            self.prepared.load(device, poisoned(self.case, self.prepared.outputs())?)?;
        // Twice: the second run starts from a workspace and outputs that are not fresh.
        loaded.run(1)?;
        loaded.run(1)?;
        loaded.outputs()
    }

    fn compare(&self, outputs: &NamedTensors) -> Outcome {
        let mut worst = Outcome { status: Status::Pass, comparison: Comparison::default() };
        for (name, expected) in &self.expected {
            let Some(output) = outputs.get(name) else {
                return Outcome { status: Status::Fail(format!("{name} is missing")), ..worst };
            };
            if let Some(position) = first_changed_gap(output) {
                let reason = format!("{name}: the gap at element {position} was overwritten");
                return Outcome { status: Status::Fail(reason), ..worst };
            }
            let tolerance = self.case.tolerance;
            let magnitude = match tolerance {
                Tolerance::Exact => Vec::new(),
                Tolerance::Rounded { .. } => self.prepared.magnitude(name),
            };
            let (got, want) = (output.view().to_f64(), expected.view().to_f64());
            let dtype = output.layout().dtype();
            let comparison = Comparison::new(tolerance, dtype, &got, &want, &magnitude);
            if !comparison.passes(tolerance) {
                let reason = format!("{name}: {}", describe(&comparison));
                return Outcome { status: Status::Fail(reason), comparison };
            }
            if comparison.worst_share >= worst.comparison.worst_share {
                worst.comparison = comparison;
            }
        }
        worst
    }
}

fn describe(comparison: &Comparison) -> String {
    let first = comparison.first_failure.map_or_else(String::new, |(index, got, want)| {
        format!(", first at element {index}: {got:e} instead of {want:e}")
    });
    format!(
        "{:.2} times the permitted error, nmse {:.2e}{first}",
        comparison.worst_share, comparison.nmse
    )
}

/// Exact results are compared in their own type, others in f32.
fn widened(case: &Case, layout: &Layout) -> Result<Layout, Error> {
    if case.tolerance == Tolerance::Exact || !layout.dtype().is_float() {
        return Ok(*layout);
    }
    Layout::contiguous(DType::F32, layout.shape())
}

fn poisoned(case: &Case, outputs: &NamedLayouts) -> Result<NamedTensors, Error> {
    outputs
        .iter()
        .map(|(name, layout)| {
            let mut tensor = Tensor::zeros(with_gap(layout, case.output_gap)?);
            poison(&mut tensor);
            Ok((name.clone(), tensor))
        })
        .collect()
}

/// The first element between rows that is no longer as [`poison`] left it.
fn first_changed_gap(tensor: &Tensor) -> Option<usize> {
    let layout = tensor.layout();
    let size = layout.dtype().size();
    let row_elements = layout.row_stride().max(1);
    let columns = layout.columns();
    tensor
        .view()
        .span_bytes()
        .chunks_exact(size)
        .enumerate()
        .filter(|(position, _)| position % row_elements >= columns)
        .find(|(_, element)| element.iter().any(|&byte| byte != 0xFF))
        .map(|(position, _)| position)
}
