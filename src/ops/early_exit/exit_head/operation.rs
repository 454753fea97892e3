//! The heads as operations of the registry.

#[cfg(feature = "cuda")]
use super::cuda;
use super::{ExitHead, ExitHeadArgs, ExitHeadStates, ExitHeadStatesArgs, Head, reference, sealed};
use super::{Results, States};
use crate::arguments::Arguments as _;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{HasLayout as _, Layout};
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::early_exit::config::{HeadConfig, LOGITS, PARAMETERS};
use crate::ops::early_exit::{merge_exit_states, state};
use crate::ops::silu_mlp::mlp::config::input;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

/// Rows of the outputs, and the layout of `logits` where they are asked for.
fn outputs(
    config: &HeadConfig,
    inputs: &NamedLayouts,
    parameters: &Parameters,
) -> Result<(usize, NamedLayouts), Error> {
    let hidden = input(config.op, inputs, "hidden")?;
    let rows = config.output_rows(&hidden, inputs.get("rows"))?;
    let mut outputs = NamedLayouts::new();
    if parameters.parse(config.op, &LOGITS)?.unwrap_or(false) {
        let logits = Layout::contiguous(DType::F32, &[rows, config.vocabulary])?;
        outputs.insert("logits".to_owned(), logits);
    }
    Ok((rows, outputs))
}

impl Operation for ExitHead {
    const NAME: &'static str = <Results as sealed::Kind>::NAME;
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str =
        "token, margin, log-sum-exp, entropy, best and sampled tokens of softcap(n W^T + b)";
    const PARAMETERS: &'static [ParameterInfo] = PARAMETERS;

    type Args<In, Out> = ExitHeadArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        HeadConfig::describe(Self::NAME, inputs, parameters).map(Head::from_config)
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let (rows, mut outputs) = outputs(&self.config, inputs, parameters)?;
        let results = merge_exit_states::output_layouts(rows, self.config.top_k)?;
        outputs.extend(results.into_iter().filter(|(name, _)| match name.as_str() {
            "sampled_token" => inputs.contains_key("positions"),
            "gathered_logit" => inputs.contains_key("gather_tokens"),
            _ => true,
        }));
        Ok(outputs)
    }

    fn validate(&self, args: &ExitHeadArgs<Layout, Layout>) -> Result<(), Error> {
        self.config.validate_results_form(args).map(drop)
    }

    fn cost(&self, args: &ExitHeadArgs<Layout, Layout>) -> Cost {
        let mut written = 0;
        (*args).visit(
            |_, _| {},
            |info, layout| {
                if info.name != "logits" {
                    written += (layout.elements() * layout.dtype().size()) as u64;
                }
            },
        );
        let unused = args.hidden;
        self.config.cost(&args.states(unused, unused, args.logits), written)
    }

    fn workspace_bytes(&self, args: &ExitHeadArgs<Layout, Layout>) -> usize {
        let rows = self.config.output_rows(&args.hidden, args.rows.as_ref()).unwrap_or(0);
        self.config.states_bytes(rows).iter().sum::<usize>() + self.config.prepared_bytes(rows)
    }

    fn run_reference(&self, args: ExitHeadArgs<TensorRef<'_>, TensorMut<'_>>) -> Result<(), Error> {
        self.config.validate_results(&args.layouts())?;
        reference::head(&self.config, args);
        Ok(())
    }

    fn magnitude(&self, args: &ExitHeadArgs<TensorRef<'_>, Layout>, name: &str) -> Vec<f64> {
        let unused = args.hidden.layout();
        reference::magnitude(&self.config, &args.states(unused, unused, args.logits), name)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: ExitHeadArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.exit_head(self, args, workspace)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: ExitHeadArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_exit_head(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: ExitHeadArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.exit_head(stream, self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &ExitHeadArgs<Layout, Layout>,
        aligned: bool,
    ) -> Result<CudaPlan, Error> {
        self.config.validate_results(args)?;
        let unused = args.hidden;
        let args = args.states(unused, unused, args.logits);
        cuda::plan(cuda, &self.config, &args, aligned, true)
    }
}

impl Operation for ExitHeadStates {
    const NAME: &'static str = <States as sealed::Kind>::NAME;
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str = "exit_head of a part of the vocabulary, as mergeable states";
    const PARAMETERS: &'static [ParameterInfo] = PARAMETERS;

    type Args<In, Out> = ExitHeadStatesArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        HeadConfig::describe(Self::NAME, inputs, parameters).map(Head::from_config)
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let (rows, mut outputs) = outputs(&self.config, inputs, parameters)?;
        let [values, tokens] = state::layouts(self.tiles(), rows, self.config.top_k)?;
        outputs.insert("state_values".to_owned(), values);
        outputs.insert("state_tokens".to_owned(), tokens);
        Ok(outputs)
    }

    fn validate(&self, args: &ExitHeadStatesArgs<Layout, Layout>) -> Result<(), Error> {
        self.config.validate_states_form(args).map(drop)
    }

    fn cost(&self, args: &ExitHeadStatesArgs<Layout, Layout>) -> Cost {
        let states = args.state_values.elements() + args.state_tokens.elements();
        self.config.cost(args, (states * size_of::<f32>()) as u64)
    }

    fn workspace_bytes(&self, args: &ExitHeadStatesArgs<Layout, Layout>) -> usize {
        let rows = self.config.output_rows(&args.hidden, args.rows.as_ref()).unwrap_or(0);
        self.config.prepared_bytes(rows)
    }

    fn run_reference(
        &self,
        args: ExitHeadStatesArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        self.config.validate_states(&args.layouts())?;
        reference::states(&self.config, args);
        Ok(())
    }

    fn magnitude(&self, args: &ExitHeadStatesArgs<TensorRef<'_>, Layout>, name: &str) -> Vec<f64> {
        reference::magnitude(&self.config, args, name)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: ExitHeadStatesArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.exit_head_states(self, args, workspace)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: ExitHeadStatesArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_exit_head_states(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: ExitHeadStatesArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.exit_head_states(stream, self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &ExitHeadStatesArgs<Layout, Layout>,
        aligned: bool,
    ) -> Result<CudaPlan, Error> {
        self.config.validate_states(args)?;
        cuda::plan(cuda, &self.config, args, aligned, false)
    }
}
