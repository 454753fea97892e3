//! `compact_weight` on the CPU.

use super::{CompactWeight, CompactWeightArgs};
use crate::backend::cpu::Cpu;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::prune_gather::gather_plain::{GatherPlainTensors, gather_plain};
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`CompactWeight`] on the CPU: `out = weight[rows][:, columns]`, padded with zeros.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, and the first position of indices that are not strictly ascending
    /// or out of range; `out` is then untouched.
    pub fn compact_weight(
        &self,
        op: &CompactWeight,
        args: CompactWeightArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        let CompactWeightArgs { weight: x, rows, columns, out } = args;
        gather_plain(self, GatherPlainTensors { x, rows, columns, out });
        Ok(())
    }
}
