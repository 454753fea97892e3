//! What an operation is: the trait that the registry, the tool, the tests and the benches run on.

use std::collections::BTreeMap;
use std::fmt;

use crate::arguments::Arguments;
use crate::backend::cpu::{Cpu, Workspace};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Cuda, CudaPlan, CudaTensor, CudaTensorMut, CudaWorkspace};
#[cfg(feature = "wgpu")]
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::device::NamedTensors;
use crate::error::Error;
use crate::layout::Layout;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

/// Work that an operation does, whatever the kernel: what a roofline needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts as two.
    pub flops: u64,
    /// Bytes that must be read at least once.
    pub bytes_read: u64,
    /// Bytes that must be written.
    pub bytes_written: u64,
}

impl Cost {
    /// Bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes_read + self.bytes_written
    }
}

/// Layouts by tensor name.
pub type NamedLayouts = BTreeMap<String, Layout>;

/// An operation's descriptor: pure, `Copy`, validated, independent of any device.
///
/// Engines call the methods of a backend ([`Cpu::gated_mlp`] and so on); this trait is what those
/// operations have in common, for code that runs any of them.
pub trait Operation: Copy + fmt::Debug + Send + Sync + 'static {
    /// The one name of the operation, everywhere.
    const NAME: &'static str;
    /// The family's folder name.
    const FAMILY: &'static str;
    /// One line: the equation.
    const SUMMARY: &'static str;
    /// Parameters that [`Operation::describe`] understands.
    const PARAMETERS: &'static [ParameterInfo];

    /// The operation's tensors, over any backend.
    type Args<In, Out>: Arguments<In, Out>;

    /// The descriptor that fits these inputs and parameters; tensors that are updated in place are among the inputs.
    ///
    /// # Errors
    /// Inputs or parameters that no descriptor of this operation fits.
    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error>;

    /// Layouts, without gaps, of the outputs that these inputs allow; not of what is updated in place.
    ///
    /// # Errors
    /// As [`Operation::describe`].
    fn outputs(
        &self,
        inputs: &NamedLayouts,
        parameters: &Parameters,
    ) -> Result<NamedLayouts, Error>;

    /// Everything that a kernel relies on, for every backend.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, what was expected and what came.
    fn validate(&self, args: &Self::Args<Layout, Layout>) -> Result<(), Error>;

    /// What only the inputs' values tell: indices out of range or out of order, scores that are no numbers.
    ///
    /// Checked wherever values lie in host memory, before anything is written: by the CPU backend, the
    /// reference and the owning layer. GPU backends cannot look without waiting for the device; there, kernels
    /// touch nothing outside their tensors whatever the values are, and each operation says what it then
    /// computes.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) names the argument and the first offending position.
    fn validate_values(&self, args: &Self::Args<TensorRef<'_>, Layout>) -> Result<(), Error> {
        let _ = args;
        Ok(())
    }

    /// Cuts outputs whose size depends on the data to that size; until then they are as large as they could
    /// be, since kernels are launched before the size is known.
    fn trim(&self, outputs: &mut NamedTensors) -> Result<(), Error> {
        let _ = outputs;
        Ok(())
    }

    /// FLOPs and bytes for these tensors.
    fn cost(&self, args: &Self::Args<Layout, Layout>) -> Cost;

    /// Scratch memory that a launch needs at most for these tensors, in bytes, where the caller brings it;
    /// the CPU's [`Workspace`] sizes itself.
    fn workspace_bytes(&self, args: &Self::Args<Layout, Layout>) -> usize;

    /// Runs the scalar oracle.
    ///
    /// # Errors
    /// Those of [`Operation::validate`].
    fn run_reference(&self, args: Self::Args<TensorRef<'_>, TensorMut<'_>>) -> Result<(), Error>;

    /// For each element of output `name`, the sum of the magnitudes of the products that it is made of:
    /// what a rounding error of one unit in each of them could add up to. Not asked for where the tolerance is
    /// exact.
    fn magnitude(&self, args: &Self::Args<TensorRef<'_>, Layout>, name: &str) -> Vec<f64> {
        let _ = (args, name);
        Vec::new()
    }

    /// Runs on the CPU.
    ///
    /// # Errors
    /// Those of [`Operation::validate`].
    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: Self::Args<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error>;

    /// Binds the operation to buffers, to be recorded as often as wanted.
    ///
    /// # Errors
    /// Those of [`Operation::validate`]; [`Error::Unsupported`] beyond the device's limits.
    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: Self::Args<WgpuTensor<'_>, WgpuTensor<'_>>,
        workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error>;

    /// Enqueues on the caller's stream.
    ///
    /// # Errors
    /// Those of [`Operation::validate`]; [`Error::Unsupported`] beyond the device's limits.
    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: Self::Args<CudaTensor<'_>, CudaTensorMut<'_>>,
        workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error>;

    /// The kernels that a call with these tensors takes; `aligned` says whether they all start on multiples
    /// of 16 bytes. See [`Cuda::plan`].
    ///
    /// # Errors
    /// Those of [`Operation::enqueue_cuda`] for these layouts.
    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &Self::Args<Layout, Layout>,
        aligned: bool,
    ) -> Result<CudaPlan, Error>;
}
