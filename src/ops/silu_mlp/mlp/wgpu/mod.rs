//! The MLPs through wgpu: an optional norm, then two launches for each part that fits a binding.

use super::config::{MlpConfig, MlpTensors};
use crate::backend::wgpu::{
    Bound, Operand, Plan, PlanBuilder, Reduction, Shader, Wgpu, WgpuTensor, WgpuWorkspace,
    check_disjoint, dtype_code,
};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::ops::silu_mlp::Rounding;

mod down;
mod gate_up;
pub(crate) mod strategy;

use strategy::{Shape, Strategy};

pub(crate) fn plan(
    wgpu: &Wgpu,
    op: &MlpConfig,
    args: MlpTensors<WgpuTensor<'_>, WgpuTensor<'_>>,
    workspace: WgpuWorkspace<'_>,
) -> Result<Plan, Error> {
    op.validate(&args.layouts())?;
    let mut builder = PlanBuilder::new(wgpu, op.op);
    let launch = Launch::new(wgpu, op, args)?;
    let most = launch.tokens_at_once()?;
    for first in (0..launch.rows).step_by(most) {
        launch.tokens(&mut builder, first, most.min(launch.rows - first), workspace)?;
    }
    builder.finish()
}

/// Everything that does not depend on which part is launched.
struct Launch<'a> {
    wgpu: &'a Wgpu,
    op: &'a MlpConfig,
    args: MlpTensors<Operand<'a>, Operand<'a>>,
    rows: usize,
    strategy: Strategy,
    reduction: Reduction,
    activation: u32,
    weight: u32,
    round_each: bool,
}

/// One batch of tokens and the scratch memory for it.
struct Batch<'a> {
    first: usize,
    count: usize,
    h: Bound<'a>,
    n: Option<Bound<'a>>,
}

impl<'a> Launch<'a> {
    fn new(
        wgpu: &'a Wgpu,
        op: &'a MlpConfig,
        args: MlpTensors<WgpuTensor<'a>, WgpuTensor<'a>>,
    ) -> Result<Launch<'a>, Error> {
        let args = operands(wgpu, op, args)?;
        let rows = args.x.layout().shape()[0];
        let shape =
            Shape { rows, hidden: op.hidden, ffn: op.ffn, batch_invariant: op.batch_invariant };
        Ok(Launch {
            wgpu,
            op,
            args,
            rows,
            strategy: strategy::strategy(shape, wgpu.capabilities(), &wgpu.dispatch()),
            reduction: strategy::reduction(wgpu.capabilities(), &wgpu.dispatch()),
            activation: dtype_code(op.activation_dtype),
            weight: dtype_code(op.weight_dtype),
            round_each: op.rounding == Rounding::RoundGateUp,
        })
    }

    /// How many tokens' activations fit the bindings.
    fn tokens_at_once(&self) -> Result<usize, Error> {
        let limit = self.wgpu.capabilities().storage_binding_bytes;
        let widest = self.op.hidden.max(self.op.ffn) * size_of::<f32>();
        let mut most = usize::try_from(limit).unwrap_or(usize::MAX) / widest;
        let tensors = [Some(self.args.x), self.args.residual, Some(self.args.out)];
        for tensor in tensors.into_iter().flatten() {
            most = most.min(tensor.rows_per_binding()?);
        }
        Ok(most.max(1))
    }

    /// Both projections for `count` tokens from `first` on.
    fn tokens(
        &self,
        builder: &mut PlanBuilder<'a>,
        first: usize,
        count: usize,
        workspace: WgpuWorkspace<'a>,
    ) -> Result<(), Error> {
        let (op, capabilities) = (self.op, self.wgpu.capabilities());
        if op.ffn == 0 {
            return self.down(builder, &Batch { first, count, h: Bound::ABSENT, n: None });
        }
        let scratch = |offset, columns| {
            workspace.tensor(op.op, offset, &[count, columns], capabilities)?.whole()
        };
        let h = scratch(0, op.ffn)?;
        let n = match (self.strategy, self.args.norm_weight) {
            (Strategy::Tile(_), Some(_)) => {
                let behind_h = (count * op.ffn * size_of::<f32>()).next_multiple_of(256) as u64;
                Some(scratch(behind_h, op.hidden)?)
            }
            _ => None,
        };
        let batch = Batch { first, count, h, n };
        self.norm(builder, &batch)?;
        self.gate_up(builder, &batch)?;
        self.down(builder, &batch)
    }
}

/// Checks the buffers.
fn operands<'a>(
    wgpu: &Wgpu,
    op: &MlpConfig,
    args: MlpTensors<WgpuTensor<'a>, WgpuTensor<'a>>,
) -> Result<MlpTensors<Operand<'a>, Operand<'a>>, Error> {
    let operand = |name, tensor| Operand::new(op.op, name, tensor, wgpu.capabilities());
    let optional = |name, tensor: Option<WgpuTensor<'a>>| {
        tensor.map(|tensor| operand(name, tensor)).transpose()
    };
    let operands = MlpTensors {
        x: operand("x", args.x)?,
        gate_weight: optional("gate_weight", args.gate_weight)?,
        up_weight: operand("up_weight", args.up_weight)?,
        down_weight: operand("down_weight", args.down_weight)?,
        gate_bias: optional("gate_bias", args.gate_bias)?,
        up_bias: optional("up_bias", args.up_bias)?,
        down_bias: optional("down_bias", args.down_bias)?,
        norm_weight: optional("norm_weight", args.norm_weight)?,
        residual: optional("residual", args.residual)?,
        out: operand("out", args.out)?,
    };
    let inputs = [
        Some(operands.x),
        operands.gate_weight,
        Some(operands.up_weight),
        Some(operands.down_weight),
        operands.gate_bias,
        operands.up_bias,
        operands.down_bias,
        operands.norm_weight,
        operands.residual,
    ];
    let inputs: Vec<_> = inputs.into_iter().flatten().collect();
    check_disjoint(&operands.out, &inputs)?;
    Ok(operands)
}

fn whole<'a>(tensor: &Option<Operand<'a>>) -> Result<Bound<'a>, Error> {
    tensor.map_or(Ok(Bound::ABSENT), |tensor| tensor.whole())
}

fn rows<'a>(tensor: &Option<Operand<'a>>, first: usize, count: usize) -> Result<Bound<'a>, Error> {
    tensor.map_or(Ok(Bound::ABSENT), |tensor| tensor.rows(first, count))
}

impl Launch<'_> {
    /// Whether all of these can be read in 16-byte words.
    fn vector(&self, tensors: &[Option<Operand<'_>>]) -> bool {
        !self.wgpu.dispatch().scalar_loads && tensors.iter().flatten().all(Operand::is_vectorisable)
    }

    /// One of a kernel's `[subgroup, workgroup]` by `[vector, scalar]` variants.
    fn gemv_variant(&self, variants: [[&'static Shader; 2]; 2], vector: bool) -> &'static Shader {
        let reduction = match self.reduction {
            Reduction::Subgroup => variants[0],
            Reduction::Workgroup => variants[1],
        };
        reduction[usize::from(!vector)]
    }
}
