//! What the registry needs of `feature_attention`.

use super::{B1, B2, FeatureAttention, FeatureAttentionArgs, LOCAL_STATE, W1, W2, X, reference};
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::feature_attention::lengths;
use crate::ops::silu_mlp::mlp::config::{OUT_DTYPE, input, out_dtype};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

const TANH: ParameterInfo = ParameterInfo {
    name: "tanh",
    values: "true or false",
    default: "true",
    description: "whether the reduced features go through tanh",
};

impl Operation for FeatureAttention {
    const NAME: &'static str = "feature_attention";
    const FAMILY: &'static str = "feature_attention";
    const SUMMARY: &'static str = "x * sigmoid(W2 tanh(W1 mean(x) + b1) + b2)";
    const PARAMETERS: &'static [ParameterInfo] = &[TANH, OUT_DTYPE];

    type Args<In, Out> = FeatureAttentionArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let (x, w1) = (input(Self::NAME, inputs, "x")?, input(Self::NAME, inputs, "w1")?);
        let reduced = w1.shape().first().copied().unwrap_or(1);
        FeatureAttention::new(x.columns(), reduced, x.dtype())?
            .with_tanh(parameters.parse(Self::NAME, &TANH)?.unwrap_or(true))
            .with_weight_dtype(w1.dtype())
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let [batch, length] = self.texts(&input(Self::NAME, inputs, "x")?)?;
        let dtype = out_dtype(Self::NAME, parameters)?.unwrap_or(self.dtype);
        let out = Layout::contiguous(dtype, &[batch, length, self.features])?;
        Ok(NamedLayouts::from([("out".to_owned(), out)]))
    }

    fn validate(&self, args: &FeatureAttentionArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let [batch, length] = self.texts(&args.x)?;
        let (features, reduced, weight) = (self.features, self.reduced, self.weight_dtype);
        check.tensor("x", &args.x, self.dtype, &[batch, length, features], X)?;
        check.tensor("w1", &args.w1, weight, &[reduced, features], W1)?;
        check.tensor("w2", &args.w2, weight, &[features, reduced], W2)?;
        check.optional_tensor("b1", &args.b1, weight, &[reduced], B1)?;
        check.optional_tensor("b2", &args.b2, weight, &[features], B2)?;
        lengths::validate(&check, &args.lengths, batch)?;
        check.float("out", args.out.dtype())?;
        check.tensor("out", &args.out, args.out.dtype(), &[batch, length, features], X)
    }

    fn validate_values(
        &self,
        args: &FeatureAttentionArgs<TensorRef<'_>, Layout>,
    ) -> Result<(), Error> {
        lengths::validate_values(Self::NAME, &args.lengths, args.out.shape()[1])
    }

    fn cost(&self, args: &FeatureAttentionArgs<Layout, Layout>) -> Cost {
        let shape = args.x.shape();
        let elements = args.x.elements();
        let products = 2 * self.features * self.reduced;
        let biases = args.b1.map_or(0, |b1| b1.elements()) + args.b2.map_or(0, |b2| b2.elements());
        let lengths = args.lengths.map_or(0, |lengths| lengths.elements() * DType::I32.size());
        Cost {
            // a sum and a product for each element
            flops: (2 * elements + 2 * shape[0] * products) as u64,
            bytes_read: (elements * self.dtype.size()
                + (products + biases) * self.weight_dtype.size()
                + lengths) as u64,
            bytes_written: (elements * args.out.dtype().size()) as u64,
        }
    }

    /// For GPUs, where a text's sums exceed what every device offers a block or workgroup.
    fn workspace_bytes(&self, args: &FeatureAttentionArgs<Layout, Layout>) -> usize {
        let state = self.features + self.reduced;
        if state <= LOCAL_STATE {
            return 0;
        }
        args.x.shape()[0].saturating_mul(state).saturating_mul(size_of::<f32>())
    }

    fn run_reference(
        &self,
        args: FeatureAttentionArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::feature_attention(self, args)
    }

    fn magnitude(
        &self,
        args: &FeatureAttentionArgs<TensorRef<'_>, Layout>,
        _name: &str,
    ) -> Vec<f64> {
        reference::magnitude(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: FeatureAttentionArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.feature_attention(self, args, workspace)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: FeatureAttentionArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_feature_attention(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: FeatureAttentionArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.feature_attention(stream, self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &FeatureAttentionArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        super::cuda::plan(cuda, self, args)
    }
}
