//! `zero_entries`: a matrix with some entries set to zero.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
#[cfg(feature = "wgpu")]
mod wgpu;

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
use crate::ops::prune_gather::index_set::{check_ascending, index_values};
use crate::ops::prune_gather::selection::{flat_elements, input};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`ZeroEntries`].
    pub struct ZeroEntriesArgs {
        /// `[n]` or `[R, C]`, f32, f16 or bf16.
        input weight,
        /// `[k]`: flat positions in row-major order, strictly ascending.
        input indices: index,
        /// `[1]`: how many of `indices` count; all without it.
        optional_input count: index,
        /// As `weight`.
        output out,
    }
}

/// A copy of `weight` in which the entries at `indices` are `+0`; all others keep their bits.
///
/// With `count`, only that many of the indices are used: what [`CoupledNeurons`](super::CoupledNeurons) wrote on a device
/// can be passed on as it lies. Indices out of order or range are errors where values lie in host memory; on a GPU those
/// out of range are skipped.
///
/// Source: DEAN (arXiv 2410.16672), section 3, the edit itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ZeroEntries {
    elements: usize,
    dtype: DType,
}

const MEANING: &str = "out has weight's shape and type";

impl ZeroEntries {
    /// For a matrix of `elements` entries of type `dtype`.
    ///
    /// # Errors
    /// [`Problem::Size`] above 2^31 - 1 entries, [`Problem::DType`] for an integer type.
    pub fn new(elements: usize, dtype: DType) -> Result<ZeroEntries, Error> {
        let check = Validator::new(ZeroEntries::NAME);
        check.dimension("elements", elements, 0)?;
        check.float("dtype", dtype)?;
        Ok(ZeroEntries { elements, dtype })
    }

    /// The indices that count.
    fn used<'a>(
        &self,
        indices: TensorRef<'a>,
        count: Option<TensorRef<'a>>,
    ) -> Result<&'a [u32], Error> {
        let indices = index_values(indices);
        let Some(count) = count else { return Ok(indices) };
        let count = index_values(count)[0] as usize;
        indices.get(..count).ok_or_else(|| {
            let expected = format!("at most {}, the number of indices", indices.len());
            Error::argument(Self::NAME, "count", Problem::Value, expected, count, "")
        })
    }
}

/// Rows and columns; a vector is one row.
fn matrix(layout: &Layout) -> [usize; 2] {
    match *layout.shape() {
        [rows, columns] => [rows, columns],
        _ => [1, layout.elements()],
    }
}

impl Operation for ZeroEntries {
    const NAME: &'static str = "zero_entries";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str = "weight with the entries at some positions set to 0";
    const PARAMETERS: &'static [ParameterInfo] = &[];

    type Args<In, Out> = ZeroEntriesArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, _parameters: &Parameters) -> Result<Self, Error> {
        let weight = input(Self::NAME, inputs, "weight")?;
        ZeroEntries::new(flat_elements(Self::NAME, "weight", &weight)?, weight.dtype())
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let weight = input(Self::NAME, inputs, "weight")?;
        let out = Layout::contiguous(self.dtype, weight.shape())?;
        Ok(NamedLayouts::from([("out".to_owned(), out)]))
    }

    fn validate(&self, args: &ZeroEntriesArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let elements = flat_elements(Self::NAME, "weight", &args.weight)?;
        let shape = args.weight.shape();
        if elements != self.elements {
            let (expected, got) = (format!("{} entries", self.elements), format!("{shape:?}"));
            return Err(Error::argument(Self::NAME, "weight", Problem::Shape, expected, got, ""));
        }
        check.tensor("weight", &args.weight, self.dtype, shape, MEANING)?;
        check.tensor("out", &args.out, self.dtype, shape, MEANING)?;
        let [entries] = *args.indices.shape() else {
            let got = format!("{:?}", args.indices.shape());
            return Err(Error::argument(Self::NAME, "indices", Problem::Shape, "[k]", got, ""));
        };
        check.dimension("indices", entries, 0)?;
        check.tensor("indices", &args.indices, DType::U32, &[entries], "")?;
        check.optional_tensor("count", &args.count, DType::U32, &[1], "one count")
    }

    fn validate_values(&self, args: &ZeroEntriesArgs<TensorRef<'_>, Layout>) -> Result<(), Error> {
        let used = self.used(args.indices, args.count)?;
        check_ascending(Self::NAME, "indices", used, self.elements)
    }

    fn cost(&self, args: &ZeroEntriesArgs<Layout, Layout>) -> Cost {
        let bytes = (self.elements * self.dtype.size()) as u64;
        let indices = (args.indices.elements() * size_of::<u32>()) as u64;
        Cost { flops: 0, bytes_read: bytes + indices, bytes_written: bytes }
    }

    fn workspace_bytes(&self, _args: &ZeroEntriesArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: ZeroEntriesArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::zero_entries(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: ZeroEntriesArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.zero_entries(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: ZeroEntriesArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_zero_entries(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: ZeroEntriesArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.zero_entries(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &ZeroEntriesArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
