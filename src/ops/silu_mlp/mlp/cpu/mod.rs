//! Every block on the CPU.

pub(crate) mod layer;
pub(crate) mod strategy;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod tiles;

use layer::{Hidden, Input, Layer, Norm, Output};
use strategy::{Kernel, Strategy};

use super::config::{MlpConfig, MlpTensors};
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::packed_weight::WeightForm;
use crate::backend::cpu::product::Matrix;
use crate::backend::cpu::products::{self, ManyRows, ProductJob, Products};
use crate::backend::cpu::{Cpu, Workspace};
use crate::error::Error;
use crate::layout::HasLayout;
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::{TensorMut, TensorRef};

pub(crate) fn mlp(
    cpu: &Cpu,
    op: &MlpConfig,
    args: MlpTensors<TensorRef<'_>, TensorMut<'_>>,
    workspace: &mut Workspace,
) -> Result<(), Error> {
    let form = op.validate_weight_form(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let rows = args.x.layout().shape()[0];
    if rows == 0 {
        return Ok(());
    }
    let many_rows = ManyRows::of(cpu.instructions(), op.activation_dtype, op.weight_dtype);
    let threads = cpu.threads_for(strategy::products(op, rows));
    let strategy = match form {
        WeightForm::Packed => Strategy::packed(op, rows, threads),
        WeightForm::AsTheyLie => Strategy::choose(op, rows, threads, many_rows),
    };
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
    let (instructions, weight) = (cpu.instructions(), op.weight_dtype);
    let dispatch = || match job.strategy.kernel {
        Kernel::Panels => products::dispatch_widened(instructions, weight, job),
        _ => products::dispatch(instructions, op.activation_dtype, weight, job),
    };
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
        let residual = args.residual.or(op.scatters.then_some(args.x));
        let first = |weight| Matrix::packable(weight, [op.neurons(), op.inputs]);
        let first = match (args.gate_weight, args.up_weight) {
            (Some(gate), Some(up)) => &[first(gate), first(up)][..],
            (None, Some(up)) => &[first(up)],
            _ => &[],
        };
        let down = Matrix::<P::Weight>::packable(args.down_weight, [op.outputs, op.depth()]);
        let layer = Layer {
            rows: args.x.layout().shape()[0],
            first,
            down: if op.depth() == 0 { down.without_columns() } else { down },
            input: Input {
                x: FloatRows::new(args.x),
                // Without products, nothing is read.
                columns: if op.depth() == 0 { 0 } else { op.inputs },
                indices: args.in_indices.map(index_values),
                norm: op.norm.zip(args.norm_weight).map(|(eps, weight)| Norm {
                    eps,
                    weight: FloatRows::new(weight),
                    features: op.hidden,
                    of_selection: op.norms_selection(),
                    divisor: op.norm_divisor(),
                }),
                mask: args.in_mask.map(FloatRows::new),
                dtype: op.activation_dtype,
            },
            hidden: Hidden {
                gate_bias: args.gate_bias.map(FloatRows::new),
                up_bias: args.up_bias.map(FloatRows::new),
                mask: args.mid_mask.map(FloatRows::new),
                rounding: op.rounding,
                dtype: op.activation_dtype,
            },
            output: Output {
                bias: args.down_bias.map(FloatRows::new),
                mask: args.out_mask.map(FloatRows::new),
                residual: residual.map(FloatRows::new),
                indices: args.out_indices.map(index_values),
                out: FloatRowsMut::new(&mut args.out),
            },
        };
        match strategy.kernel {
            Kernel::Stream | Kernel::StreamTiles | Kernel::Panels => {
                stream::run((v, p), &layer, strategy, workspace)
            }
            Kernel::Tiles => tiles::run((v, p), &layer, strategy, workspace),
        }
    }
}
