//! `scatter_rows`: compacted rows back to where they belong.

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
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::silu_mlp::mlp::config::input;
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};

arguments! {
    /// Tensors of [`ScatterRows`]; `M` rows of `D` features, `M'` of them listed.
    pub struct ScatterRowsArgs {
        /// `[M', D]`, f32, f16 or bf16.
        input rows,
        /// `[M']`: rows of `destination`, each at most once.
        input permutation: integer,
        /// `[1]`: how many of them count; all if it is absent.
        optional_input count: integer,
        /// `[M, D]`, of the type of `rows`.
        update destination,
    }
}

/// `destination[permutation[i]] = rows[i]` for `i < count`, bit by bit; other rows stay as they are.
///
/// The inverse of [`CompactRows`](super::CompactRows). An entry of `permutation` that is no row of `destination`, such as
/// -1, is passed over. A count below 0 is taken as 0, and one above `M'` as `M'`. On a GPU, where values cannot be checked,
/// of two rows with one entry either may win, element by element.
///
/// It also writes an exit ring `[B * (S_max + 1), D]`: entry `b * (S_max + 1) + position`, whatever number of tokens a
/// sequence has.
///
/// Source: CALM (arXiv 2207.07061), LayerSkip (arXiv 2404.16710): what batches of sequences that exit early need.
///
/// ```
/// use siluette::{Cpu, DType, ScatterRows, ScatterRowsArgs, TensorMut, TensorRef};
/// let mut states = [0.0f32; 4];
/// let args = ScatterRowsArgs::new(
///     TensorRef::new(&[1.0f32, 2.0, 3.0], &[3, 1])?,
///     TensorRef::new(&[2, -1, 0], &[3])?,
///     TensorMut::new(&mut states, &[4, 1])?,
/// );
/// Cpu::new().scatter_rows(&ScatterRows::new(1, DType::F32)?, args)?;
/// assert_eq!(states, [3.0, 0.0, 1.0, 0.0]);
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScatterRows {
    moved: MovedRows,
}

impl ScatterRows {
    /// Rows of `features` features.
    ///
    /// # Errors
    /// [`Problem::Size`] above 2^31 - 1, [`Problem::DType`] for an integer type.
    pub fn new(features: usize, dtype: DType) -> Result<ScatterRows, Error> {
        Ok(ScatterRows { moved: MovedRows::new(ScatterRows::NAME, features, dtype)? })
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

impl Operation for ScatterRows {
    const NAME: &'static str = "scatter_rows";
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str = "destination, with rows[i] written to row permutation[i]";
    const PARAMETERS: &'static [ParameterInfo] = &[];

    type Args<In, Out> = ScatterRowsArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, _parameters: &Parameters) -> Result<Self, Error> {
        let rows = input(Self::NAME, inputs, "rows")?;
        ScatterRows::new(rows.columns(), rows.dtype())
    }

    fn outputs(
        &self,
        _inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        Ok(NamedLayouts::new())
    }

    fn validate(&self, args: &ScatterRowsArgs<Layout, Layout>) -> Result<(), Error> {
        let (all, listed) = (("destination", &args.destination), ("rows", &args.rows));
        self.moved.validate(all, listed, &args.permutation, &args.count)
    }

    fn validate_values(&self, args: &ScatterRowsArgs<TensorRef<'_>, Layout>) -> Result<(), Error> {
        let entries = moved_rows::moved_entries(args.permutation, args.count);
        match moved_rows::first_repeated(entries, args.destination.shape()[0]) {
            None => Ok(()),
            Some(position) => {
                let got = format!("{} at position {position} again", entries[position]);
                let expected = "each row of destination once";
                Err(Error::argument(Self::NAME, "permutation", Problem::Value, expected, got, ""))
            }
        }
    }

    fn cost(&self, args: &ScatterRowsArgs<Layout, Layout>) -> Cost {
        let moved = moved_rows::moved_bytes(&args.rows);
        let lists = moved_rows::list_bytes(&args.permutation, &args.count);
        Cost { flops: 0, bytes_read: moved + lists, bytes_written: moved }
    }

    fn workspace_bytes(&self, _args: &ScatterRowsArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: ScatterRowsArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::scatter_rows(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: ScatterRowsArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.scatter_rows(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: ScatterRowsArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_scatter_rows(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: ScatterRowsArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.scatter_rows(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &ScatterRowsArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        self.validate(args)?;
        let listed = args.permutation.elements();
        moved_rows::cuda::plan(cuda, &self.moved, Direction::Scatter, listed)
    }
}

#[cfg(feature = "wgpu")]
impl Wgpu {
    /// Binds [`ScatterRows`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit: a binding must hold all of
    /// `destination`.
    pub fn plan_scatter_rows(
        &self,
        op: &ScatterRows,
        args: ScatterRowsArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let ScatterRowsArgs { rows: from, permutation, count, destination: to } = args;
        let names = ["rows", "destination"];
        let tensors = Tensors { names, from, permutation, count, to };
        moved_rows::wgpu::plan(self, &op.moved, Direction::Scatter, tensors)
    }
}

#[cfg(feature = "cuda")]
impl Cuda {
    /// Enqueues [`ScatterRows`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn scatter_rows(
        &self,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        op: &ScatterRows,
        args: ScatterRowsArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let ScatterRowsArgs { rows: from, permutation, count, destination: to } = args;
        let names = ["rows", "destination"];
        let tensors = Tensors { names, from, permutation, count, to };
        moved_rows::cuda::enqueue(self, stream, &op.moved, Direction::Scatter, tensors)
    }
}
