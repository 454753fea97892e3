//! What the caller decides about the backend.

use std::path::PathBuf;

use crate::ops::early_exit::exit_head::cuda::strategy::HeadDispatch;
use crate::ops::silu_mlp::mlp::cuda::strategy::MlpDispatch;

/// Options of [`Cuda`](super::Cuda). The defaults suit an engine.
///
/// ```
/// # use siluette::backend::cuda::{CudaOptions, KernelCache};
/// let mut options = CudaOptions::default();
/// options.cache = KernelCache::Folder("/var/cache/engine".into());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaOptions {
    /// Where compiled kernels are kept.
    pub cache: KernelCache,
    /// NVRTC's library; `None` lets the system find it.
    pub nvrtc_library: Option<PathBuf>,
    /// Whether the second kernel of an operation may start while the first one ends, on devices that can.
    pub dependent_launches: bool,
    /// Which kernels the MLPs take.
    pub mlp: MlpDispatch,
    /// Which kernels the heads take.
    pub head: HeadDispatch,
}

impl Default for CudaOptions {
    fn default() -> CudaOptions {
        CudaOptions {
            cache: KernelCache::User,
            nvrtc_library: None,
            dependent_launches: true,
            mlp: MlpDispatch::default(),
            head: HeadDispatch::default(),
        }
    }
}

/// Where compiled kernels are kept between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KernelCache {
    /// `siluette/cuda` in the user's cache folder: `$XDG_CACHE_HOME`, else `~/.cache`.
    #[default]
    User,
    /// This folder; made if it does not exist.
    Folder(PathBuf),
    /// Nowhere: kernels are compiled in every process.
    None,
}
