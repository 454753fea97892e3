//! The operation in the registry.

#[cfg(feature = "cuda")]
use super::cuda;
use super::{FilterOrder, SampledMode, SampledValues, VerifySampled, VerifySampledArgs, reference};
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::early_exit::verification::{MAX_DRAFT, max_draft};
use crate::ops::silu_mlp::mlp::config::input;
use crate::ops::traffic::traffic;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

const fn parameter(
    name: &'static str,
    values: &'static str,
    default: &'static str,
    description: &'static str,
) -> ParameterInfo {
    ParameterInfo { name, values, default, description }
}

const MODE: ParameterInfo =
    parameter("mode", "match, one_hot, full or block", "", "How drafts are judged");
const VALUES: ParameterInfo =
    parameter("values", "logits or probabilities", "logits", "What the rows hold");
const FILTER: ParameterInfo =
    parameter("filter", "joint or sequential", "joint", "How top-k and top-p meet");
const SEED: ParameterInfo =
    parameter("seed", "a whole number below 2^64", "0", "Of sequences that `seeds` gives none");
const VALID_VOCAB: ParameterInfo =
    parameter("valid_vocab", "1 to V", "", "Ids from here on are masked; V if not given");

impl Operation for VerifySampled {
    const NAME: &'static str = "verify_sampled";
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str =
        "drafts accepted as if the target had sampled them, and one token more";
    const PARAMETERS: &'static [ParameterInfo] =
        &[MODE, VALUES, FILTER, MAX_DRAFT, SEED, VALID_VOCAB];

    type Args<In, Out> = VerifySampledArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let op = Self::NAME;
        let target = input(op, inputs, "target")?;
        let modes = [
            ("match", SampledMode::Match),
            ("one_hot", SampledMode::OneHot),
            ("full", SampledMode::Full),
            ("block", SampledMode::Block),
        ];
        let mode = parameters.choose(op, &MODE, &modes)?.ok_or_else(|| {
            Error::argument(op, MODE.name, Problem::Missing, MODE.values, "none", "")
        })?;
        let values =
            [("logits", SampledValues::Logits), ("probabilities", SampledValues::Probabilities)];
        let filters = [("joint", FilterOrder::Joint), ("sequential", FilterOrder::Sequential)];
        let max_draft = max_draft(op, parameters, &input(op, inputs, "draft")?)?;
        let described = VerifySampled::new(target.columns(), max_draft, target.dtype(), mode)?
            .with_values(parameters.choose(op, &VALUES, &values)?.unwrap_or_default())?
            .with_filter(parameters.choose(op, &FILTER, &filters)?.unwrap_or_default())
            .with_seed(parameters.parse(op, &SEED)?.unwrap_or(0));
        match parameters.parse(op, &VALID_VOCAB)? {
            Some(valid) => described.with_valid_vocab(valid),
            None => Ok(described),
        }
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let [draft, offsets] = ["draft", "offsets"].map(|name| input(Self::NAME, inputs, name));
        self.batch(&draft?, &offsets?)?.outputs()
    }

    fn validate(&self, args: &VerifySampledArgs<Layout, Layout>) -> Result<(), Error> {
        self.validate_layouts(args)
    }

    fn validate_values(
        &self,
        args: &VerifySampledArgs<TensorRef<'_>, Layout>,
    ) -> Result<(), Error> {
        self.check_values(args)
    }

    fn cost(&self, args: &VerifySampledArgs<Layout, Layout>) -> Cost {
        traffic(*args)
    }

    fn workspace_bytes(&self, args: &VerifySampledArgs<Layout, Layout>) -> usize {
        self.scratch(args.offsets.elements().saturating_sub(1)).bytes()
    }

    fn run_reference(
        &self,
        args: VerifySampledArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        self.validate(&args.layouts())?;
        self.validate_values(&args.inputs())?;
        reference::verify(self, args);
        Ok(())
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: VerifySampledArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.verify_sampled(self, args, workspace)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: VerifySampledArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_verify_sampled(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: VerifySampledArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.verify_sampled(stream, self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &VerifySampledArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
