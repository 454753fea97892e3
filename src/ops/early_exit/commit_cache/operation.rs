//! `commit_cache` as an [`Operation`].

#[cfg(feature = "cuda")]
use super::cuda;
use super::{CACHE, CommitCache, CommitCacheArgs, reference};
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

const CAPACITY: ParameterInfo = ParameterInfo {
    name: "capacity",
    values: "a whole number",
    default: "",
    description: "positions of a sequence; what the cache or the page table has, if one is there",
};
const PAGE_SIZE: ParameterInfo = ParameterInfo {
    name: "page_size",
    values: "a whole number",
    default: "",
    description: "positions of a page; what the cache has, if it is there and has pages",
};

impl CommitCache {
    /// A number from the parameters, or the cache's extent.
    fn extent(
        parameters: &Parameters,
        info: &'static ParameterInfo,
        derived: Option<usize>,
    ) -> Result<usize, Error> {
        parameters.parse(Self::NAME, info)?.or(derived).ok_or_else(|| {
            let expected = info.values;
            Error::argument(
                Self::NAME,
                info.name,
                Problem::Missing,
                expected,
                "none",
                info.description,
            )
        })
    }
}

impl Operation for CommitCache {
    const NAME: &'static str = "commit_cache";
    const FAMILY: &'static str = "early_exit";
    const SUMMARY: &'static str =
        "lengths, accepted rows and freed pages of a cache after a verification";
    const PARAMETERS: &'static [ParameterInfo] = &[CAPACITY, PAGE_SIZE];

    type Args<In, Out> = CommitCacheArgs<In, Out>;

    fn describe(inputs: &NamedLayouts, parameters: &Parameters) -> Result<Self, Error> {
        let cache_rows = match inputs.get("cache").map(Layout::shape) {
            None => None,
            Some(&[_, _, rows, _]) => Some(rows),
            Some(shape) => {
                let (problem, got) = (Problem::Shape, format!("{shape:?}"));
                return Err(Error::argument(Self::NAME, "cache", problem, CACHE, got, ""));
            }
        };
        let Some(table) = inputs.get("page_table") else {
            return CommitCache::new(Self::extent(parameters, &CAPACITY, cache_rows)?);
        };
        let page_size = Self::extent(parameters, &PAGE_SIZE, cache_rows)?;
        let capacity = table.columns().saturating_mul(page_size);
        let capacity = Self::extent(parameters, &CAPACITY, Some(capacity))?;
        CommitCache::new(capacity)?.with_pages(page_size)
    }

    fn outputs(
        &self,
        inputs: &NamedLayouts,
        _parameters: &Parameters,
    ) -> Result<NamedLayouts, Error> {
        let batch = input(Self::NAME, inputs, "length")?.elements();
        let by_sequence = Layout::contiguous(DType::I32, &[batch])?;
        let mut outputs = NamedLayouts::new();
        for name in ["committed_length", "status"] {
            outputs.insert(name.to_owned(), by_sequence);
        }
        if self.page_size.is_some() {
            let table = Layout::contiguous(DType::I32, &[batch, self.table_length()])?;
            outputs.insert("freed_pages".to_owned(), table);
            outputs.insert("freed_count".to_owned(), by_sequence);
        }
        Ok(outputs)
    }

    fn validate(&self, args: &CommitCacheArgs<Layout, Layout>) -> Result<(), Error> {
        self.check(args)
    }

    fn cost(&self, args: &CommitCacheArgs<Layout, Layout>) -> Cost {
        let words = |layout: &Layout| (layout.elements() * layout.dtype().size()) as u64;
        let optional = |layout: &Option<Layout>| layout.as_ref().map_or(0, words);
        // Every draft's row moves, at most.
        let rows = args.path.as_ref().map_or(0, Layout::elements);
        let moved = args.cache.as_ref().map_or(0, |cache| {
            (rows * cache.shape()[0] * cache.columns() * cache.dtype().size()) as u64
        });
        Cost {
            flops: 0,
            bytes_read: 2 * words(&args.length)
                + optional(&args.path)
                + optional(&args.page_table)
                + moved,
            bytes_written: 2 * words(&args.length)
                + optional(&args.freed_pages)
                + optional(&args.freed_count)
                + moved,
        }
    }

    fn workspace_bytes(&self, _args: &CommitCacheArgs<Layout, Layout>) -> usize {
        0
    }

    fn run_reference(
        &self,
        args: CommitCacheArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        reference::commit_cache(self, args)
    }

    fn run_cpu(
        &self,
        cpu: &Cpu,
        args: CommitCacheArgs<TensorRef<'_>, TensorMut<'_>>,
        _workspace: &mut Workspace,
    ) -> Result<(), Error> {
        cpu.commit_cache(self, args)
    }

    #[cfg(feature = "wgpu")]
    fn plan_wgpu(
        &self,
        wgpu: &Wgpu,
        args: CommitCacheArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        wgpu.plan_commit_cache(self, args)
    }

    #[cfg(feature = "cuda")]
    fn enqueue_cuda(
        &self,
        cuda: &Cuda,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        args: CommitCacheArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        cuda.commit_cache(stream, self, args)
    }

    #[cfg(feature = "cuda")]
    fn plan_cuda(
        &self,
        cuda: &Cuda,
        args: &CommitCacheArgs<Layout, Layout>,
        _aligned: bool,
    ) -> Result<CudaPlan, Error> {
        cuda::plan(cuda, self, args)
    }
}
