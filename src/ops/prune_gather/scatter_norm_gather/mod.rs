//! `scatter_norm_gather`: from one pruned block to the next in one launch.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

use super::NormScope;
use super::index_set::{check_ascending, check_rank, index_values, rank_values};
use super::norm::Norm;
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
use crate::ops::silu_mlp::mlp::config::{EPS, NORM_SCOPE, OUT_DTYPE, input, out_dtype};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`ScatterNormGather`]; `M` tokens, `d` features, of which one block writes `k` and the next
    /// reads `k'`.
    pub struct ScatterNormGatherArgs {
        /// `[M, d]`.
        input residual,
        /// `[M, k]`: what the block wrote.
        input y,
        /// `[k]`, strictly ascending and below `d`; an `IndexSet`'s.
        input out_indices: index,
        /// `[d]`: all features' weights.
        input norm_weight,
        /// `[k']`, strictly ascending and below `d`; an `IndexSet`'s.
        input in_indices: index,
        /// `[d]`: each feature's place in `out_indices` or -1, the same `IndexSet`'s; absent, GPUs search.
        optional_input out_rank: integer,
        /// `[M, d]`, of the activations' type or f32.
        output residual_out,
        /// `[M, k']`, f32, f16 or bf16: what the next block reads.
        output gathered,
    }
}

/// `residual_out = residual + scatter(y)` and `gathered = rms_norm(residual_out)[:, in_indices]`, in one launch.
///
/// [`ScatterAdd`](super::ScatterAdd), then [`GatherNorm`](super::GatherNorm) with a norm, to the bit: the norm is of the
/// sum rounded to the activations' type, which is what a norm of its own would read. It saves a launch and a pass over
/// the residual stream.
///
/// On a GPU, where values cannot be checked, places and indices out of range add nothing and give 0.
///
/// Source: DISP-LLM (arXiv 2410.11988), section 3.2: what lies between two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScatterNormGather {
    features: usize,
    written: usize,
    read: usize,
    dtype: DType,
    weight_dtype: DType,
    norm: Norm,
}

const RESIDUAL: &str = "one row of `d` features a token";
const Y: &str = "one row of `k` written features a token";
const GATHERED: &str = "one row of `k'` read features a token";
const INDICES: &str = "one index a selected feature";
const RANK: &str = "one place a feature, selected or not";
const WEIGHT: &str = "one value a feature, selected or not, in the weights' type";

impl ScatterNormGather {
    /// Of `features` features, one block writes `written` and the next reads `read`; the norm's epsilon is 1e-5.
    ///
    /// # Errors
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1, [`Problem::Value`](crate::Problem::Value) without features or if more are selected than there are,
    /// [`Problem::DType`](crate::Problem::DType) for an integer type.
    pub fn new(
        features: usize,
        written: usize,
        read: usize,
        dtype: DType,
    ) -> Result<ScatterNormGather, Error> {
        let check = Validator::new(ScatterNormGather::NAME);
        check.dimension("features", features, 1)?;
        check.subset("out_indices", written, features)?;
        check.subset("in_indices", read, features)?;
        check.float("dtype", dtype)?;
        let norm = Norm::new(ScatterNormGather::NAME, 1e-5, NormScope::Full)?;
        Ok(ScatterNormGather { features, written, read, dtype, weight_dtype: dtype, norm })
    }

    /// Another epsilon, and the features that the norm's mean is over.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) unless `eps` is finite and not negative.
    pub fn with_norm(self, eps: f32, scope: NormScope) -> Result<ScatterNormGather, Error> {
        Ok(ScatterNormGather { norm: Norm::new(Self::NAME, eps, scope)?, ..self })
    }

    /// Another type of `norm_weight` than the activations', which are then f32.
    ///
    /// # Errors
    /// [`Problem::DType`](crate::Problem::DType) for other pairs than [`MLP_DTYPES`](crate::ops::silu_mlp::MLP_DTYPES).
    pub fn with_weight_dtype(self, dtype: DType) -> Result<ScatterNormGather, Error> {
        Validator::new(Self::NAME).weight_dtype(self.dtype, dtype)?;
        Ok(ScatterNormGather { weight_dtype: dtype, ..self })
    }

    /// Features of a row of `residual`.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Features of a row of `y`.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Features of a row of `gathered`.
    pub fn read(&self) -> usize {
        self.read
    }
}

impl Operation for ScatterNormGather {
    const NAME: &'static str = "scatter_norm_gather";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str =
        "r = residual, with y added to its columns out_indices; rms_norm(r)[:, in_indices]";
    const PARAMETERS: &'static [ParameterInfo] = &[EPS, NORM_SCOPE, OUT_DTYPE];

    type Args<In, Out> = ScatterNormGatherArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let of = |name| input(Self::NAME, inputs, name);
        let (residual, weight) = (of("residual")?, of("norm_weight")?);
        let (written, read) = (of("out_indices")?.columns(), of("in_indices")?.columns());
        let op = ScatterNormGather::new(residual.columns(), written, read, residual.dtype())?;
        let norm = Norm::describe(Self::NAME, true, parameters)?.unwrap_or(op.norm);
        ScatterNormGather { norm, ..op }.with_weight_dtype(weight.dtype())
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
        let residual_out = Layout::contiguous(self.dtype, &[rows, self.features])?;
        let gathered = Layout::contiguous(dtype, &[rows, self.read])?;
        Ok(NamedLayouts::from([
            ("residual_out".to_owned(), residual_out),
            ("gathered".to_owned(), gathered),
        ]))
    }

    fn validate(&self, args: &ScatterNormGatherArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let (features, dtype) = (self.features, self.dtype);
        let rows = check.rows("residual", &args.residual, features, RESIDUAL)?;
        let wide = [rows, features];
        check.tensor("residual", &args.residual, dtype, &wide, RESIDUAL)?;
        check.tensor("y", &args.y, dtype, &[rows, self.written], Y)?;
        check.tensor("out_indices", &args.out_indices, DType::U32, &[self.written], INDICES)?;
        check.tensor("norm_weight", &args.norm_weight, self.weight_dtype, &[features], WEIGHT)?;
        check.tensor("in_indices", &args.in_indices, DType::U32, &[self.read], INDICES)?;
        check.optional_tensor("out_rank", &args.out_rank, DType::I32, &[features], RANK)?;
        // Anything narrower would not hold what the norm is of.
        let stored = args.residual_out.dtype();
        let stored = if stored == DType::F32 { stored } else { dtype };
        check.tensor("residual_out", &args.residual_out, stored, &wide, RESIDUAL)?;
        check.float("gathered", args.gathered.dtype())?;
        let narrow = [rows, self.read];
        check.tensor("gathered", &args.gathered, args.gathered.dtype(), &narrow, GATHERED)
    }

    fn validate_values(
        &self,
        args: &ScatterNormGatherArgs<TensorRef<'_>, Layout>,
    ) -> Result<(), Error> {
        let out_indices = index_values(args.out_indices);
        check_ascending(Self::NAME, "out_indices", out_indices, self.features)?;
        check_ascending(Self::NAME, "in_indices", index_values(args.in_indices), self.features)?;
        match args.out_rank {
            Some(rank) => check_rank(Self::NAME, "out_rank", out_indices, rank_values(rank)),
            None => Ok(()),
        }
    }

    fn cost(&self, args: &ScatterNormGatherArgs<Layout, Layout>) -> Cost {
        let rows = args.residual.shape()[0];
        let places = if args.out_rank.is_some() { self.features } else { self.written };
        Cost {
            // a sum, a square and its sum, two products
            flops: (rows * (self.written + 2 * self.features + 2 * self.read)) as u64,
            bytes_read: (rows * (self.features + self.written) * self.dtype.size()
                + self.read * self.weight_dtype.size()
                + (places + self.read) * DType::U32.size()) as u64,
            bytes_written: (rows * self.features * args.residual_out.dtype().size()
                + rows * self.read * args.gathered.dtype().size())
                as u64,
        }
    }

    fn workspace_bytes(&self, _args: &ScatterNormGatherArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: ScatterNormGatherArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::scatter_norm_gather(self, args)
    }

    fn magnitude(
        &self,
        args: &ScatterNormGatherArgs<TensorRef<'_>, Layout>,
        name: &str,
    ) -> Vec<f64> {
        reference::magnitude(self, args, name)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: ScatterNormGatherArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.scatter_norm_gather(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: ScatterNormGatherArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_scatter_norm_gather(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: ScatterNormGatherArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.scatter_norm_gather(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &ScatterNormGatherArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
