//! The MLPs through wgpu.

use super::config::{MlpConfig, MlpTensors};
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor, WgpuWorkspace};
use crate::error::Error;

pub(crate) fn plan(
    _wgpu: &Wgpu,
    _op: &MlpConfig,
    _args: MlpTensors<WgpuTensor<'_>, WgpuTensor<'_>>,
    _workspace: WgpuWorkspace<'_>,
) -> Result<Plan, Error> {
    todo!()
}
