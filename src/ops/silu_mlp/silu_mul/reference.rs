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

/// `|silu(gate) * up|`, as [`crate::Operation::magnitude`], and a share of `|up|` for gates below -87.
pub(super) fn magnitude(args: &SiluMulArgs<TensorRef<'_>, Layout>) -> Vec<f64> {
    /// Where f32's `exp(-gate)` overflows, `silu` (above -2e-36) becomes 0. Tolerances are at least 1e-6 of a
    /// magnitude.
    const FLUSHED: f64 = 2e-36 / 1e-6;
    let (gate, up) = (args.gate.to_f64(), args.up.to_f64());
    let silu = |gate: &f64| (gate / (1.0 + (-gate).exp())).abs();
    gate.iter().zip(&up).map(|(gate, up)| (silu(gate) + FLUSHED) * up.abs()).collect()
}
