//! Before the second product: `n` of a batch where no other kernel makes it, and `h`.

use super::strategy::{self, MatrixTile, Strategy, Tile};
use super::{Batch, Launch, Tiled, matrices_variant, rows, whole};
use crate::backend::wgpu::registry::{gate_up_gemv, gate_up_matrices, gate_up_tile, prepare};
use crate::backend::wgpu::{Bound, Operand, PlanBuilder, Reduction, Shader};
use crate::error::Error;
use crate::ops::silu_mlp::mlp::config::MlpTensors;

const GATE_UP_GEMV: [[&Shader; 2]; 2] = [
    [&gate_up_gemv::SUBGROUP_VECTOR, &gate_up_gemv::SUBGROUP_SCALAR],
    [&gate_up_gemv::WORKGROUP_VECTOR, &gate_up_gemv::WORKGROUP_SCALAR],
];

const GATE_UP_MATRICES: [[&Shader; 2]; 3] = [
    [&gate_up_matrices::VECTOR_8_8, &gate_up_matrices::SCALAR_8_8],
    [&gate_up_matrices::VECTOR_8_32, &gate_up_matrices::SCALAR_8_32],
    [&gate_up_matrices::VECTOR_16_32, &gate_up_matrices::SCALAR_16_32],
];

/// The weights of some neurons, with the elements between rows, and the biases of all. Where there is no gate, its weight
/// is that of up.
struct Weights<'a> {
    gate: Bound<'a>,
    gate_stride: u32,
    up: Bound<'a>,
    up_stride: u32,
    gate_bias: Bound<'a>,
    up_bias: Bound<'a>,
}

impl<'a> Weights<'a> {
    fn new(
        args: &MlpTensors<Operand<'a>, Operand<'a>>,
        first: usize,
        count: usize,
    ) -> Result<Weights<'a>, Error> {
        let gate = args.gate_weight.or(args.up_weight);
        let stride = |weight: Option<Operand<'_>>| weight.map_or(0, |weight| weight.stride());
        Ok(Weights {
            gate: rows(&gate, first, count)?,
            gate_stride: stride(gate),
            up: rows(&args.up_weight, first, count)?,
            up_stride: stride(args.up_weight),
            gate_bias: whole(&args.gate_bias)?,
            up_bias: whole(&args.up_bias)?,
        })
    }
}

impl<'a> Launch<'a> {
    pub(crate) fn prepare(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
    ) -> Result<(), Error> {
        let (op, Some(n)) = (self.op, batch.n) else { return Ok(()) };
        let constants = prepare::Constants {
            threads: strategy::threads(op.hidden, self.wgpu.capabilities()),
            activation: self.activation,
            weight: self.weight,
        };
        let x = self.args.x.rows(batch.first, batch.count)?;
        let norm_weight = whole(&self.args.norm_weight)?;
        let in_indices = whole(&self.args.in_indices)?;
        let in_mask = whole(&self.args.in_mask)?;
        let parameters = prepare::Parameters {
            hidden: op.hidden as u32,
            inputs: op.inputs as u32,
            tokens: batch.count as u32,
            norm_divisor: op.norm_divisor() as u32,
            eps: op.norm.map_or(0.0, |eps| eps.0),
            x_start: x.start,
            x_stride: self.args.x.stride(),
            norm_start: norm_weight.start,
            in_indices_start: in_indices.start,
            in_mask_start: in_mask.start,
            n_start: n.start,
            n_stride: op.inputs as u32,
            has_norm: u32::from(op.norm.is_some()),
            has_mask: u32::from(op.masked),
            gathers: u32::from(op.gathers),
            norms_selection: u32::from(op.norms_selection()),
        };
        let shader = match self.reduction {
            Reduction::Subgroup => &prepare::SUBGROUP,
            Reduction::Workgroup => &prepare::WORKGROUP,
        };
        let bindings = prepare::Bindings { x, norm_weight, in_indices, in_mask, n }.into_array();
        builder.dispatch(shader, constants.values(), &parameters, bindings, batch.count as u64)
    }

    /// `h`, in as many launches as the weights need bindings.
    pub(crate) fn gate_up(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
    ) -> Result<(), Error> {
        let mut most = usize::MAX;
        for weight in [self.args.gate_weight, self.args.up_weight].into_iter().flatten() {
            most = most.min(weight.rows_per_binding()?);
        }
        for first in (0..self.op.neurons()).step_by(most) {
            let count = most.min(self.op.neurons() - first);
            match self.strategy {
                Strategy::Gemv { tokens, gate_up_threads, .. } => {
                    self.gate_up_gemv(builder, batch, first, count, [tokens, gate_up_threads])?;
                }
                _ => self.gate_up_many(builder, batch, first, count)?,
            }
        }
        Ok(())
    }

    fn gate_up_gemv(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
        first: usize,
        count: usize,
        [tokens, threads]: [u32; 2],
    ) -> Result<(), Error> {
        let args = &self.args;
        let weights = Weights::new(args, first, count)?;
        let x = args.x.rows(batch.first, batch.count)?;
        let norm_weight = whole(&args.norm_weight)?;
        let token_groups = (batch.count as u32).div_ceil(tokens);
        let neurons = if self.op.is_gated() { 4 } else { 8 };
        let workgroups = u64::from(token_groups) * (count as u64).div_ceil(neurons);
        let constants = gate_up_gemv::Constants {
            threads,
            tokens,
            gather: self.op.gathers,
            activation: self.activation,
            weight: self.weight,
        };
        let in_indices = whole(&args.in_indices)?;
        let parameters = gate_up_gemv::Parameters {
            hidden: self.op.hidden as u32,
            inputs: self.op.inputs as u32,
            neurons: count as u32,
            tokens: batch.count as u32,
            token_groups,
            workgroups: workgroups as u32,
            norm_divisor: self.op.norm_divisor() as u32,
            eps: self.op.norm.map_or(0.0, |eps| eps.0),
            x_start: x.start,
            x_stride: args.x.stride(),
            gate_start: weights.gate.start,
            gate_stride: weights.gate_stride,
            up_start: weights.up.start,
            up_stride: weights.up_stride,
            h_start: batch.h.start + first as u32,
            h_stride: self.op.ffn as u32,
            norm_start: norm_weight.start,
            in_indices_start: in_indices.start,
            gate_bias_start: weights.gate_bias.start + first as u32,
            up_bias_start: weights.up_bias.start + first as u32,
            is_gated: u32::from(self.op.is_gated()),
            has_norm: u32::from(self.op.norm.is_some()),
            norms_selection: u32::from(self.op.norms_selection()),
            has_gate_bias: u32::from(args.gate_bias.is_some()),
            has_up_bias: u32::from(args.up_bias.is_some()),
            round_each: u32::from(self.round_each),
        };
        let bindings = gate_up_gemv::Bindings {
            x,
            gate_weight: weights.gate,
            up_weight: weights.up,
            norm_weight,
            gate_bias: weights.gate_bias,
            up_bias: weights.up_bias,
            in_indices,
            h: batch.h,
        };
        let read = [Some(args.x), args.gate_weight, args.up_weight, args.norm_weight];
        let shader = self.gemv_variant(GATE_UP_GEMV, self.vector(&read));
        builder.dispatch(shader, constants.values(), &parameters, bindings.into_array(), workgroups)
    }

    /// The kernel for many tokens, which reads vectors if all that it reads allows.
    fn gate_up_tiled(&self, vector: bool) -> Tiled {
        let gated = self.op.is_gated();
        match self.strategy {
            Strategy::Gemv { .. } => unreachable!("has kernels of its own"),
            Strategy::Tile(Tile { threads_m, threads_n, depth }) => {
                let (activation, weight) = (self.activation, self.weight);
                let constants = gate_up_tile::Constants {
                    threads_m,
                    threads_n,
                    depth,
                    gated,
                    activation,
                    weight,
                };
                let shader = if vector { &gate_up_tile::VECTOR } else { &gate_up_tile::SCALAR };
                let [tokens, rows] = [4 * threads_m, 4 * threads_n];
                Tiled { tokens, rows, constants: constants.values(), shader }
            }
            Strategy::Matrices(tile) => {
                let MatrixTile { matrices, subgroups_m, subgroups_n, depth } = tile;
                let constants =
                    gate_up_matrices::Constants { subgroups_m, subgroups_n, depth, gated };
                let shader = matrices_variant(GATE_UP_MATRICES, matrices, vector);
                let [tokens, rows] = tile.extents();
                Tiled { tokens, rows, constants: constants.values(), shader }
            }
        }
    }

    fn gate_up_many(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let args = &self.args;
        let activations = if batch.n.is_some() { None } else { Some(args.x) };
        let vector = self.vector(&[activations, args.gate_weight, args.up_weight]);
        let kernel = self.gate_up_tiled(vector);
        let (token_tiles, workgroups) = kernel.launch(batch.count, count);
        let weights = Weights::new(args, first, count)?;
        // Where there is an n, the kernel reads it and leaves x alone.
        let x = match batch.n {
            Some(_) => Bound::ABSENT,
            None => args.x.rows(batch.first, batch.count)?,
        };
        let n = batch.n.unwrap_or(Bound::ABSENT);
        let mid_mask = whole(&args.mid_mask)?;
        let parameters = gate_up_tile::Parameters {
            inputs: self.op.inputs as u32,
            neurons: count as u32,
            tokens: batch.count as u32,
            token_tiles,
            workgroups: workgroups as u32,
            x_start: batch.n.map_or(x.start, |n| n.start),
            x_stride: batch.n.map_or(args.x.stride(), |_| self.op.inputs as u32),
            gate_start: weights.gate.start,
            gate_stride: weights.gate_stride,
            up_start: weights.up.start,
            up_stride: weights.up_stride,
            h_start: batch.h.start + first as u32,
            h_stride: self.op.ffn as u32,
            gate_bias_start: weights.gate_bias.start + first as u32,
            up_bias_start: weights.up_bias.start + first as u32,
            mid_mask_start: mid_mask.start + first as u32,
            has_gate_bias: u32::from(args.gate_bias.is_some()),
            has_up_bias: u32::from(args.up_bias.is_some()),
            is_prepared: u32::from(batch.n.is_some()),
            has_mask: u32::from(self.op.masked),
            has_threshold: u32::from(self.threshold.is_some()),
            round_each: u32::from(self.round_each),
            threshold: self.threshold.unwrap_or(0.0),
        };
        let bindings = gate_up_tile::Bindings {
            x,
            n,
            gate_weight: weights.gate,
            up_weight: weights.up,
            gate_bias: weights.gate_bias,
            up_bias: weights.up_bias,
            mid_mask,
            h: batch.h,
        };
        let bindings = bindings.into_array();
        builder.dispatch(kernel.shader, kernel.constants, &parameters, bindings, workgroups)
    }
}
