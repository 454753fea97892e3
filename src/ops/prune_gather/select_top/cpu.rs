//! `select_top` on the CPU.

use super::{SelectTop, SelectTopArgs};
use crate::backend::cpu::Cpu;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection::HostScores;
use crate::ops::prune_gather::selection::cpu::Top;
use crate::tensor::{TensorMut, TensorRef, with_float};

impl Cpu {
    /// [`SelectTop`] on the CPU. Reads the scores three times, and once more what lies around the selected ones: to look
    /// for NaN, to find the k-th largest among those that a sample says are near it, to count.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; `indices` is then untouched.
    pub fn select_top(
        &self,
        op: &SelectTop,
        mut args: SelectTopArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let values = args.inputs();
        self.enter(|| op.validate_values(&values))?;
        let Some(indices) = args.indices.as_mut_slice() else { return Ok(()) };
        with_float!(op.dtype, T => {
            let scores = HostScores::<T>::new(args.scores);
            Top::new(self, &scores, op.k).write(self, &scores, indices);
        });
        Ok(())
    }
}
