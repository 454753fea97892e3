//! What operations of this family check and bind alike through wgpu.

use crate::arguments::Arguments;
use crate::backend::wgpu::{Bound, Operand, check_disjoint};
use crate::error::Error;
use crate::layout::HasLayout as _;

/// That no output shares memory with an input or another output.
pub(crate) fn check_outputs<'a>(
    args: impl Arguments<Operand<'a>, Operand<'a>>,
) -> Result<(), Error> {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    args.visit(|_, input| inputs.push(input), |_, output| outputs.push(output));
    for output in outputs {
        check_disjoint(&output, &inputs)?;
        inputs.push(output);
    }
    Ok(())
}

/// Nothing where nothing lies: an empty range cannot be bound.
pub(super) fn optional<'a>(tensor: &Option<Operand<'a>>) -> Result<Bound<'a>, Error> {
    match tensor {
        Some(tensor) if tensor.layout().elements() > 0 => tensor.whole(),
        _ => Ok(Bound::ABSENT),
    }
}
