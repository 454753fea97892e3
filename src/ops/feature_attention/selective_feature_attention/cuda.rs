//! `selective_feature_attention` on CUDA.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{SelectiveFeatureAttention, SelectiveFeatureAttentionArgs};
use crate::backend::cuda::launch::CudaPlan;
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::{Backend, Error};
use crate::layout::Layout;
use crate::operation::Operation as _;

impl Cuda {
    /// Enqueues [`SelectiveFeatureAttention`] on the caller's stream.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn selective_feature_attention(
        &self,
        _stream: &Arc<CudaStream>,
        op: &SelectiveFeatureAttention,
        args: SelectiveFeatureAttentionArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        Err(unsupported())
    }
}

pub(super) fn plan(
    _cuda: &Cuda,
    op: &SelectiveFeatureAttention,
    layouts: &SelectiveFeatureAttentionArgs<Layout, Layout>,
    _aligned: bool,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    Err(unsupported())
}

fn unsupported() -> Error {
    Error::Unsupported {
        op: SelectiveFeatureAttention::NAME,
        backend: Backend::Cuda,
        reason: "not written yet".to_owned(),
        remedy: "".into(),
    }
}
