//! Every block through wgpu: an optional preparation, then a launch for each product and part that fits a binding.

use super::config::{First, MlpConfig, MlpTensors};
use crate::arguments::Arguments as _;
use crate::backend::wgpu::{
    Bound, CooperativeMatrices, Operand, Plan, PlanBuilder, Reduction, Shader, Wgpu, WgpuTensor,
    WgpuWorkspace, check_disjoint, dtype_code,
};
use crate::dtype::DType;
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
    if op.width == 0 {
        return builder.finish();
    }
    let launch = Launch::new(wgpu, op, args, None)?;
    let most = launch.tokens_at_once()?;
    for first in (0..launch.rows).step_by(most) {
        launch.tokens(&mut builder, first, most.min(launch.rows - first), workspace)?;
    }
    builder.finish()
}

/// Everything that does not depend on which part is launched.
pub(crate) struct Launch<'a> {
    pub wgpu: &'a Wgpu,
    op: &'a MlpConfig,
    pub args: MlpTensors<Operand<'a>, Operand<'a>>,
    pub rows: usize,
    strategy: Strategy,
    pub reduction: Reduction,
    pub activation: u32,
    pub weight: u32,
    pub round_each: bool,
    /// What a neuron's activation must exceed; others are zeroed.
    threshold: Option<f32>,
}

/// One batch of tokens and the scratch memory for it.
pub(crate) struct Batch<'a> {
    pub first: usize,
    pub count: usize,
    /// What the second product reads.
    pub h: Bound<'a>,
    /// `n`, where it is not `x` and the first product does not make it by itself.
    n: Option<Bound<'a>>,
}

impl<'a> Launch<'a> {
    /// For valid tensors, with a threshold if neurons are selected by one.
    pub fn new(
        wgpu: &'a Wgpu,
        op: &'a MlpConfig,
        args: MlpTensors<WgpuTensor<'a>, WgpuTensor<'a>>,
        threshold: Option<f32>,
    ) -> Result<Launch<'a>, Error> {
        let args = operands(wgpu, op, args)?;
        let rows = args.x.layout().shape()[0];
        let shape = Shape {
            rows,
            inputs: op.inputs,
            depth: op.depth(),
            selects: op.masked || threshold.is_some(),
            halves: [op.activation_dtype, op.weight_dtype] == [DType::F16; 2],
            batch_invariant: op.batch_invariant,
        };
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
            threshold,
        })
    }

    /// How many tokens' activations fit the bindings.
    pub fn tokens_at_once(&self) -> Result<usize, Error> {
        let limit = self.wgpu.capabilities().storage_binding_bytes;
        let widest = self.op.inputs.max(self.op.ffn).max(1) * size_of::<f32>();
        let mut most = usize::try_from(limit).unwrap_or(usize::MAX) / widest;
        let tensors = [Some(self.args.x), self.args.residual, Some(self.args.out)];
        for tensor in tensors.into_iter().flatten() {
            most = most.min(tensor.rows_per_binding()?);
        }
        Ok(most.max(1))
    }

    /// Every product for `count` tokens from `first` on.
    fn tokens(
        &self,
        builder: &mut PlanBuilder<'a>,
        first: usize,
        count: usize,
        workspace: WgpuWorkspace<'a>,
    ) -> Result<(), Error> {
        let batch = self.batch(first, count, workspace)?;
        if self.op.depth() > 0 {
            self.prepare(builder, &batch)?;
            self.gate_up(builder, &batch)?;
        }
        self.down(builder, &batch)
    }

    /// So many tokens, with their scratch memory.
    pub fn batch(
        &self,
        first: usize,
        count: usize,
        workspace: WgpuWorkspace<'a>,
    ) -> Result<Batch<'a>, Error> {
        let (op, capabilities) = (self.op, self.wgpu.capabilities());
        if op.depth() == 0 {
            return Ok(Batch { first, count, h: Bound::ABSENT, n: None });
        }
        let scratch = |offset, columns| {
            workspace.tensor(op.op, offset, &[count, columns], capabilities)?.whole()
        };
        let has_first = op.first != First::Absent;
        let makes_n = has_first && matches!(self.strategy, Strategy::Gemv { .. });
        let n = if op.prepares() && !makes_n {
            let behind_h = (count * op.neurons() * size_of::<f32>()).next_multiple_of(256) as u64;
            Some(scratch(behind_h, op.inputs)?)
        } else {
            None
        };
        let h = match n {
            _ if has_first => scratch(0, op.neurons())?,
            Some(n) => n,
            None => self.args.x.rows(first, count)?,
        };
        Ok(Batch { first, count, h, n })
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
    let [down_weight, down_bias] = op.down_names();
    let residual = args.residual.or(op.scatters.then_some(args.x));
    let operands = MlpTensors {
        x: operand("x", args.x)?,
        gate_weight: optional("gate_weight", args.gate_weight)?,
        up_weight: optional("up_weight", args.up_weight)?,
        down_weight: operand(down_weight, args.down_weight)?,
        gate_bias: optional("gate_bias", args.gate_bias)?,
        up_bias: optional("up_bias", args.up_bias)?,
        down_bias: optional(down_bias, args.down_bias)?,
        norm_weight: optional("norm_weight", args.norm_weight)?,
        residual: optional("residual", residual)?,
        in_indices: optional("in_indices", args.in_indices)?,
        out_indices: optional("out_indices", args.out_indices)?,
        in_mask: optional("in_mask", args.in_mask)?,
        mid_mask: optional("mid_mask", args.mid_mask)?,
        out_mask: optional("out_mask", args.out_mask)?,
        out: operand("out", args.out)?,
    };
    let mut inputs = Vec::new();
    operands.visit(|_, operand| inputs.push(operand), |_, _| {});
    check_disjoint(&operands.out, &inputs)?;
    Ok(operands)
}

/// A kernel that takes tile by tile of many tokens, its constants, and how much it takes at once.
struct Tiled {
    tokens: u32,
    /// Rows of weights.
    rows: u32,
    constants: Vec<(&'static str, f64)>,
    shader: &'static Shader,
}

impl Tiled {
    /// Tiles along the tokens, and all of them.
    fn launch(&self, tokens: usize, rows: usize) -> (u32, u64) {
        let token_tiles = (tokens as u32).div_ceil(self.tokens);
        let row_tiles = (rows as u64).div_ceil(u64::from(self.rows));
        // Without rows there may be features to copy.
        (token_tiles, u64::from(token_tiles) * row_tiles.max(1))
    }
}

/// One of the `[[vector, scalar]; 3]` variants of a kernel by cooperative matrices: 8 by 8 for subgroups of 8, for
/// subgroups of 32, 16 by 16 for subgroups of 32.
fn matrices_variant(
    variants: [[&'static Shader; 2]; 3],
    matrices: CooperativeMatrices,
    vector: bool,
) -> &'static Shader {
    let of_size = match (matrices.size, matrices.subgroup) {
        (8, 8) => variants[0],
        (8, _) => variants[1],
        _ => variants[2],
    };
    of_size[usize::from(!vector)]
}

/// Nothing where nothing lies: an empty range cannot be bound.
pub(crate) fn whole<'a>(tensor: &Option<Operand<'a>>) -> Result<Bound<'a>, Error> {
    match tensor {
        Some(tensor) if tensor.layout().elements() > 0 => tensor.whole(),
        _ => Ok(Bound::ABSENT),
    }
}

fn rows<'a>(tensor: &Option<Operand<'a>>, first: usize, count: usize) -> Result<Bound<'a>, Error> {
    tensor.map_or(Ok(Bound::ABSENT), |tensor| tensor.rows(first, count))
}

impl Launch<'_> {
    /// Whether all of these can be read in 16-byte words.
    pub fn vector(&self, tensors: &[Option<Operand<'_>>]) -> bool {
        !self.wgpu.dispatch().scalar_loads && tensors.iter().flatten().all(Operand::is_vectorisable)
    }

    /// One of a kernel's `[subgroup, workgroup]` by `[vector, scalar]` variants.
    pub fn gemv_variant(
        &self,
        variants: [[&'static Shader; 2]; 2],
        vector: bool,
    ) -> &'static Shader {
        let reduction = match self.reduction {
            Reduction::Subgroup => variants[0],
            Reduction::Workgroup => variants[1],
        };
        reduction[usize::from(!vector)]
    }
}
