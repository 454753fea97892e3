//! `silu_mul` on CUDA.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{SiluMul, SiluMulArgs};
use crate::backend::cuda::{Cuda, CudaTensor, CudaTensorMut};
use crate::error::Error;

impl Cuda {
    /// Enqueues [`SiluMul`] on the caller's stream: `silu(gate) * up`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit.
    pub fn silu_mul(
        &self,
        _stream: &Arc<CudaStream>,
        _op: &SiluMul,
        _args: SiluMulArgs<CudaTensor<'_>, CudaTensorMut<'_>>,
    ) -> Result<(), Error> {
        todo!()
    }
}
