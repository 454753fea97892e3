//! The second product: the output.

use super::strategy::{MatrixTile, Strategy, Tile};
use super::{Batch, Launch, Tiled, matrices_variant, rows, whole};
use crate::backend::wgpu::registry::{down_gemv, down_matrices, down_tile};
use crate::backend::wgpu::{Bound, PlanBuilder, Shader, dtype_code};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::ops::silu_mlp::mlp::config::First;

const DOWN_GEMV: [[&Shader; 2]; 2] = [
    [&down_gemv::SUBGROUP_VECTOR, &down_gemv::SUBGROUP_SCALAR],
    [&down_gemv::WORKGROUP_VECTOR, &down_gemv::WORKGROUP_SCALAR],
];

const DOWN_MATRICES: [[&Shader; 2]; 3] = [
    [&down_matrices::VECTOR_8_8, &down_matrices::SCALAR_8_8],
    [&down_matrices::VECTOR_8_32, &down_matrices::SCALAR_8_32],
    [&down_matrices::VECTOR_16_32, &down_matrices::SCALAR_16_32],
];

/// Some rows of the down projection, bound.
struct Part<'a> {
    first: usize,
    count: usize,
    /// Features between the first of the tensors and that of the part's first row.
    shift: u32,
    down_weight: Bound<'a>,
    down_bias: Bound<'a>,
    residual: Bound<'a>,
    out_indices: Bound<'a>,
    out_mask: Bound<'a>,
    out: Bound<'a>,
    vector: bool,
}

impl<'a> Launch<'a> {
    /// The output, in as many launches as the weights need bindings.
    pub(crate) fn down(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
    ) -> Result<(), Error> {
        let (op, weight) = (self.op, self.args.down_weight);
        let empty = op.depth() == 0;
        // Features that no row is written to need somebody to copy them.
        let outputs = op.outputs.max(1);
        let most = if empty { outputs } else { weight.rows_per_binding()? };
        // What is scattered is told its features by index, from the first of all.
        let shift = |first: usize| if op.scatters { 0 } else { first as u32 };
        for first in (0..outputs).step_by(most) {
            let count = most.min(op.outputs - first);
            let part = Part {
                first,
                count,
                shift: shift(first),
                down_weight: if empty { Bound::ABSENT } else { weight.rows(first, count)? },
                down_bias: whole(&self.args.down_bias)?,
                residual: rows(&self.args.residual, batch.first, batch.count)?,
                out_indices: whole(&self.args.out_indices)?,
                out_mask: whole(&self.args.out_mask)?,
                out: self.args.out.rows(batch.first, batch.count)?,
                vector: self.vector(&[Some(weight), self.reads_x(batch).then_some(self.args.x)]),
            };
            match self.strategy {
                Strategy::Gemv { tokens, down_threads, .. } => {
                    self.down_gemv(builder, batch, part, [tokens, down_threads])?;
                }
                _ => self.down_many(builder, batch, part)?,
            }
        }
        Ok(())
    }

    /// Whether the product reads `x` itself.
    fn reads_x(&self, batch: &Batch<'a>) -> bool {
        self.op.first == First::Absent && batch.n.is_none() && self.op.depth() > 0
    }

    /// Type of what the product reads.
    fn input(&self, batch: &Batch<'a>) -> u32 {
        if self.reads_x(batch) { self.activation } else { dtype_code(DType::F32) }
    }

    fn input_stride(&self, batch: &Batch<'a>) -> u32 {
        if self.reads_x(batch) { self.args.x.stride() } else { self.op.depth() as u32 }
    }

    fn down_gemv(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
        part: Part<'a>,
        [tokens, threads]: [u32; 2],
    ) -> Result<(), Error> {
        let token_groups = (batch.count as u32).div_ceil(tokens);
        let workgroups = u64::from(token_groups) * (part.count as u64).div_ceil(4).max(1);
        let constants =
            down_gemv::Constants { threads, tokens, input: self.input(batch), weight: self.weight };
        let parameters = down_gemv::Parameters {
            depth: self.op.depth() as u32,
            rows: part.count as u32,
            first_row: part.first as u32,
            outputs: self.op.outputs as u32,
            width: self.op.width as u32,
            tokens: batch.count as u32,
            token_groups,
            workgroups: workgroups as u32,
            h_start: batch.h.start,
            h_stride: self.input_stride(batch),
            down_start: part.down_weight.start,
            down_stride: self.args.down_weight.stride(),
            bias_start: part.down_bias.start + part.first as u32,
            out_indices_start: part.out_indices.start + part.first as u32,
            out_mask_start: part.out_mask.start + part.first as u32,
            residual_start: part.residual.start + part.shift,
            residual_stride: self.args.residual.map_or(0, |residual| residual.stride()),
            out_start: part.out.start + part.shift,
            out_stride: self.args.out.stride(),
            has_bias: u32::from(self.args.down_bias.is_some()),
            has_residual: u32::from(self.args.residual.is_some()),
            has_mask: u32::from(self.op.masked),
            scatters: u32::from(self.op.scatters),
            activation: self.activation,
            out_dtype: dtype_code(self.args.out.layout().dtype()),
        };
        let bindings = down_gemv::Bindings {
            h: batch.h,
            down_weight: part.down_weight,
            down_bias: part.down_bias,
            residual: part.residual,
            out_indices: part.out_indices,
            out_mask: part.out_mask,
            out: part.out,
        };
        let shader = self.gemv_variant(DOWN_GEMV, part.vector);
        builder.dispatch(shader, constants.values(), &parameters, bindings.into_array(), workgroups)
    }

    /// The kernel for many tokens.
    fn down_tiled(&self, input: u32, vector: bool) -> Tiled {
        match self.strategy {
            Strategy::Gemv { .. } => unreachable!("has kernels of its own"),
            Strategy::Tile(Tile { threads_m, threads_n, depth }) => {
                let weight = self.weight;
                let constants = down_tile::Constants { threads_m, threads_n, depth, input, weight };
                let shader = if vector { &down_tile::VECTOR } else { &down_tile::SCALAR };
                let [tokens, rows] = [4 * threads_m, 4 * threads_n];
                Tiled { tokens, rows, constants: constants.values(), shader }
            }
            Strategy::Matrices(tile) => {
                let MatrixTile { matrices, subgroups_m, subgroups_n, depth } = tile;
                let constants = down_matrices::Constants { subgroups_m, subgroups_n, depth, input };
                let shader = matrices_variant(DOWN_MATRICES, matrices, vector);
                let [tokens, rows] = tile.extents();
                Tiled { tokens, rows, constants: constants.values(), shader }
            }
        }
    }

    fn down_many(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
        part: Part<'a>,
    ) -> Result<(), Error> {
        let kernel = self.down_tiled(self.input(batch), part.vector);
        let (token_tiles, workgroups) = kernel.launch(batch.count, part.count);
        let parameters = down_tile::Parameters {
            depth: self.op.depth() as u32,
            rows: part.count as u32,
            first_row: part.first as u32,
            outputs: self.op.outputs as u32,
            width: self.op.width as u32,
            tokens: batch.count as u32,
            token_tiles,
            workgroups: workgroups as u32,
            h_start: batch.h.start,
            h_stride: self.input_stride(batch),
            down_start: part.down_weight.start,
            down_stride: self.args.down_weight.stride(),
            bias_start: part.down_bias.start + part.first as u32,
            out_indices_start: part.out_indices.start + part.first as u32,
            out_mask_start: part.out_mask.start + part.first as u32,
            residual_start: part.residual.start + part.shift,
            residual_stride: self.args.residual.map_or(0, |residual| residual.stride()),
            out_start: part.out.start + part.shift,
            out_stride: self.args.out.stride(),
            has_bias: u32::from(self.args.down_bias.is_some()),
            has_residual: u32::from(self.args.residual.is_some()),
            has_mask: u32::from(self.op.masked),
            scatters: u32::from(self.op.scatters),
            activation: self.activation,
            out_dtype: dtype_code(self.args.out.layout().dtype()),
        };
        let bindings = down_tile::Bindings {
            h: batch.h,
            down_weight: part.down_weight,
            down_bias: part.down_bias,
            residual: part.residual,
            out_indices: part.out_indices,
            out_mask: part.out_mask,
            out: part.out,
        };
        let bindings = bindings.into_array();
        builder.dispatch(kernel.shader, kernel.constants, &parameters, bindings, workgroups)
    }
}
