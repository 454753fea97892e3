//! `gather_norm`: the features that a pruned block reads, normalised on the way.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

use super::NormScope;
use super::index_set::{check_ascending, index_values};
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
    /// Tensors of [`GatherNorm`]; `M` tokens, `d` features, `k` of them selected.
    pub struct GatherNormArgs {
        /// `[M, d]`.
        input x,
        /// `[k]`, strictly ascending and below `d`; an `IndexSet`'s.
        input indices: index,
        /// `[d]`: all features' weights; absent, nothing is normalised.
        optional_input norm_weight,
        /// `[M, k]`, f32, f16 or bf16.
        output out,
    }
}

/// `out[m, i] = n[m, indices[i]]` with `n = rms_norm(x)` or `n = x`.
///
/// `rms_norm(x)_j = w_j * x_j / sqrt(mean(x^2) + eps)`, in f32, rounded once; [`NormScope`] says over which features
/// the mean goes. Without a norm, and with an output of the input's type, bits are copied as they are.
///
/// On a GPU, where indices cannot be checked, one that is not below `d` gives 0.
///
/// Source: DISP-LLM (arXiv 2410.11988), section 3.2: what a block reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatherNorm {
    features: usize,
    selected: usize,
    dtype: DType,
    weight_dtype: DType,
    norm: Option<Norm>,
}

const X: &str = "one row of `d` features a token";
const INDICES: &str = "one index a selected feature";
const WEIGHT: &str = "one value a feature, selected or not, in the weights' type";
const OUT: &str = "one row of `k` selected features a token";
const NORM: &str = "it goes with a descriptor made `with_norm`";

impl GatherNorm {
    /// `selected` of `features` features, without a norm.
    ///
    /// # Errors
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1, [`Problem::Value`](crate::Problem::Value) if more
    /// are selected than there are, [`Problem::DType`](crate::Problem::DType) for an integer type.
    pub fn new(features: usize, selected: usize, dtype: DType) -> Result<GatherNorm, Error> {
        let check = Validator::new(GatherNorm::NAME);
        check.dimension("features", features, 0)?;
        check.subset("indices", selected, features)?;
        check.float("dtype", dtype)?;
        Ok(GatherNorm { features, selected, dtype, weight_dtype: dtype, norm: None })
    }

    /// Normalises before it selects; takes a `norm_weight`.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) unless `eps` is finite and not negative.
    pub fn with_norm(self, eps: f32, scope: NormScope) -> Result<GatherNorm, Error> {
        Ok(GatherNorm { norm: Some(Norm::new(Self::NAME, eps, scope)?), ..self })
    }

    /// Another type of `norm_weight` than the activations', which are then f32.
    ///
    /// # Errors
    /// [`Problem::DType`](crate::Problem::DType) for other pairs than
    /// [`MLP_DTYPES`](crate::ops::silu_mlp::MLP_DTYPES).
    pub fn with_weight_dtype(self, dtype: DType) -> Result<GatherNorm, Error> {
        Validator::new(Self::NAME).weight_dtype(self.dtype, dtype)?;
        Ok(GatherNorm { weight_dtype: dtype, ..self })
    }

    /// Features of a row of `x`.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Features of a row of `out`.
    pub fn selected(&self) -> usize {
        self.selected
    }
}

impl Operation for GatherNorm {
    const NAME: &'static str = "gather_norm";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str = "n[:, indices], n = x or rms_norm(x)";
    const PARAMETERS: &'static [ParameterInfo] = &[EPS, NORM_SCOPE, OUT_DTYPE];

    type Args<In, Out> = GatherNormArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let (x, indices) = (input(Self::NAME, inputs, "x")?, input(Self::NAME, inputs, "indices")?);
        let op = GatherNorm::new(x.columns(), indices.columns(), x.dtype())?;
        let weight = inputs.get("norm_weight");
        let norm = Norm::describe(Self::NAME, weight.is_some(), parameters)?;
        GatherNorm { norm, ..op }.with_weight_dtype(weight.map_or(x.dtype(), Layout::dtype))
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let x = input(Self::NAME, inputs, "x")?;
        let rows = Validator::new(Self::NAME).rows("x", &x, self.features, X)?;
        let dtype = out_dtype(Self::NAME, parameters)?.unwrap_or(self.dtype);
        let out = Layout::contiguous(dtype, &[rows, self.selected])?;
        Ok(NamedLayouts::from([("out".to_owned(), out)]))
    }

    fn validate(&self, args: &GatherNormArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let rows = check.rows("x", &args.x, self.features, X)?;
        check.tensor("x", &args.x, self.dtype, &[rows, self.features], X)?;
        check.tensor("indices", &args.indices, DType::U32, &[self.selected], INDICES)?;
        check.presence("norm_weight", args.norm_weight.is_some(), self.norm.is_some(), NORM)?;
        let features = [self.features];
        let weight = self.weight_dtype;
        check.optional_tensor("norm_weight", &args.norm_weight, weight, &features, WEIGHT)?;
        check.float("out", args.out.dtype())?;
        check.tensor("out", &args.out, args.out.dtype(), &[rows, self.selected], OUT)
    }

    fn validate_values(&self, args: &GatherNormArgs<TensorRef<'_>, Layout>) -> Result<(), Error> {
        check_ascending(Self::NAME, "indices", index_values(args.indices), self.features)
    }

    fn cost(&self, args: &GatherNormArgs<Layout, Layout>) -> Cost {
        let rows = args.x.shape()[0];
        let is_full = self.norm.is_some_and(|norm| norm.scope == NormScope::Full);
        let read = if is_full { self.features } else { self.selected };
        let written = rows * self.selected;
        let weights = if self.norm.is_some() { self.selected } else { 0 };
        Cost {
            // a square and a sum for what is read, two products for what is written
            flops: if self.norm.is_some() { (2 * rows * read + 2 * written) as u64 } else { 0 },
            bytes_read: (rows * read * self.dtype.size()
                + self.selected * DType::U32.size()
                + weights * self.weight_dtype.size()) as u64,
            bytes_written: (written * args.out.dtype().size()) as u64,
        }
    }

    fn workspace_bytes(&self, _args: &GatherNormArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: GatherNormArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::gather_norm(self, args)
    }

    fn magnitude(&self, args: &GatherNormArgs<TensorRef<'_>, Layout>, _name: &str) -> Vec<f64> {
        reference::magnitude(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: GatherNormArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.gather_norm(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: GatherNormArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_gather_norm(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: GatherNormArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.gather_norm(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &GatherNormArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
