//! The scalar oracle of `silu_mul`.

use super::{SiluMul, SiluMulArgs};
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn silu_mul(
    op: &SiluMul,
    mut args: SiluMulArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    let (gate, up) = (args.gate.to_f64(), args.up.to_f64());
    args.out.write_f64(gate.iter().zip(&up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up));
    Ok(())
}

/// `|silu(gate) * up|`, as [`crate::Operation::magnitude`].
pub(super) fn magnitude(args: &SiluMulArgs<TensorRef<'_>, Layout>) -> Vec<f64> {
    let (gate, up) = (args.gate.to_f64(), args.up.to_f64());
    gate.iter().zip(&up).map(|(gate, up)| (gate / (1.0 + (-gate).exp()) * up).abs()).collect()
}
