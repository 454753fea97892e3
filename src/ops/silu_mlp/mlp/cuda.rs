//! The MLPs on CUDA.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::config::{MlpConfig, MlpTensors};
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut, CudaWorkspace};
use crate::error::Error;

pub(crate) fn enqueue(
    _cuda: &Cuda,
    _stream: &Arc<CudaStream>,
    _op: &MlpConfig,
    _args: MlpTensors<CudaTensor<'_>, CudaTensorMut<'_>>,
    _workspace: CudaWorkspace<'_>,
) -> Result<(), Error> {
    todo!()
}
