//! `sparse_gated_mlp` as an operation: from tensors and parameters to the descriptor, validation, cost.

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    LISTED, NeuronLists, SELECTED_ONCE, Selection, SparseGatedMlp, SparseGatedMlpArgs, THRESHOLD,
    TRANSPOSED_DOWN, dense_tensors, reference,
};
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::silu_mlp::mlp::config::{self, First, MlpConfig};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

impl Operation for SparseGatedMlp {
    const NAME: &'static str = "sparse_gated_mlp";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str = "residual + (select(silu(n Wg^T)) * (n Wu^T)) Wd^T, \
         a token's neurons by threshold or by list, n = x or rms_norm(x)";
    const PARAMETERS: &'static [ParameterInfo] = &[
        THRESHOLD,
        TRANSPOSED_DOWN,
        config::EPS,
        config::ROUNDING,
        config::BATCH_INVARIANT,
        config::OUT_DTYPE,
    ];

    type Args<In, Out> = SparseGatedMlpArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let dense = MlpConfig::describe(Self::NAME, First::Gated, inputs, parameters)?;
        let threshold = parameters.parse::<f32>(Self::NAME, &THRESHOLD)?;
        let listed = inputs.contains_key("neurons") || inputs.contains_key("neuron_offsets");
        let (hidden, ffn, dtype) = (dense.hidden, dense.ffn, dense.activation_dtype);
        let op = match (threshold, listed) {
            (Some(threshold), false) => Self::by_threshold(hidden, ffn, dtype, threshold)?,
            (None, true) => Self::by_lists(hidden, ffn, dtype)?,
            (Some(_), true) => {
                let (name, problem) = (THRESHOLD.name, Problem::Unexpected);
                return Err(Error::argument(
                    Self::NAME,
                    name,
                    problem,
                    "none beside `neurons`",
                    "a number",
                    SELECTED_ONCE,
                ));
            }
            (None, false) => {
                let (name, problem) = (THRESHOLD.name, Problem::Missing);
                let expected = "a number, or the tensors `neurons` and `neuron_offsets`";
                return Err(Error::argument(
                    Self::NAME,
                    name,
                    problem,
                    expected,
                    "none",
                    SELECTED_ONCE,
                ));
            }
        };
        let transposed_down = parameters.parse(Self::NAME, &TRANSPOSED_DOWN)?.unwrap_or(false);
        Ok(SparseGatedMlp { config: dense, transposed_down, ..op })
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        self.config.outputs(inputs, parameters)
    }

    fn validate(&self, args: &SparseGatedMlpArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let dtype = self.config.weight_dtype;
        let (shape, meaning) = match self.transposed_down {
            true => (self.shape_of_down(), "transposed_down: a row of `hidden` weights a neuron"),
            false => (self.shape_of_down(), "out_features = hidden, in_features = ffn"),
        };
        check.tensor("down_weight", &args.down_weight, dtype, &shape, meaning)?;
        let mut dense = dense_tensors(*args);
        dense.down_weight = Layout::contiguous(dtype, &[self.hidden(), self.ffn()])?;
        self.config.validate(&dense)?;
        let listed = self.selection == Selection::Lists;
        check.presence("neurons", args.neurons.is_some(), listed, LISTED)?;
        check.presence("neuron_offsets", args.neuron_offsets.is_some(), listed, LISTED)?;
        let (Some(neurons), Some(offsets)) = (&args.neurons, &args.neuron_offsets) else {
            return Ok(());
        };
        let total = neurons.elements();
        check.dimension("neurons", total, 0)?;
        check.tensor(
            "neurons",
            neurons,
            DType::U32,
            &[total],
            "the tokens' lists in one vector",
        )?;
        let ends = [args.x.shape()[0] + 1];
        check.tensor("neuron_offsets", offsets, DType::U32, &ends, "one more than there are tokens")
    }

    fn validate_values(
        &self,
        args: &SparseGatedMlpArgs<TensorRef<'_>, Layout>,
    ) -> Result<(), Error> {
        match NeuronLists::new(args) {
            Some(lists) => lists.check(self.ffn()),
            None => Ok(()),
        }
    }

    /// What cannot be skipped: with a threshold, nothing of `up_weight` counts and none of a transposed `down_weight`, since
    /// values decide; with lists, the rows of one list after another, but each row once.
    fn cost(&self, args: &SparseGatedMlpArgs<Layout, Layout>) -> Cost {
        let bytes = |layout: &Layout| (layout.elements() * layout.dtype().size()) as u64;
        let rows = args.x.shape()[0];
        let listed = args.neurons.map_or(0, |neurons| neurons.elements());
        let row = (self.hidden() * self.config.weight_dtype.size()) as u64;
        let (gates, others) = match self.selection {
            Selection::Threshold(_) => (rows * self.ffn(), 0),
            Selection::Lists => (listed, listed),
        };
        let once = |neurons: usize| neurons.min(self.ffn()) as u64 * row;
        let down = if self.transposed_down { once(others) } else { bytes(&args.down_weight) };
        let optional = [args.neurons, args.neuron_offsets, args.norm_weight, args.residual];
        let small: u64 = optional.iter().flatten().map(bytes).sum();
        let products = if self.transposed_down { others } else { rows * self.ffn() };
        Cost {
            flops: 2 * (self.hidden() * (gates + others + products)) as u64,
            bytes_read: bytes(&args.x) + once(gates) + once(others) + down + small,
            bytes_written: bytes(&args.out),
        }
    }

    fn workspace_bytes(&self, args: &SparseGatedMlpArgs<Layout, Layout>) -> usize {
        SparseGatedMlp::workspace_bytes(self, args.x.shape().first().copied().unwrap_or(0))
    }

    fn run_reference(
        &self,
        args: SparseGatedMlpArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::sparse_gated_mlp(self, args)
    }

    fn magnitude(&self, args: &SparseGatedMlpArgs<TensorRef<'_>, Layout>, _name: &str) -> Vec<f64> {
        reference::magnitude(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: SparseGatedMlpArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.sparse_gated_mlp(self, args, workspace)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: SparseGatedMlpArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_sparse_gated_mlp(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: SparseGatedMlpArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.sparse_gated_mlp(stream, self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &SparseGatedMlpArgs<Layout, Layout>,
        aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args, aligned)
    }
}
