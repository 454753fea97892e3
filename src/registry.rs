//! Every operation, by name: what the tool, the conformance cases and the README's tables are made from.

use crate::arguments::{ArgumentInfo, Arguments, Role};
use crate::device::{self, Device, Loaded, NamedTensors};
use crate::error::{Error, Problem};
use crate::layout::{HasLayout, Layout};
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::early_exit::{
    CommitCache, CompactRows, ExitGate, ExitHead, ExitHeadStates, MergeExitStates, ScatterRows,
    VerifyGreedy, VerifySampled, VerifyTree,
};
use crate::ops::feature_attention::{BiGru, FeatureAttention, SelectiveFeatureAttention};
use crate::ops::prune_gather::{
    CompactMask, CompactWeight, CoupledNeurons, GatherNorm, InvertIndices, MaskedGatedMlp,
    PrunedGatedMlp, PrunedLinear, ScatterAdd, ScatterNormGather, SelectTop, SparseGatedMlp,
    ZeroEntries,
};
use crate::ops::silu_mlp::{GatedMlp, SiluMlp, SiluMul};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{Tensor, TensorRef};

/// An operation, without its type.
#[derive(Clone, Copy)]
pub struct OperationInfo {
    /// The one name of the operation, everywhere.
    pub name: &'static str,
    /// Its family's folder.
    pub family: &'static str,
    /// One line: the equation.
    pub summary: &'static str,
    /// Its tensors.
    pub arguments: &'static [ArgumentInfo],
    /// Its parameters.
    pub parameters: &'static [ParameterInfo],
    prepare: Prepare,
}

type Prepare = fn(NamedTensors, &Parameters) -> Result<Box<dyn Prepared>, Error>;

impl std::fmt::Debug for OperationInfo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OperationInfo").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every operation of the crate, in the order of the documentation.
pub const OPERATIONS: &[OperationInfo] = &[
    info::<SiluMul>(),
    info::<GatedMlp>(),
    info::<SiluMlp>(),
    info::<PrunedLinear>(),
    info::<PrunedGatedMlp>(),
    info::<MaskedGatedMlp>(),
    info::<SparseGatedMlp>(),
    info::<GatherNorm>(),
    info::<ScatterAdd>(),
    info::<ScatterNormGather>(),
    info::<CompactWeight>(),
    info::<CompactMask>(),
    info::<InvertIndices>(),
    info::<SelectTop>(),
    info::<CoupledNeurons>(),
    info::<ZeroEntries>(),
    info::<ExitHead>(),
    info::<ExitHeadStates>(),
    info::<MergeExitStates>(),
    info::<VerifyGreedy>(),
    info::<VerifyTree>(),
    info::<VerifySampled>(),
    info::<ExitGate>(),
    info::<CompactRows>(),
    info::<ScatterRows>(),
    info::<CommitCache>(),
    info::<FeatureAttention>(),
    info::<BiGru>(),
    info::<SelectiveFeatureAttention>(),
];

/// The operation of this name.
///
/// # Errors
/// [`Problem::Value`], listing the names that exist.
pub fn find(name: &str) -> Result<&'static OperationInfo, Error> {
    OPERATIONS.iter().find(|info| info.name == name).ok_or_else(|| {
        let names: Vec<&str> = OPERATIONS.iter().map(|info| info.name).collect();
        let expected = format!("one of: {}", names.join(", "));
        Error::argument("siluette", "op", Problem::Value, expected, format!("`{name}`"), "")
    })
}

/// An operation with its inputs, validated.
pub trait Prepared: Send + Sync {
    /// Layouts of the outputs, without gaps; those that are updated in place lie as they came.
    fn outputs(&self) -> &NamedLayouts;

    /// Whether a run changes a tensor in place, so that another starts from something else.
    fn has_updates(&self) -> bool;

    /// FLOPs and bytes.
    fn cost(&self) -> Cost;

    /// As [`Operation::magnitude`], for these inputs.
    fn magnitude(&self, output: &str) -> Vec<f64>;

    /// Copies inputs and outputs to a device; the outputs may have other strides than
    /// [`Prepared::outputs`] says, and some may be left out where they are optional. What is updated in place starts
    /// with the contents that the operation was prepared with, whatever `outputs` holds.
    ///
    /// # Errors
    /// Those of the operation and of the device.
    fn load(&self, device: &Device, outputs: NamedTensors) -> Result<Box<dyn Loaded>, Error>;

    /// As [`Prepared::load`], with other tensors for some inputs: packed weights.
    ///
    /// # Errors
    /// Likewise.
    fn load_with(
        &self,
        device: &Device,
        inputs: NamedTensors,
        outputs: NamedTensors,
    ) -> Result<Box<dyn Loaded>, Error>;

    /// The inputs that are not updated.
    fn inputs(&self) -> &NamedTensors;

    /// As [`Operation::trim`].
    ///
    /// # Errors
    /// As [`Operation::trim`].
    fn trim(&self, outputs: &mut NamedTensors) -> Result<(), Error>;
}

impl OperationInfo {
    /// Finds the descriptor for these inputs and validates them.
    ///
    /// # Errors
    /// [`Error::Argument`] for unknown, missing or unfitting tensors and parameters.
    pub fn prepare(
        &self,
        inputs: NamedTensors,
        parameters: &Parameters,
    ) -> Result<Box<dyn Prepared>, Error> {
        self.check_names(&inputs)?;
        parameters.check_names(self.name, self.parameters)?;
        (self.prepare)(inputs, parameters)
    }

    /// Its tensors, of repeated ones the first: one line of a listing each, under
    /// [`pattern`](ArgumentInfo::pattern).
    pub fn listed_arguments(&self) -> impl Iterator<Item = &'static ArgumentInfo> {
        self.arguments.chunk_by(|one, next| one.pattern == next.pattern).map(|field| &field[0])
    }

    /// The tensors that a caller may bring, for an error.
    pub fn given_names(&self) -> String {
        let given = self.listed_arguments().filter(|info| info.role.is_given());
        given.map(|info| info.pattern).collect::<Vec<_>>().join(", ")
    }

    fn check_names(&self, inputs: &NamedTensors) -> Result<(), Error> {
        let known = || self.arguments.iter().filter(|info| info.role.is_given());
        let Some(name) = inputs.keys().find(|name| known().all(|info| info.name != **name)) else {
            return Ok(());
        };
        let expected = format!("one of: {}", self.given_names());
        Err(Error::argument(
            self.name,
            "tensor",
            Problem::Unexpected,
            expected,
            format!("`{name}`"),
            "",
        ))
    }
}

const fn info<O: Operation>() -> OperationInfo {
    OperationInfo {
        name: O::NAME,
        family: O::FAMILY,
        summary: O::SUMMARY,
        arguments: <O::Args<Layout, Layout> as Arguments<Layout, Layout>>::INFO,
        parameters: O::PARAMETERS,
        prepare: prepare::<O>,
    }
}

struct PreparedOperation<O> {
    op: O,
    inputs: NamedTensors,
    updates: NamedTensors,
    outputs: NamedLayouts,
}

fn prepare<O: Operation>(
    inputs: NamedTensors,
    parameters: &Parameters,
) -> Result<Box<dyn Prepared>, Error> {
    let layouts = device::layouts(&inputs);
    let op = O::describe(&layouts, parameters)?;
    let mut outputs = op.outputs(&layouts, parameters)?;
    let (updates, inputs): (NamedTensors, NamedTensors) =
        inputs.into_iter().partition(|(name, _)| is_update::<O>(name));
    outputs.extend(updates.iter().map(|(name, tensor)| (name.clone(), tensor.layout())));
    op.validate(&layout_arguments::<O>(&layouts, &outputs)?)?;
    let prepared = PreparedOperation { op, inputs, updates, outputs };
    op.validate_values(&prepared.values())?;
    Ok(Box::new(prepared))
}

fn is_update<O: Operation>(name: &str) -> bool {
    let infos = <O::Args<Layout, Layout> as Arguments<Layout, Layout>>::INFO;
    infos.iter().any(|info| info.role == Role::Update && info.name == name)
}

fn layout_arguments<O: Operation>(
    inputs: &NamedLayouts,
    outputs: &NamedLayouts,
) -> Result<O::Args<Layout, Layout>, Error> {
    O::Args::collect(
        O::NAME,
        |info| Ok(inputs.get(info.name).copied()),
        |info| Ok(outputs.get(info.name).copied()),
    )
}

impl<O: Operation> PreparedOperation<O> {
    fn layouts(&self) -> O::Args<Layout, Layout> {
        layout_arguments::<O>(&device::layouts(&self.inputs), &self.outputs)
            .expect("collected before, in `prepare`")
    }

    fn values(&self) -> O::Args<TensorRef<'_>, Layout> {
        O::Args::collect(
            O::NAME,
            |info| Ok(self.inputs.get(info.name).map(Tensor::view)),
            |info| Ok(self.outputs.get(info.name).copied()),
        )
        .expect("collected before, in `prepare`")
    }
}

impl<O: Operation> Prepared for PreparedOperation<O> {
    fn outputs(&self) -> &NamedLayouts {
        &self.outputs
    }

    fn has_updates(&self) -> bool {
        !self.updates.is_empty()
    }

    fn cost(&self) -> Cost {
        self.op.cost(&self.layouts())
    }

    fn magnitude(&self, output: &str) -> Vec<f64> {
        self.op.magnitude(&self.values(), output)
    }

    fn load(&self, device: &Device, outputs: NamedTensors) -> Result<Box<dyn Loaded>, Error> {
        self.load_with(device, NamedTensors::new(), outputs)
    }

    fn load_with(
        &self,
        device: &Device,
        inputs: NamedTensors,
        mut outputs: NamedTensors,
    ) -> Result<Box<dyn Loaded>, Error> {
        outputs.extend(self.updates.clone());
        let mut all = self.inputs.clone();
        all.extend(inputs);
        device.load(&self.op, all, outputs)
    }

    fn inputs(&self) -> &NamedTensors {
        &self.inputs
    }

    fn trim(&self, outputs: &mut NamedTensors) -> Result<(), Error> {
        self.op.trim(outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn silu_mul_inputs() -> NamedTensors {
        let layout = Layout::contiguous(DType::F32, &[2, 3]).unwrap();
        ["gate", "up"].map(|name| (name.to_owned(), Tensor::zeros(layout))).into()
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = OPERATIONS.iter().map(|info| info.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OPERATIONS.len());
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(find("silu").unwrap_err().to_string().contains("silu_mul, gated_mlp"));
        let info = find("silu_mul").unwrap();
        let mut inputs = silu_mul_inputs();
        assert!(info.prepare(inputs.clone(), &Parameters::new()).is_ok());
        let parameters = Parameters::new().with("eps", "1");
        assert!(info.prepare(inputs.clone(), &parameters).is_err());
        inputs.insert("gates".into(), inputs["gate"].clone());
        let error = info.prepare(inputs, &Parameters::new()).err().unwrap();
        assert_eq!(error.problem(), Some(Problem::Unexpected));
    }

    #[test]
    fn missing_tensors_are_named() {
        let mut inputs = silu_mul_inputs();
        inputs.remove("up");
        let error = find("silu_mul").unwrap().prepare(inputs, &Parameters::new()).err().unwrap();
        assert!(error.to_string().contains("silu_mul: up"), "{error}");
        assert_eq!(error.problem(), Some(Problem::Missing));
    }
}
