//! Running a case: the oracle once, then any number of devices.

use super::{Case, Comparison, Tolerance, poison, tolerance_for, with_gap};
use crate::backend::cpu::PackedWeight;
use crate::device::{Device, NamedTensors};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::{HasLayout, Layout};
use crate::operation::{Cost, NamedLayouts};
use crate::parameters::Parameters;
use crate::registry::{self, OperationInfo, Prepared};
use crate::tensor::Tensor;

/// An operation on its inputs, with the expected results.
pub struct Oracle {
    prepared: Box<dyn Prepared>,
    tolerance: Tolerance,
    output_gap: usize,
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
    /// The worst of the outputs' comparisons; `None` if there was no result to compare.
    pub comparison: Option<Comparison>,
}

impl Oracle {
    /// Draws the inputs of a case and runs the scalar oracle.
    ///
    /// # Errors
    /// A case that the operation refuses.
    pub fn new(case: &Case) -> Result<Oracle, Error> {
        let prepared = registry::find(case.op)?.prepare(case.inputs()?, &case.parameters)?;
        let expected = expect(&*prepared, case.tolerance)?;
        Ok(Oracle { prepared, tolerance: case.tolerance, output_gap: case.output_gap, expected })
    }

    /// The scalar oracle on inputs from elsewhere, with the tolerance of the case list.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn for_inputs(
        info: &OperationInfo,
        inputs: NamedTensors,
        parameters: &Parameters,
    ) -> Result<Oracle, Error> {
        let layouts = inputs.iter().map(|(name, tensor)| (name.clone(), tensor.layout())).collect();
        let prepared = info.prepare(inputs, parameters)?;
        let tolerance = tolerance_for(info.name, &layouts, prepared.outputs())?;
        let expected = expect(&*prepared, tolerance)?;
        Ok(Oracle { prepared, tolerance, output_gap: 0, expected })
    }

    /// Expects other results than the scalar oracle's, so that the oracle itself can be judged.
    ///
    /// # Errors
    /// An output that the operation does not have, or has in another shape.
    pub fn expecting(mut self, expected: NamedTensors) -> Result<Oracle, Error> {
        let shapes = |tensors: &NamedTensors| -> Vec<(String, Vec<usize>)> {
            let shape = |tensor: &Tensor| tensor.layout().shape().to_vec();
            tensors.iter().map(|(name, tensor)| (name.clone(), shape(tensor))).collect()
        };
        let (wanted, got) = (shapes(&self.expected), shapes(&expected));
        if wanted != got {
            let (wanted, got) = (format!("{wanted:?}"), format!("{got:?}"));
            return Err(Error::argument("verify", "expected", Problem::Shape, wanted, got, ""));
        }
        self.expected = expected;
        Ok(self)
    }

    /// How exact results must be.
    pub fn tolerance(&self) -> Tolerance {
        self.tolerance
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
        self.outcome(self.run(device, NamedTensors::new()))
    }

    fn outcome(&self, outputs: Result<NamedTensors, Error>) -> Outcome {
        match outputs {
            Ok(outputs) => self.compare(&outputs),
            Err(error @ Error::Unsupported { .. }) => {
                Outcome { status: Status::Unsupported(error.to_string()), comparison: None }
            }
            Err(error) => Outcome { status: Status::Fail(error.to_string()), comparison: None },
        }
    }

    /// As [`Oracle::check`], with packed weights.
    pub fn check_packed(&self, device: &Device) -> Outcome {
        let packed = packed_weights(self.prepared.inputs());
        self.outcome(packed.and_then(|packed| self.run(device, packed)))
    }

    fn run(&self, device: &Device, inputs: NamedTensors) -> Result<NamedTensors, Error> {
        let outputs = poisoned(self.output_gap, self.prepared.outputs())?;
        let mut loaded = self.prepared.load_with(device, inputs, outputs)?;
        for _ in 0..RUNS {
            loaded.run(1)?;
        }
        loaded.outputs()
    }

    fn compare(&self, outputs: &NamedTensors) -> Outcome {
        let mut worst: Option<Comparison> = None;
        for (name, expected) in &self.expected {
            let fail = |reason: String, comparison| Outcome {
                status: Status::Fail(format!("{name}: {reason}")),
                comparison,
            };
            let Some(output) = outputs.get(name) else {
                return fail("it is missing".into(), worst);
            };
            if let Some(position) = first_changed_gap(output) {
                return fail(format!("the gap at element {position} was overwritten"), worst);
            }
            let comparison = self.compare_output(name, output, expected);
            if !comparison.passes(self.tolerance) {
                return fail(describe(&comparison), Some(comparison));
            }
            if worst.is_none_or(|worst| comparison.worst_share >= worst.worst_share) {
                worst = Some(comparison);
            }
        }
        Outcome { status: Status::Pass, comparison: worst }
    }

    fn compare_output(&self, name: &str, output: &Tensor, expected: &Tensor) -> Comparison {
        let dtype = output.layout().dtype();
        let tolerance = if dtype.is_float() { self.tolerance } else { Tolerance::Exact };
        let magnitude = match tolerance {
            Tolerance::Exact => Vec::new(),
            Tolerance::Rounded { .. } => self.prepared.magnitude(name),
        };
        let (got, want) = (output.view().to_f64(), expected.view().to_f64());
        Comparison::new(tolerance, dtype, &got, &want, &magnitude)
    }
}

/// Those of the inputs that [`PackedWeight`] is for, packed.
///
/// # Errors
/// Those of [`PackedWeight::new`].
pub fn packed_weights(inputs: &NamedTensors) -> Result<NamedTensors, Error> {
    let names = ["gate_weight", "up_weight", "down_weight", "weight", "head_weight"];
    let weights = names.iter().filter_map(|&name| Some((name, inputs.get(name)?)));
    let packed = weights.map(|(name, weight)| {
        let packed = PackedWeight::new(weight.view())?;
        Ok((name.to_owned(), Tensor::copy_of(packed.view())))
    });
    packed.collect()
}

/// The second run starts from a workspace and outputs that are not fresh.
const RUNS: usize = 2;

/// The scalar oracle's results, after as many runs: what is updated in place differs from run to run.
fn expect(prepared: &dyn Prepared, tolerance: Tolerance) -> Result<NamedTensors, Error> {
    let wide = prepared
        .outputs()
        .iter()
        .map(|(name, layout)| Ok((name.clone(), Tensor::zeros(widened(tolerance, layout)?))))
        .collect::<Result<NamedTensors, Error>>()?;
    let mut oracle = prepared.load(&Device::Reference, wide)?;
    for _ in 0..if prepared.has_updates() { RUNS } else { 1 } {
        oracle.run(1)?;
    }
    oracle.outputs()
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
fn widened(tolerance: Tolerance, layout: &Layout) -> Result<Layout, Error> {
    if tolerance == Tolerance::Exact || !layout.dtype().is_float() {
        return Ok(*layout);
    }
    Layout::contiguous(DType::F32, layout.shape())
}

fn poisoned(gap: usize, outputs: &NamedLayouts) -> Result<NamedTensors, Error> {
    outputs
        .iter()
        .map(|(name, layout)| {
            let mut tensor = Tensor::zeros(with_gap(layout, gap)?);
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
