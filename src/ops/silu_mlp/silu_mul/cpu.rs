//! `silu_mul` on the CPU.

use super::{SiluMul, SiluMulArgs};
use crate::backend::cpu::Cpu;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`SiluMul`] on the CPU: `silu(gate) * up`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; `out` is then untouched.
    pub fn silu_mul(
        &self,
        op: &SiluMul,
        args: SiluMulArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.run_reference(args)
    }
}
