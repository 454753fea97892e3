//! The MLPs on the CPU.

mod layer;
mod strategy;
mod stream;
#[cfg(test)]
mod tests;
mod tiles;

use layer::{Hidden, Input, Layer, Output};
use strategy::{Kernel, Strategy};

use super::config::{MlpConfig, MlpTensors};
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::product::Matrix;
use crate::backend::cpu::products::{self, ProductJob, Products};
use crate::backend::cpu::{Cpu, Workspace};
use crate::error::Error;
use crate::layout::HasLayout;
use crate::tensor::{TensorMut, TensorRef};

pub(crate) fn mlp(
    cpu: &Cpu,
    op: &MlpConfig,
    args: MlpTensors<TensorRef<'_>, TensorMut<'_>>,
    workspace: &mut Workspace,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    let rows = args.x.layout().shape()[0];
    if rows == 0 {
        return Ok(());
    }
    let strategy = Strategy::choose(op, rows, cpu.threads());
    run(cpu, op, args, workspace, strategy);
    Ok(())
}

/// `args` are valid.
fn run(
    cpu: &Cpu,
    op: &MlpConfig,
    args: MlpTensors<TensorRef<'_>, TensorMut<'_>>,
    workspace: &mut Workspace,
    strategy: Strategy,
) {
    let job = MlpJob { op, args, workspace, strategy };
    let dispatch =
        || products::dispatch(cpu.instructions(), op.activation_dtype, op.weight_dtype, job);
    if strategy.threads > 1 { cpu.enter(dispatch) } else { dispatch() }
}

struct MlpJob<'a> {
    op: &'a MlpConfig,
    args: MlpTensors<TensorRef<'a>, TensorMut<'a>>,
    workspace: &'a mut Workspace,
    strategy: Strategy,
}

impl ProductJob for MlpJob<'_> {
    type Output = ();

    fn run<V: Vectors, P: Products<V>>(self, v: V, p: P) {
        let MlpJob { op, mut args, workspace, strategy } = self;
        let up = Matrix::new(args.up_weight);
        let first = [args.gate_weight.map_or(up, Matrix::new), up];
        let layer = Layer {
            rows: args.x.layout().shape()[0],
            first: &first[usize::from(!op.gated)..],
            down: Matrix::<P::Weight>::new(args.down_weight),
            input: Input {
                x: FloatRows::new(args.x),
                norm: op.norm.zip(args.norm_weight.map(FloatRows::new)),
                dtype: op.activation_dtype,
            },
            hidden: Hidden {
                gate_bias: args.gate_bias.map(FloatRows::new),
                up_bias: args.up_bias.map(FloatRows::new),
                rounding: op.rounding,
                dtype: op.activation_dtype,
            },
            output: Output {
                bias: args.down_bias.map(FloatRows::new),
                residual: args.residual.map(FloatRows::new),
                out: FloatRowsMut::new(&mut args.out),
            },
        };
        match strategy.kernel {
            Kernel::Stream => stream::run((v, p), &layer, strategy, workspace),
            Kernel::Tiles => tiles::run((v, p), &layer, strategy, workspace),
        }
    }
}
