//! `compact_mask`: from masks to index sets.

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
use crate::device::NamedTensors;
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::{Cost, NamedLayouts, Operation};
use crate::ops::prune_gather::selection::{input, trim_indices};
use crate::parameters::{ParameterInfo, Parameters};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

arguments! {
    /// Tensors of [`CompactMask`]; `n` features, `B` masks.
    pub struct CompactMaskArgs {
        /// `[n]`, or `[B, n]` for several masks at once; shorter ones are padded with zeros.
        input mask: mask,
        /// As `mask`: the positions of the bytes that are not 0, ascending, then 2^32 - 1.
        output indices: index,
        /// As `mask`: for each feature its position in `indices`, or -1.
        optional_output rank: integer,
        /// `[1]`, or `[B]`: how many there are.
        optional_output count: index,
    }
}

/// The set that a mask describes, as its members and as its inverse; of all layers in one call.
///
/// `indices[rank[i]] = i` for every `i` with `mask[i] != 0`. Kernels are launched before they know how many members
/// there are, so `indices` has room for all; `count` says how far it is filled, on the device too.
///
/// Source: the index sets of DISP-LLM (arXiv 2410.11988), section 3.2. On the host,
/// [`IndexSet::from_mask`](crate::IndexSet::from_mask) does the same for one mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompactMask {
    features: usize,
}

const MEANING: &str = "indices and rank have the mask's shape";
const COUNT: &str = "one count for each mask";

impl CompactMask {
    /// Masks of `features` bytes.
    ///
    /// # Errors
    /// [`Problem::Size`] above 2^31 - 1.
    pub fn new(features: usize) -> Result<CompactMask, Error> {
        Validator::new(CompactMask::NAME).dimension("features", features, 0)?;
        Ok(CompactMask { features })
    }

    /// Bytes of a mask.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Masks in a tensor of one or several.
    fn masks(&self, mask: &Layout) -> Result<usize, Error> {
        let check = Validator::new(Self::NAME);
        match *mask.shape() {
            [features] if features == self.features => Ok(1),
            [masks, features] if features == self.features => {
                check.dimension("masks", masks, 0)?;
                Ok(masks)
            }
            ref got => {
                let expected = format!("[{0}] or [B, {0}]", self.features);
                let got = format!("{got:?}");
                Err(Error::argument(Self::NAME, "mask", Problem::Shape, expected, got, ""))
            }
        }
    }
}

impl Operation for CompactMask {
    const NAME: &'static str = "compact_mask";
    const FAMILY: &'static str = "prune_gather";
    const SUMMARY: &'static str = "the positions of a mask's ones, and their inverse";
    const PARAMETERS: &'static [ParameterInfo] = &[];

    type Args<In, Out> = CompactMaskArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, _parameters: &Parameters) -> Result<Self, Error> {
        CompactMask::new(input(Self::NAME, inputs, "mask")?.columns())
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let mask = input(Self::NAME, inputs, "mask")?;
        let masks = self.masks(&mask)?;
        Ok(NamedLayouts::from([
            ("indices".to_owned(), Layout::contiguous(DType::U32, mask.shape())?),
            ("rank".to_owned(), Layout::contiguous(DType::I32, mask.shape())?),
            ("count".to_owned(), Layout::contiguous(DType::U32, &[masks])?),
        ]))
    }

    fn validate(&self, args: &CompactMaskArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let masks = self.masks(&args.mask)?;
        let shape = args.mask.shape();
        check.tensor("mask", &args.mask, DType::U8, shape, MEANING)?;
        check.tensor("indices", &args.indices, DType::U32, shape, MEANING)?;
        check.optional_tensor("rank", &args.rank, DType::I32, shape, MEANING)?;
        check.optional_tensor("count", &args.count, DType::U32, &[masks], COUNT)
    }

    fn trim(&self, outputs: &mut NamedTensors) -> Result<(), Error> {
        trim_indices(outputs)
    }

    fn cost(&self, args: &CompactMaskArgs<Layout, Layout>) -> Cost {
        let bytes = |layout: &Layout| (layout.elements() * layout.dtype().size()) as u64;
        let optional = |layout: &Option<Layout>| layout.as_ref().map_or(0, bytes);
        Cost {
            flops: 0,
            bytes_read: bytes(&args.mask),
            bytes_written: bytes(&args.indices) + optional(&args.rank) + optional(&args.count),
        }
    }

    fn workspace_bytes(&self, _args: &CompactMaskArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: CompactMaskArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::compact_mask(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: CompactMaskArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.compact_mask(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: CompactMaskArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_compact_mask(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: CompactMaskArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.compact_mask(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &CompactMaskArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
