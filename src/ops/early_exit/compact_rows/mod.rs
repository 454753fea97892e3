//! `compact_rows`: the rows of the sequences that go on, one behind the other.

mod cpu;
mod reference;

use super::moved_rows::{self, MovedRows};
#[cfg(any(feature = "wgpu", feature = "cuda"))]
use super::moved_rows::{Direction, Tensors};
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
use crate::ops::silu_mlp::mlp::config::input;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

arguments! {
    /// Tensors of [`CompactRows`]; `M` rows of `D` features, `M'` of them listed.
    pub struct CompactRowsArgs {
        /// `[M, D]`, f32, f16 or bf16.
        input x,
        /// `[M']`: rows of `x`.
        input permutation: integer,
        /// `[1]`: how many of them count; all if it is absent.
        optional_input count: integer,
        /// `[M', D]`, of the type of `x`.
        output compacted,
    }
}

/// `compacted[i] = x[permutation[i]]` for `i < count`, bit by bit, and 0 from there on.
///
/// The number of sequences that [`ExitGate`](super::ExitGate) lets go on is known to the device alone, so that what follows
/// is launched for all; zero rows keep what runs on the others finite. Likewise an entry of `permutation` that is no row of
/// `x`, such as -1, gives a row of zeros. A count below 0 is taken as 0, and one above `M'` as `M'`.
///
/// It also reads an exit ring `[B * (S_max + 1), D]`: entry `b * (S_max + 1) + position`.
///
/// Source: CALM (arXiv 2207.07061), LayerSkip (arXiv 2404.16710): what batches of sequences that exit early need.
///
/// ```
/// use siluette::{CompactRows, CompactRowsArgs, Cpu, DType, TensorMut, TensorRef};
/// let mut compacted = [9.0f32; 3];
/// let args = CompactRowsArgs::new(
///     TensorRef::new(&[1.0f32, 2.0, 3.0], &[3, 1])?,
///     TensorRef::new(&[2, 0, 1], &[3])?,
///     TensorMut::new(&mut compacted, &[3, 1])?,
/// )
/// .count(TensorRef::new(&[2], &[1])?);
/// Cpu::new().compact_rows(&CompactRows::new(1, DType::F32)?, args)?;
/// assert_eq!(compacted, [3.0, 1.0, 0.0]);
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompactRows {
    moved: MovedRows,
}

impl CompactRows {
    /// Rows of `features` features.
    ///
    /// # Errors
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1, [`Problem::DType`](crate::Problem::DType) for an integer
    /// type.
    pub fn new(features: usize, dtype: DType) -> Result<CompactRows, Error> {
        Ok(CompactRows { moved: MovedRows::new(CompactRows::NAME, features, dtype)? })
    }

    /// Features of a row.
    pub fn features(&self) -> usize {
        self.moved.features
    }

    /// Type of the features.
    pub fn dtype(&self) -> DType {
        self.moved.dtype
    }
}

impl Operation for CompactRows {
    const NAME: &'static str = "compact_rows";
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str = "rows x[permutation[i]] for i below a count, zeros behind";
    const PARAMETERS: &'static [ParameterInfo] = &[];

    type Args<In, Out> = CompactRowsArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, _parameters: &Parameters) -> Result<Self, Error> {
        let x = input(Self::NAME, inputs, "x")?;
        CompactRows::new(x.columns(), x.dtype())
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let listed = input(Self::NAME, inputs, "permutation")?.elements();
        let layout = Layout::contiguous(self.moved.dtype, &[listed, self.moved.features])?;
        Ok(NamedLayouts::from([("compacted".to_owned(), layout)]))
    }

    fn validate(&self, args: &CompactRowsArgs<Layout, Layout>) -> Result<(), Error> {
        let (all, listed) = (("x", &args.x), ("compacted", &args.compacted));
        self.moved.validate(all, listed, &args.permutation, &args.count)
    }

    fn cost(&self, args: &CompactRowsArgs<Layout, Layout>) -> Cost {
        let moved = moved_rows::moved_bytes(&args.compacted);
        let lists = moved_rows::list_bytes(&args.permutation, &args.count);
        Cost { flops: 0, bytes_read: moved + lists, bytes_written: moved }
    }

    fn workspace_bytes(&self, _args: &CompactRowsArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: CompactRowsArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::compact_rows(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: CompactRowsArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.compact_rows(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: CompactRowsArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_compact_rows(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: CompactRowsArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.compact_rows(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &CompactRowsArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        self.validate(args)?;
        let listed = args.permutation.elements();
        moved_rows::cuda::plan(cuda, &self.moved, Direction::Compact, listed)
    }
}

#[cfg(feature = "wgpu")]
impl Wgpu {
    /// Binds [`CompactRows`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit: a binding must hold all of
    /// `x`.
    pub fn plan_compact_rows(
        &self,
        op: &CompactRows,
        args: CompactRowsArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let CompactRowsArgs { x: from, permutation, count, compacted: to } = args;
        let names = ["x", "compacted"];
        let tensors = Tensors { names, from, permutation, count, to };
        moved_rows::wgpu::plan(self, &op.moved, Direction::Compact, tensors)
    }
}

#[cfg(feature = "cuda")]
impl Cuda {
    /// Enqueues [`CompactRows`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn compact_rows(
        &self,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        op: &CompactRows,
        args: CompactRowsArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let CompactRowsArgs { x: from, permutation, count, compacted: to } = args;
        let names = ["x", "compacted"];
        let tensors = Tensors { names, from, permutation, count, to };
        moved_rows::cuda::enqueue(self, stream, &op.moved, Direction::Compact, tensors)
    }
}
