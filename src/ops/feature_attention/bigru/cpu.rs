//! `bigru` on the CPU.

use super::{BiGru, BiGruArgs};
use crate::backend::cpu::Cpu;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`BiGru`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; outputs are then untouched.
    pub fn bigru(
        &self,
        op: &BiGru,
        args: BiGruArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.run_reference(args)
    }
}
