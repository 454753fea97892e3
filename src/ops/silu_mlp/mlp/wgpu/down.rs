//! The second half: the output.

use super::strategy::{Strategy, Tile};
use super::{Batch, Launch, rows, whole};
use crate::backend::wgpu::registry::{down_gemv, down_tile};
use crate::backend::wgpu::{Bound, PlanBuilder, Shader, dtype_code};
use crate::error::Error;
use crate::layout::HasLayout as _;

const DOWN_GEMV: [[&Shader; 2]; 2] = [
    [&down_gemv::SUBGROUP_VECTOR, &down_gemv::SUBGROUP_SCALAR],
    [&down_gemv::WORKGROUP_VECTOR, &down_gemv::WORKGROUP_SCALAR],
];

/// Some rows of the down projection, bound.
struct Part<'a> {
    first: usize,
    count: usize,
    down_weight: Bound<'a>,
    down_bias: Bound<'a>,
    residual: Bound<'a>,
    out: Bound<'a>,
    vector: bool,
}

impl<'a> Launch<'a> {
    /// The output, in as many launches as the weights need bindings.
    pub(super) fn down(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
    ) -> Result<(), Error> {
        let weight = self.args.down_weight;
        let empty = self.op.ffn == 0;
        let most = if empty { self.op.hidden } else { weight.rows_per_binding()? };
        for first in (0..self.op.hidden).step_by(most) {
            let count = most.min(self.op.hidden - first);
            let part = Part {
                first,
                count,
                down_weight: if empty { Bound::ABSENT } else { weight.rows(first, count)? },
                down_bias: whole(&self.args.down_bias)?,
                residual: rows(&self.args.residual, batch.first, batch.count)?,
                out: self.args.out.rows(batch.first, batch.count)?,
                vector: self.vector(&[Some(weight)]),
            };
            match self.strategy {
                Strategy::Gemv { tokens, down_threads, .. } => {
                    self.down_gemv(builder, batch, part, [tokens, down_threads])?;
                }
                Strategy::Tile(tile) => self.down_tile(builder, batch, part, tile)?,
            }
        }
        Ok(())
    }

    fn down_gemv(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
        part: Part<'a>,
        [tokens, threads]: [u32; 2],
    ) -> Result<(), Error> {
        let token_groups = (batch.count as u32).div_ceil(tokens);
        let workgroups = u64::from(token_groups) * (part.count as u64).div_ceil(4);
        let constants = down_gemv::Constants { threads, tokens, weight: self.weight };
        let parameters = down_gemv::Parameters {
            ffn: self.op.ffn as u32,
            rows: part.count as u32,
            tokens: batch.count as u32,
            token_groups,
            workgroups: workgroups as u32,
            h_start: batch.h.start,
            h_stride: self.op.ffn as u32,
            down_start: part.down_weight.start,
            down_stride: self.args.down_weight.stride(),
            bias_start: part.down_bias.start + part.first as u32,
            residual_start: part.residual.start + part.first as u32,
            residual_stride: self.args.residual.map_or(0, |residual| residual.stride()),
            out_start: part.out.start + part.first as u32,
            out_stride: self.args.out.stride(),
            has_bias: u32::from(self.args.down_bias.is_some()),
            has_residual: u32::from(self.args.residual.is_some()),
            activation: self.activation,
            out_dtype: dtype_code(self.args.out.layout().dtype()),
        };
        let bindings = down_gemv::Bindings {
            h: batch.h,
            down_weight: part.down_weight,
            down_bias: part.down_bias,
            residual: part.residual,
            out: part.out,
        };
        let shader = self.gemv_variant(DOWN_GEMV, part.vector);
        builder.dispatch(shader, constants.values(), &parameters, bindings.into_array(), workgroups)
    }

    fn down_tile(
        &self,
        builder: &mut PlanBuilder<'a>,
        batch: &Batch<'a>,
        part: Part<'a>,
        tile: Tile,
    ) -> Result<(), Error> {
        let token_tiles = (batch.count as u32).div_ceil(4 * tile.threads_m);
        let workgroups =
            u64::from(token_tiles) * (part.count as u64).div_ceil(4 * u64::from(tile.threads_n));
        let constants = down_tile::Constants {
            threads_m: tile.threads_m,
            threads_n: tile.threads_n,
            depth: tile.depth,
            weight: self.weight,
        };
        let parameters = down_tile::Parameters {
            ffn: self.op.ffn as u32,
            rows: part.count as u32,
            tokens: batch.count as u32,
            token_tiles,
            workgroups: workgroups as u32,
            h_start: batch.h.start,
            h_stride: self.op.ffn as u32,
            down_start: part.down_weight.start,
            down_stride: self.args.down_weight.stride(),
            bias_start: part.down_bias.start + part.first as u32,
            residual_start: part.residual.start + part.first as u32,
            residual_stride: self.args.residual.map_or(0, |residual| residual.stride()),
            out_start: part.out.start + part.first as u32,
            out_stride: self.args.out.stride(),
            has_bias: u32::from(self.args.down_bias.is_some()),
            has_residual: u32::from(self.args.residual.is_some()),
            activation: self.activation,
            out_dtype: dtype_code(self.args.out.layout().dtype()),
        };
        let bindings = down_tile::Bindings {
            h: batch.h,
            down_weight: part.down_weight,
            down_bias: part.down_bias,
            residual: part.residual,
            out: part.out,
        };
        let shader = if part.vector { &down_tile::VECTOR } else { &down_tile::SCALAR };
        builder.dispatch(shader, constants.values(), &parameters, bindings.into_array(), workgroups)
    }
}
