//! `bigru` through wgpu.

use super::{BiGru, BiGruArgs};
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::error::{Backend, Error};
use crate::operation::Operation as _;

impl Wgpu {
    /// Binds [`BiGru`] to buffers, two dispatches a layer.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_bigru(
        &self,
        op: &BiGru,
        args: BiGruArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
        _workspace: WgpuWorkspace<'_>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        Err(Error::Unsupported {
            op: BiGru::NAME,
            backend: Backend::Wgpu,
            reason: "not written yet".to_owned(),
            remedy: "".into(),
        })
    }
}
