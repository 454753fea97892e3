//! `scatter_add`: what a pruned block writes, added to the residual stream.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

use super::index_set::{check_ascending, check_rank, index_values, rank_values};
use crate::arguments::arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::silu_mlp::mlp::config::{OUT_DTYPE, input, out_dtype};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`ScatterAdd`]; `M` tokens, `d` features, `k` of them written.
    pub struct ScatterAddArgs {
        /// `[M, d]`.
        input residual,
        /// `[M, k]`.
        input y,
        /// `[k]`, strictly ascending and below `d`; an `IndexSet`'s.
        input indices: index,
        /// `[d]`: each feature's place in `indices` or -1, the same `IndexSet`'s; absent, GPUs search.
        optional_input rank: integer,
        /// `[M, d]`, f32, f16 or bf16.
        output out,
    }
}

/// `out[m, indices[i]] = residual[m, indices[i]] + y[m, i]`, and the residual everywhere else.
///
/// In gather form, `out[j] = residual[j] + y[rank[j]]` where `rank[j]` is not -1: no two threads write the same
/// element, so that the result is deterministic. The sum is in f32, rounded once.
///
/// On a GPU, where values cannot be checked, a place that is not below `k` adds nothing; if indices are out of order,
/// some of them may be passed over.
///
/// Source: DISP-LLM (arXiv 2410.11988), section 3.2: what a block writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScatterAdd {
    features: usize,
    selected: usize,
    dtype: DType,
}

const RESIDUAL: &str = "one row of `d` features a token";
const Y: &str = "one row of `k` selected features a token";
const INDICES: &str = "one index a selected feature";
const RANK: &str = "one place a feature, selected or not";

impl ScatterAdd {
    /// `selected` of `features` features.
    ///
    /// # Errors
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1, [`Problem::Value`](crate::Problem::Value) if more
    /// are selected than there are, [`Problem::DType`](crate::Problem::DType) for an integer type.
    pub fn new(features: usize, selected: usize, dtype: DType) -> Result<ScatterAdd, Error> {
        let check = Validator::new(ScatterAdd::NAME);
        check.dimension("features", features, 0)?;
        check.subset("indices", selected, features)?;
        check.float("dtype", dtype)?;
        Ok(ScatterAdd { features, selected, dtype })
    }

    /// Features of a row of `residual`.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Features of a row of `y`.
    pub fn selected(&self) -> usize {
        self.selected
    }
}

impl Operation for ScatterAdd {
    const NAME: &'static str = "scatter_add";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str = "residual, with y added to its columns indices";
    const PARAMETERS: &'static [ParameterInfo] = &[OUT_DTYPE];

    type Args<In, Out> = ScatterAddArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, _parameters: &Parameters) -> Result<Self, Error> {
        let residual = input(Self::NAME, inputs, "residual")?;
        let indices = input(Self::NAME, inputs, "indices")?;
        ScatterAdd::new(residual.columns(), indices.columns(), residual.dtype())
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let residual = input(Self::NAME, inputs, "residual")?;
        let check = Validator::new(Self::NAME);
        let rows = check.rows("residual", &residual, self.features, RESIDUAL)?;
        let dtype = out_dtype(Self::NAME, parameters)?.unwrap_or(self.dtype);
        let out = Layout::contiguous(dtype, &[rows, self.features])?;
        Ok(NamedLayouts::from([("out".to_owned(), out)]))
    }

    fn validate(&self, args: &ScatterAddArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let rows = check.rows("residual", &args.residual, self.features, RESIDUAL)?;
        let wide = [rows, self.features];
        check.tensor("residual", &args.residual, self.dtype, &wide, RESIDUAL)?;
        check.tensor("y", &args.y, self.dtype, &[rows, self.selected], Y)?;
        check.tensor("indices", &args.indices, DType::U32, &[self.selected], INDICES)?;
        check.optional_tensor("rank", &args.rank, DType::I32, &[self.features], RANK)?;
        check.float("out", args.out.dtype())?;
        check.tensor("out", &args.out, args.out.dtype(), &wide, RESIDUAL)
    }

    fn validate_values(&self, args: &ScatterAddArgs<TensorRef<'_>, Layout>) -> Result<(), Error> {
        let indices = index_values(args.indices);
        check_ascending(Self::NAME, "indices", indices, self.features)?;
        match args.rank {
            Some(rank) => check_rank(Self::NAME, "rank", indices, rank_values(rank)),
            None => Ok(()),
        }
    }

    fn cost(&self, args: &ScatterAddArgs<Layout, Layout>) -> Cost {
        let rows = args.residual.shape()[0];
        let places = if args.rank.is_some() { self.features } else { self.selected };
        Cost {
            flops: (rows * self.selected) as u64,
            bytes_read: (rows * (self.features + self.selected) * self.dtype.size()
                + places * DType::U32.size()) as u64,
            bytes_written: (rows * self.features * args.out.dtype().size()) as u64,
        }
    }

    fn workspace_bytes(&self, _args: &ScatterAddArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: ScatterAddArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::scatter_add(self, args)
    }

    fn magnitude(&self, args: &ScatterAddArgs<TensorRef<'_>, Layout>, _name: &str) -> Vec<f64> {
        reference::magnitude(args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: ScatterAddArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.scatter_add(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: ScatterAddArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_scatter_add(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: ScatterAddArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.scatter_add(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &ScatterAddArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
