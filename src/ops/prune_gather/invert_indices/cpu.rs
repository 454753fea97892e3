//! `invert_indices` on the CPU.

use super::{InvertIndices, InvertIndicesArgs};
use crate::backend::cpu::Cpu;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::prune_gather::index_set::{first_invalid, index_values};
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`InvertIndices`] on the CPU, on the caller's thread: it takes microseconds.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; the outputs are then untouched.
    pub fn invert_indices(
        &self,
        op: &InvertIndices,
        mut args: InvertIndicesArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let indices = index_values(args.indices);
        let invalid = first_invalid(indices, op.features);
        // Of another type it would have been refused.
        let rank = args.rank.as_mut_slice::<i32>().unwrap_or_default();
        rank.fill(-1);
        if invalid.is_none() {
            for (place, &index) in indices.iter().enumerate() {
                rank[index as usize] = place as i32;
            }
        }
        if let Some(tensor) = &mut args.first_invalid {
            tensor
                .as_mut_slice::<i32>()
                .unwrap_or_default()
                .fill(invalid.map_or(-1, |position| position as i32));
        }
        Ok(())
    }
}
