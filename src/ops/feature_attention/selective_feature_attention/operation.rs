//! [`SelectiveFeatureAttention`] as an [`Operation`].

use super::{
    Select, SelectiveFeatureAttention, SelectiveFeatureAttentionArgs, StackMode, reference,
};
use crate::arguments::MAX_REPEATED;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::error::Error;
use crate::layout::{HasLayout as _, Layout};
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::feature_attention::lengths;
use crate::ops::silu_mlp::mlp::config::{OUT_DTYPE, input, out_dtype};
use crate::ops::traffic::traffic;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

const STACK_MODE: ParameterInfo = ParameterInfo {
    name: "stack_mode",
    values: "output_chained or state_chained",
    default: "output_chained",
    description: "whether a branch reads the branch before it, or starts from its final states",
};

const SELECT: ParameterInfo = ParameterInfo {
    name: "select",
    values: "branch_softmax or global_sum",
    default: "branch_softmax",
    description: "over what the weights of the branches add up to 1",
};

impl Operation for SelectiveFeatureAttention {
    const NAME: &'static str = "selective_feature_attention";
    const FAMILY: &'static str = "feature_attention";
    const SUMMARY: &'static str =
        "(sum_i w_i o_i) Wb^T + bb, o_i = bigru_i(x Wa^T + ba), w = softmax(sigmoid(Wi z + bi))";
    const PARAMETERS: &'static [ParameterInfo] = &[STACK_MODE, SELECT, OUT_DTYPE];

    type Args<In, Out> = SelectiveFeatureAttentionArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let layout = |name| input(Self::NAME, inputs, name);
        let (x, reduce) = (layout("x")?, layout("reduce_weight")?);
        let rows = |layout: Layout| layout.shape().first().copied().unwrap_or(0);
        let squeezed = rows(layout("squeeze_weight")?);
        let branches = (0..MAX_REPEATED)
            .take_while(|branch| inputs.contains_key(&format!("select{branch}_weight")))
            .count();
        let stack_mode = parameters.choose(
            Self::NAME,
            &STACK_MODE,
            &[
                ("output_chained", StackMode::OutputChained),
                ("state_chained", StackMode::StateChained),
            ],
        )?;
        let select = parameters.choose(
            Self::NAME,
            &SELECT,
            &[("branch_softmax", Select::BranchSoftmax), ("global_sum", Select::GlobalSum)],
        )?;
        let (features, dtype) = (x.columns(), x.dtype());
        // A file without any selection is one that lacks the first.
        let branches = branches.max(1);
        let op = SelectiveFeatureAttention::new(features, rows(reduce), squeezed, branches, dtype)?;
        Ok(op
            .with_weight_dtype(reduce.dtype())?
            .with_stack_mode(stack_mode.unwrap_or_default())
            .with_select(select.unwrap_or_default()))
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let [batch, length] = self.extent(&input(Self::NAME, inputs, "x")?)?;
        let dtype = out_dtype(Self::NAME, parameters)?.unwrap_or(self.dtype);
        let out = Layout::contiguous(dtype, &[batch, length, self.features])?;
        Ok([("out".to_owned(), out)].into())
    }

    fn validate(&self, args: &SelectiveFeatureAttentionArgs<Layout, Layout>) -> Result<(), Error> {
        self.validate_layouts(args)
    }

    fn validate_values(
        &self,
        args: &SelectiveFeatureAttentionArgs<TensorRef<'_>, Layout>,
    ) -> Result<(), Error> {
        let [_, longest] = self.extent(&args.x.layout())?;
        lengths::validate_values(Self::NAME, &args.lengths, longest)
    }

    fn cost(&self, args: &SelectiveFeatureAttentionArgs<Layout, Layout>) -> Cost {
        let [features, d1, d2, branches] =
            [self.features, self.reduced, self.squeezed, self.branches].map(|n| n as u64);
        let texts = args.x.shape().first().copied().unwrap_or(0) as u64;
        let tokens = args.out.shape()[..2].iter().product::<usize>() as u64;
        let gru = 3 * d1 * (d1 + d1 / 2);
        let of_token = 2 * features * d1 + branches * gru;
        let of_text = d1 * d2 * (1 + branches);
        Cost { flops: 2 * (tokens * of_token + texts * of_text), ..traffic(*args) }
    }

    fn workspace_bytes(&self, args: &SelectiveFeatureAttentionArgs<Layout, Layout>) -> usize {
        match *args.x.shape() {
            [batch, length, _] => self.workspace_bytes(batch, length),
            _ => 0,
        }
    }

    fn run_reference(
        &self,
        args: SelectiveFeatureAttentionArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        self.validate(&args.layouts())?;
        self.validate_values(&args.inputs())?;
        reference::selective_feature_attention(self, args);
        Ok(())
    }

    fn magnitude(
        &self,
        args: &SelectiveFeatureAttentionArgs<TensorRef<'_>, Layout>,
        _name: &str,
    ) -> Vec<f64> {
        reference::magnitude(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: SelectiveFeatureAttentionArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.selective_feature_attention(self, args, workspace)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: SelectiveFeatureAttentionArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_selective_feature_attention(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: SelectiveFeatureAttentionArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.selective_feature_attention(stream, self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &SelectiveFeatureAttentionArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        super::cuda::plan(cuda, self, args)
    }
}
