//! `silu_mul` through wgpu.

use super::{SiluMul, SiluMulArgs};
use crate::backend::wgpu::{Plan, Wgpu, WgpuTensor};
use crate::error::Error;

impl Wgpu {
    /// Binds [`SiluMul`] to buffers: `silu(gate) * up`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn plan_silu_mul(
        &self,
        _op: &SiluMul,
        _args: SiluMulArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        todo!()
    }
}
