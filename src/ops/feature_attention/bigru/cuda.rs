//! `bigru` on CUDA.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{BiGru, BiGruArgs};
use crate::backend::cuda::launch::CudaPlan;
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::{Backend, Error};
use crate::layout::Layout;
use crate::operation::Operation as _;

impl Cuda {
    /// Enqueues [`BiGru`] on the caller's stream, two launches a layer.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn bigru(
        &self,
        _stream: &Arc<CudaStream>,
        op: &BiGru,
        args: BiGruArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
        _workspace: CudaWorkspace<'_>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        Err(unsupported())
    }
}

pub(super) fn plan(
    _cuda: &Cuda,
    op: &BiGru,
    layouts: &BiGruArgs<Layout, Layout>,
    _aligned: bool,
) -> Result<CudaPlan, Error> {
    op.validate(layouts)?;
    Err(unsupported())
}

fn unsupported() -> Error {
    Error::Unsupported {
        op: BiGru::NAME,
        backend: Backend::Cuda,
        reason: "not written yet".to_owned(),
        remedy: "".into(),
    }
}
