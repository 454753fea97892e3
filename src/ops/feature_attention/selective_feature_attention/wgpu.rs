//! `selective_feature_attention` through wgpu.

use super::{SelectiveFeatureAttention, SelectiveFeatureAttentionArgs};
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::error::{Backend, Error};
use crate::operation::Operation as _;

impl Wgpu {
    /// Binds [`SelectiveFeatureAttention`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_selective_feature_attention(
        &self,
        op: &SelectiveFeatureAttention,
        args: SelectiveFeatureAttentionArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        Err(Error::Unsupported {
            op: SelectiveFeatureAttention::NAME,
            backend: Backend::Wgpu,
            reason: "not written yet".to_owned(),
            remedy: "".into(),
        })
    }
}
