//! `coupled_neurons`: the weights that two tasks share and that general ability does not need.

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
use crate::device::NamedTensors;
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::prune_gather::selection::{
    Scratch, check_scores, flat_elements, input, trim_indices,
};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`CoupledNeurons`]: scores of one matrix's weights, as `|W| * sum |dL/dW|`.
    pub struct CoupledNeuronsArgs {
        /// `[n]` or `[R, C]`, f32, f16 or bf16, no NaN: scores on general data.
        input general,
        /// As `general`: scores on the first task.
        input first,
        /// As `general`: scores on the second task.
        input second,
        /// `[int(q n)]`: flat positions, ascending, then 2^32 - 1.
        output indices: index,
        /// `[1]`: how many there are.
        optional_output count: index,
    }
}

/// How two tasks' largest entries are brought together.
///
/// `G = Top_p(general)`, `T1 = Top_q(first)` and `T2 = Top_q(second)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeanMode {
    /// `(T1 \ G) ∩ (T2 \ G)`, as the paper has it.
    #[default]
    Intersect,
    /// What the released code computes; for reproducing its results only.
    ///
    /// It sorts `T1` and `T2` by descending score (ties by ascending position), marks in each list the places whose entry
    /// is outside `G`, and combines the two marks *place by place*, although a place means another weight in each list:
    /// the result is every `T1[r]` with `T1[r]` and `T2[r]` both outside `G`. With `G = {100}`, `T1 = {1, 2, 3, 4}` and
    /// `T2 = {5, 6, 7, 8}` that is `{1, 2, 3, 4}`, although the tasks share nothing.
    PositionalCompat,
}

impl DeanMode {
    const CHOICES: [(&'static str, DeanMode); 2] =
        [("intersect", DeanMode::Intersect), ("positional_compat", DeanMode::PositionalCompat)];
}

/// The entries of a matrix that matter to two tasks and not to general ability: those that DEAN zeroes.
///
/// `(Top_q(first) \ Top_p(general)) ∩ (Top_q(second) \ Top_p(general))`, where `Top_x` are the `int(x n)` largest of `n`
/// scores, as [`SelectTop`](super::SelectTop) chooses them. `indices` has room for `int(q n)`; `count` says how far it is
/// filled, on the device too, so that [`ZeroEntries`](super::ZeroEntries) can follow. A NaN is an error where values lie
/// in host memory; on a GPU it counts as smaller than every number.
///
/// Source: DEAN (arXiv 2410.16672), section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CoupledNeurons {
    elements: usize,
    general_k: usize,
    task_k: usize,
    mode: DeanMode,
    dtype: DType,
}

const P: ParameterInfo = ParameterInfo {
    name: "p",
    values: "a number from 0 to 1",
    default: "5e-7",
    description: "Share of the entries that general ability needs",
};
const Q: ParameterInfo = ParameterInfo {
    name: "q",
    values: "a number from 0 to 1",
    default: "5e-7",
    description: "Share of the entries that a task needs",
};
const MODE: ParameterInfo = ParameterInfo {
    name: "mode",
    values: "intersect or positional_compat",
    default: "intersect",
    description: "How the tasks are brought together; positional_compat reproduces the released code",
};
/// Both shares in the paper.
const DEFAULT_SHARE: f64 = 5e-7;

const MEANING: &str = "general, first and second have one shape and type";

impl CoupledNeurons {
    /// For `elements` scores of type `dtype`, with the shares `p` of general ability and `q` of each task.
    ///
    /// # Errors
    /// [`Problem::Size`] above 2^31 - 1 scores, [`Problem::Value`] for a share outside 0 to 1, [`Problem::DType`] for an
    /// integer type.
    pub fn new(elements: usize, p: f64, q: f64, dtype: DType) -> Result<CoupledNeurons, Error> {
        let check = Validator::new(CoupledNeurons::NAME);
        check.dimension("elements", elements, 0)?;
        check.float("dtype", dtype)?;
        for (name, share) in [("p", p), ("q", q)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::argument(Self::NAME, name, Problem::Value, P.values, share, ""));
            }
        }
        // Truncated, as Python's int does.
        let count = |share: f64| ((share * elements as f64) as usize).min(elements);
        let (general_k, task_k) = (count(p), count(q));
        Ok(CoupledNeurons { elements, general_k, task_k, mode: DeanMode::default(), dtype })
    }

    /// Brings the tasks together in another way.
    #[must_use]
    pub fn with_mode(self, mode: DeanMode) -> CoupledNeurons {
        CoupledNeurons { mode, ..self }
    }

    /// The most entries that there can be: `int(q n)`.
    pub fn capacity(&self) -> usize {
        self.task_k
    }

    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn is_positional(&self) -> bool {
        self.mode == DeanMode::PositionalCompat
    }

    /// Elements that have to be looked at: none if there is nothing to choose.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn relevant_elements(&self) -> usize {
        if self.capacity() == 0 { 0 } else { self.elements }
    }
}

impl Operation for CoupledNeurons {
    const NAME: &'static str = "coupled_neurons";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str =
        "(Top_q(first) \\ Top_p(general)) ∩ (Top_q(second) \\ Top_p(general))";
    const PARAMETERS: &'static [ParameterInfo] = &[P, Q, MODE];

    type Args<In, Out> = CoupledNeuronsArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let general = input(Self::NAME, inputs, "general")?;
        let elements = flat_elements(Self::NAME, "general", &general)?;
        let p = parameters.parse(Self::NAME, &P)?.unwrap_or(DEFAULT_SHARE);
        let q = parameters.parse(Self::NAME, &Q)?.unwrap_or(DEFAULT_SHARE);
        let mode = parameters.choose(Self::NAME, &MODE, &DeanMode::CHOICES)?.unwrap_or_default();
        Ok(CoupledNeurons::new(elements, p, q, general.dtype())?.with_mode(mode))
    }

    fn outputs(
        &self,
        _inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        Ok(NamedLayouts::from([
            ("indices".to_owned(), Layout::contiguous(DType::U32, &[self.capacity()])?),
            ("count".to_owned(), Layout::contiguous(DType::U32, &[1])?),
        ]))
    }

    fn validate(&self, args: &CoupledNeuronsArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let elements = flat_elements(Self::NAME, "general", &args.general)?;
        let shape = args.general.shape();
        if elements != self.elements {
            let (expected, got) = (format!("{} elements", self.elements), format!("{shape:?}"));
            return Err(Error::argument(Self::NAME, "general", Problem::Shape, expected, got, ""));
        }
        check.tensor("general", &args.general, self.dtype, shape, MEANING)?;
        check.tensor("first", &args.first, self.dtype, shape, MEANING)?;
        check.tensor("second", &args.second, self.dtype, shape, MEANING)?;
        let capacity = [self.capacity()];
        check.tensor("indices", &args.indices, DType::U32, &capacity, "int(q n) positions")?;
        check.optional_tensor("count", &args.count, DType::U32, &[1], "one count")
    }

    fn validate_values(
        &self,
        args: &CoupledNeuronsArgs<TensorRef<'_>, Layout>,
    ) -> Result<(), Error> {
        check_scores(Self::NAME, "general", args.general)?;
        check_scores(Self::NAME, "first", args.first)?;
        check_scores(Self::NAME, "second", args.second)
    }

    fn trim(&self, outputs: &mut NamedTensors) -> Result<(), Error> {
        trim_indices(outputs)
    }

    fn cost(&self, args: &CoupledNeuronsArgs<Layout, Layout>) -> Cost {
        Cost {
            flops: 0,
            bytes_read: (3 * args.general.elements() * self.dtype.size()) as u64,
            bytes_written: (self.capacity() * size_of::<u32>()) as u64,
        }
    }

    fn workspace_bytes(&self, _args: &CoupledNeuronsArgs<Layout, Layout>) -> usize {
        let entries = match self.mode {
            DeanMode::Intersect => 0,
            DeanMode::PositionalCompat => self.capacity(),
        };
        Scratch::bytes(self.dtype, 3, self.elements, entries)
    }

    fn run_reference(
        &self,
        args: CoupledNeuronsArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::coupled_neurons(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: CoupledNeuronsArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.coupled_neurons(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: CoupledNeuronsArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_coupled_neurons(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: CoupledNeuronsArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.coupled_neurons(stream, self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &CoupledNeuronsArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
