//! `silu_mul`: `silu(gate) * up`, elementwise.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

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
    /// Tensors of [`SiluMul`]; `M` tokens, `F` columns.
    pub struct SiluMulArgs {
        /// `[M, F]`; may be the left half of a `[M, 2F]` tensor.
        input gate,
        /// `[M, F]`; may be the right half of a `[M, 2F]` tensor.
        input up,
        /// `[M, F]`, f32, f16 or bf16.
        output out,
    }
}

/// `silu(gate) * up`, elementwise, in f32, rounded once.
///
/// Source: SwiGLU, Shazeer 2020, eq. 6, the part between the projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SiluMul {
    columns: usize,
    dtype: DType,
}

const MEANING: &str = "gate, up and out have one shape";

impl SiluMul {
    /// Rows of `columns` elements, `gate` and `up` of type `dtype`.
    ///
    /// # Errors
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1 columns,
    /// [`Problem::DType`](crate::Problem::DType) for an integer type.
    pub fn new(columns: usize, dtype: DType) -> Result<SiluMul, Error> {
        let check = Validator::new(SiluMul::NAME);
        check.dimension("columns", columns, 0)?;
        check.float("dtype", dtype)?;
        Ok(SiluMul { columns, dtype })
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }
}

impl Operation for SiluMul {
    const NAME: &'static str = "silu_mul";
    const FAMILY: &'static str = "silu_mlp";
    const SUMMARY: &'static str = "silu(gate) * up, elementwise";
    const PARAMETERS: &'static [ParameterInfo] = &[OUT_DTYPE];

    type Args<In, Out> = SiluMulArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, _parameters: &Parameters) -> Result<Self, Error> {
        let gate = input(Self::NAME, inputs, "gate")?;
        SiluMul::new(gate.columns(), gate.dtype())
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let gate = input(Self::NAME, inputs, "gate")?;
        let rows = Validator::new(Self::NAME).rows("gate", &gate, self.columns, MEANING)?;
        let dtype = out_dtype(Self::NAME, parameters)?.unwrap_or(self.dtype);
        let out = Layout::contiguous(dtype, &[rows, self.columns])?;
        Ok(NamedLayouts::from([("out".to_owned(), out)]))
    }

    fn validate(&self, args: &SiluMulArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let rows = check.rows("gate", &args.gate, self.columns, MEANING)?;
        let shape = [rows, self.columns];
        check.tensor("gate", &args.gate, self.dtype, &shape, MEANING)?;
        check.tensor("up", &args.up, self.dtype, &shape, MEANING)?;
        check.float("out", args.out.dtype())?;
        check.tensor("out", &args.out, args.out.dtype(), &shape, MEANING)
    }

    fn cost(&self, args: &SiluMulArgs<Layout, Layout>) -> Cost {
        let elements = args.gate.elements() as u64;
        Cost {
            // negate, exp, add, divide, multiply
            flops: 5 * elements,
            bytes_read: 2 * elements * self.dtype.size() as u64,
            bytes_written: elements * args.out.dtype().size() as u64,
        }
    }

    fn workspace_bytes(&self, _args: &SiluMulArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(&self, args: SiluMulArgs<TensorRef<'_>, TensorMut<'_>>) -> Result<(), Error> {
        reference::silu_mul(self, args)
    }

    fn magnitude(&self, args: &SiluMulArgs<TensorRef<'_>, Layout>, _name: &str) -> Vec<f64> {
        reference::magnitude(args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: SiluMulArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.silu_mul(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: SiluMulArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_silu_mul(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: SiluMulArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.silu_mul(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &SiluMulArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
