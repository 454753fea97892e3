//! `invert_indices`: from indices to the places of all features, and whether the indices are a set.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
mod wgpu;

use crate::arguments::arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::prune_gather::selection::input;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`InvertIndices`]; `n` features, `k` indices.
    pub struct InvertIndicesArgs {
        /// `[k]`, of any values.
        input indices: index,
        /// `[n]`: for each feature its position in `indices`, or -1; -1 everywhere if the indices are no set.
        output rank: integer,
        /// `[1]`: the first position that is out of range or not above the one before it, or -1 if the indices are a
        /// set.
        optional_output first_invalid: integer,
    }
}

/// The inverse of an index set, and whether it is one: what checks indices that lie on a device.
///
/// `rank[indices[i]] = i` if `indices` are strictly ascending and below `n`. Indices that are not give the inverse of
/// the empty set, with which [`ScatterAdd`](crate::ScatterAdd) adds nothing, and the position of the first mistake.
/// `CudaIndexSet` and `WgpuIndexSet` wait for that position and refuse such indices; a captured graph goes on without
/// waiting.
///
/// On the host, [`IndexSet::new`](crate::IndexSet::new) does the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvertIndices {
    features: usize,
    selected: usize,
}

const FEATURES: ParameterInfo = ParameterInfo {
    name: "features",
    values: "a whole number",
    default: "",
    description: "How many features there are to choose from",
};

const INDICES: &str = "one index for each selected feature";
const RANK: &str = "one place for each feature";
const FLAG: &str = "one position";

impl InvertIndices {
    /// `selected` indices of `features` features.
    ///
    /// # Errors
    /// [`Problem::Size`] above 2^31 - 1.
    pub fn new(features: usize, selected: usize) -> Result<InvertIndices, Error> {
        let check = Validator::new(InvertIndices::NAME);
        check.dimension("features", features, 0)?;
        check.dimension("selected", selected, 0)?;
        Ok(InvertIndices { features, selected })
    }

    /// Features to choose from.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Indices.
    pub fn selected(&self) -> usize {
        self.selected
    }
}

impl Operation for InvertIndices {
    const NAME: &'static str = "invert_indices";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str = "rank[indices[i]] = i, and whether indices are a set";
    const PARAMETERS: &'static [ParameterInfo] = &[FEATURES];

    type Args<In, Out> = InvertIndicesArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let indices = input(Self::NAME, inputs, "indices")?;
        let features = parameters.parse(Self::NAME, &FEATURES)?.ok_or_else(|| {
            Error::argument(Self::NAME, "features", Problem::Missing, FEATURES.values, "none", "")
        })?;
        InvertIndices::new(features, indices.elements())
    }

    fn outputs(
        &self,
        _inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        Ok(NamedLayouts::from([
            ("rank".to_owned(), Layout::contiguous(DType::I32, &[self.features])?),
            ("first_invalid".to_owned(), Layout::contiguous(DType::I32, &[1])?),
        ]))
    }

    fn validate(&self, args: &InvertIndicesArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        check.tensor("indices", &args.indices, DType::U32, &[self.selected], INDICES)?;
        check.tensor("rank", &args.rank, DType::I32, &[self.features], RANK)?;
        check.optional_tensor("first_invalid", &args.first_invalid, DType::I32, &[1], FLAG)
    }

    fn cost(&self, args: &InvertIndicesArgs<Layout, Layout>) -> Cost {
        Cost {
            flops: 0,
            bytes_read: 4 * self.selected as u64,
            bytes_written: 4 * (self.features + usize::from(args.first_invalid.is_some())) as u64,
        }
    }

    fn workspace_bytes(&self, _args: &InvertIndicesArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: InvertIndicesArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::invert_indices(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: InvertIndicesArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.invert_indices(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: InvertIndicesArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_invert_indices(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: InvertIndicesArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.invert_indices(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &InvertIndicesArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
