//! `select_top`: the largest of many scores.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
mod wgpu;

pub(super) use reference::descending;

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
use crate::ops::prune_gather::selection::{Scratch, check_scores, flat_elements, input};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`SelectTop`]; `n` scores.
    pub struct SelectTopArgs {
        /// `[n]`, or `[R, C]` counted in row-major order; f32, f16 or bf16, no NaN.
        input scores,
        /// `[k]`: the positions of the largest scores, ascending.
        output indices: index,
    }
}

/// The positions of the `k` largest scores, ascending.
///
/// Of equal scores those with smaller positions come first; `-0` equals `+0`. A NaN is an error wherever values lie in
/// host memory. Kernels on a GPU cannot look beforehand: there a NaN counts as smaller than every number.
///
/// A radix selection: scores are read a fixed number of times and never sorted. `k = 0` is legal, as is `k = n`.
///
/// Source: DEAN (arXiv 2410.16672), section 3, the largest `int(p R C)` scores of a matrix; Alabi et al. 2012, "Fast
/// k-selection algorithms for graphics processing units".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SelectTop {
    elements: usize,
    k: usize,
    dtype: DType,
}

const K: ParameterInfo = ParameterInfo {
    name: "k",
    values: "a whole number, at most the number of scores",
    default: "",
    description: "How many scores to select",
};

const MEANING: &str = "the k positions";

impl SelectTop {
    /// The `k` largest of `elements` scores of type `dtype`.
    ///
    /// # Errors
    /// [`Problem::Size`] above 2^31 - 1 scores, [`Problem::Value`] for `k` above their number, [`Problem::DType`] for an
    /// integer type.
    pub fn new(elements: usize, k: usize, dtype: DType) -> Result<SelectTop, Error> {
        let check = Validator::new(SelectTop::NAME);
        check.dimension("elements", elements, 0)?;
        check.float("dtype", dtype)?;
        if k > elements {
            let expected = format!("at most {elements}, the number of scores");
            return Err(Error::argument(Self::NAME, "k", Problem::Value, expected, k, ""));
        }
        Ok(SelectTop { elements, k, dtype })
    }

    /// How many scores are selected.
    pub fn k(&self) -> usize {
        self.k
    }
}

impl Operation for SelectTop {
    const NAME: &'static str = "select_top";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str = "the positions of the k largest scores, ascending";
    const PARAMETERS: &'static [ParameterInfo] = &[K];

    type Args<In, Out> = SelectTopArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let scores = input(Self::NAME, inputs, "scores")?;
        let elements = flat_elements(Self::NAME, "scores", &scores)?;
        let k = parameters.parse(Self::NAME, &K)?.ok_or_else(|| {
            Error::argument(Self::NAME, "k", Problem::Missing, K.values, "none", "")
        })?;
        SelectTop::new(elements, k, scores.dtype())
    }

    fn outputs(
        &self,
        _inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let indices = Layout::contiguous(DType::U32, &[self.k])?;
        Ok(NamedLayouts::from([("indices".to_owned(), indices)]))
    }

    fn validate(&self, args: &SelectTopArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let elements = flat_elements(Self::NAME, "scores", &args.scores)?;
        if elements != self.elements {
            let expected = format!("{} elements", self.elements);
            let got = format!("{:?}", args.scores.shape());
            return Err(Error::argument(Self::NAME, "scores", Problem::Shape, expected, got, ""));
        }
        check.tensor("scores", &args.scores, self.dtype, args.scores.shape(), "")?;
        check.tensor("indices", &args.indices, DType::U32, &[self.k], MEANING)
    }

    fn validate_values(&self, args: &SelectTopArgs<TensorRef<'_>, Layout>) -> Result<(), Error> {
        check_scores(Self::NAME, "scores", args.scores)
    }

    fn cost(&self, args: &SelectTopArgs<Layout, Layout>) -> Cost {
        Cost {
            flops: 0,
            bytes_read: (args.scores.elements() * self.dtype.size()) as u64,
            bytes_written: (self.k * size_of::<u32>()) as u64,
        }
    }

    fn workspace_bytes(&self, _args: &SelectTopArgs<Layout, Layout>) -> usize {
        if self.k == 0 { 0 } else { Scratch::bytes(self.dtype, 1, self.elements, 0) }
    }

    fn run_reference(
        &self,
        args: SelectTopArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::select_top(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: SelectTopArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.select_top(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: SelectTopArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_select_top(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: SelectTopArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.select_top(stream, self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &SelectTopArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
