//! [`BiGru`] as an [`Operation`].

use super::{BiGru, BiGruArgs, X, reference};
use crate::arguments::{Arguments as _, MAX_REPEATED};
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::feature_attention::gru::{GRU_FIELDS, GruShape, gru_tensors};
use crate::ops::feature_attention::lengths;
use crate::ops::silu_mlp::mlp::config::{OUT_DTYPE, input, out_dtype};
use crate::ops::traffic::traffic;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

impl Operation for BiGru {
    const NAME: &'static str = "bigru";
    const FAMILY: &'static str = "feature_attention";
    const SUMMARY: &'static str =
        "h' = (1 - z) n + z h, n = tanh(Win x + bin + r (Whn h + bhn)), in both directions";
    const PARAMETERS: &'static [ParameterInfo] = &[OUT_DTYPE];

    type Args<In, Out> = BiGruArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, _parameters: &Parameters) -> Result<Self, Error> {
        let x = input(Self::NAME, inputs, "x")?;
        let [weight_ih, weight_hh] =
            ["weight_ih_l0", "weight_hh_l0"].map(|name| input(Self::NAME, inputs, name));
        let (weight_ih, weight_hh) = (weight_ih?, weight_hh?);
        let layers = (1..MAX_REPEATED)
            .take_while(|layer| inputs.contains_key(&format!("weight_ih_l{layer}")))
            .count();
        let op = BiGru::new(x.columns(), weight_hh.columns(), 1 + layers, x.dtype())?;
        op.with_weight_dtype(weight_ih.dtype())
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let [batch, length] = self.extent(&input(Self::NAME, inputs, "x")?)?;
        let dtype = out_dtype(Self::NAME, parameters)?.unwrap_or(self.dtype);
        let layout = |shape: &[usize]| Layout::contiguous(dtype, shape);
        Ok([
            ("out".to_owned(), layout(&[batch, length, 2 * self.hidden])?),
            ("h_n".to_owned(), layout(&[2 * self.layers, batch, self.hidden])?),
        ]
        .into())
    }

    fn validate(&self, args: &BiGruArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let [batch, length] = self.extent(&args.x)?;
        check.dimension("x", batch.saturating_mul(length), 0)?;
        check.tensor("x", &args.x, self.dtype, &[batch, length, self.input], X)?;
        lengths::validate(&check, &args.lengths, batch)?;
        let shape = GruShape {
            layers: self.layers,
            inputs: [self.input, 2 * self.hidden],
            hidden: self.hidden,
            dtype: self.weight_dtype,
        };
        let fields = &BiGruArgs::<Layout, Layout>::FIELDS[GRU_FIELDS];
        gru_tensors!(args).validate(&check, fields, &shape)?;
        let states = [2 * self.layers, batch, self.hidden];
        check.optional_tensor("h0", &args.h0, self.dtype, &states, STATES)?;
        let outputs = [batch, length, 2 * self.hidden];
        check.float("out", args.out.dtype())?;
        check.tensor("out", &args.out, args.out.dtype(), &outputs, "states of both directions")?;
        let Some(last) = args.h_n else { return Ok(()) };
        check.float("h_n", last.dtype())?;
        check.tensor("h_n", &last, last.dtype(), &states, STATES)
    }

    fn validate_values(&self, args: &BiGruArgs<TensorRef<'_>, Layout>) -> Result<(), Error> {
        let [_, longest] = self.extent(&crate::HasLayout::layout(&args.x))?;
        lengths::validate_values(Self::NAME, &args.lengths, longest)
    }

    fn cost(&self, args: &BiGruArgs<Layout, Layout>) -> Cost {
        let tokens = args.out.shape()[..2].iter().product::<usize>() as u64;
        let (gates, hidden) = (6 * self.hidden as u64, self.hidden as u64);
        let inputs = |layer| if layer == 0 { self.input as u64 } else { 2 * hidden };
        let products = (0..self.layers).map(|layer| 2 * tokens * gates * (inputs(layer) + hidden));
        Cost { flops: products.sum(), ..traffic(*args) }
    }

    fn workspace_bytes(&self, args: &BiGruArgs<Layout, Layout>) -> usize {
        match *args.x.shape() {
            [batch, length, _] => self.workspace_bytes(batch, length),
            _ => 0,
        }
    }

    fn run_reference(&self, args: BiGruArgs<TensorRef<'_>, TensorMut<'_>>) -> Result<(), Error> {
        self.validate(&args.layouts())?;
        self.validate_values(&args.inputs())?;
        reference::bigru(self, args);
        Ok(())
    }

    fn magnitude(&self, args: &BiGruArgs<TensorRef<'_>, Layout>, name: &str) -> Vec<f64> {
        reference::magnitude(args, name)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: BiGruArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.bigru(self, args, workspace)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: BiGruArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_bigru(self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: BiGruArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.bigru(stream, self, args, workspace)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &BiGruArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        super::cuda::plan(cuda, self, args)
    }
}

const STATES: &str = "of each layer forward, then reverse; texts; hidden units";
