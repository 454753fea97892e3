//! `verify_greedy` on the CPU.

use super::{VerifyGreedy, VerifyGreedyArgs};
use crate::backend::cpu::Cpu;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::early_exit::verification::common;
use crate::ops::early_exit::verification::host::{Sequence, Walk, integer_values, verify_chains};
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`VerifyGreedy`] on the CPU, on the caller's thread: a few numbers a sequence.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; outputs are then untouched.
    pub fn verify_greedy(
        &self,
        op: &VerifyGreedy,
        args: VerifyGreedyArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        let target = integer_values(args.target);
        let batch = op.batch(&args)?;
        verify_chains(&batch, common!(args), |sequence| walk(sequence, target));
        Ok(())
    }
}

fn walk(sequence: &Sequence<'_>, target: &[i32]) -> Walk {
    let rows = &target[sequence.first_row..][..sequence.draft.len() + 1];
    let differs = |(draft, row): (&i32, &i32)| draft != row || *row < 0;
    let accepted = sequence.draft.iter().zip(rows).position(differs).unwrap_or(rows.len() - 1);
    Walk { accepted, correction: Some(rows[accepted]).filter(|&token| token >= 0) }
}
