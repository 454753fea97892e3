//! The product that a layer starts with, by itself: a linear layer from a tensor into the workspace.

use super::strategy::Tile;
use super::{optional, stride};
use crate::backend::wgpu::registry::gru_input;
use crate::backend::wgpu::{Bound, Operand, PlanBuilder, Wgpu, dtype_code};
use crate::error::Error;
use crate::layout::HasLayout as _;

/// `x W^T + b` of the valid tokens.
pub(crate) struct Product<'a> {
    /// `[B, L, features]`, with a token at least; not in the workspace.
    pub x: Operand<'a>,
    /// `[outputs, features]`, an even number of outputs: each half takes a direction's place.
    pub weight: Operand<'a>,
    pub bias: Option<Operand<'a>>,
    /// `[B]`.
    pub lengths: Option<Operand<'a>>,
    /// `[B, L, outputs]`, f32 without gaps.
    pub out: Operand<'a>,
}

impl<'a> Product<'a> {
    /// Adds the dispatches: one for as many texts as a binding holds.
    pub fn record(&self, wgpu: &Wgpu, plan: &mut PlanBuilder<'a>) -> Result<(), Error> {
        let tile = Tile::of(wgpu.capabilities());
        let batch = self.x.layout().shape()[0];
        let most = self.x.slices_per_binding()?.min(self.out.slices_per_binding()?);
        for first in (0..batch).step_by(most) {
            self.part(tile, plan, first, most.min(batch - first))?;
        }
        Ok(())
    }

    fn part(
        &self,
        tile: Tile,
        plan: &mut PlanBuilder<'a>,
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let [x, weight] = [self.x.layout(), self.weight.layout()];
        let (steps, outputs) = (x.shape()[1], weight.shape()[0]);
        let bindings = gru_input::Bindings {
            x: self.x.slices(first, count)?,
            weight_forward: self.weight.whole()?,
            weight_reverse: self.weight.whole()?,
            bias_forward: optional(self.bias)?,
            bias_reverse: optional(self.bias)?,
            lengths: self
                .lengths
                .map_or(Ok(Bound::ABSENT), |lengths| lengths.elements(first, count))?,
            scratch: self.out.slices(first, count)?,
        };
        let constants = gru_input::Constants {
            input: dtype_code(x.dtype()),
            weight: dtype_code(weight.dtype()),
            ..gru_input::Constants::default()
        };
        let half = outputs / 2;
        let [token_tiles, row_tiles] = tile.count(count * steps, half);
        let workgroups = token_tiles as u64 * row_tiles as u64;
        let has_bias = u32::from(self.bias.is_some());
        let parameters = gru_input::Parameters {
            batch: count as u32,
            steps: steps as u32,
            features: x.columns() as u32,
            outputs: half as u32,
            token_tiles: token_tiles as u32,
            workgroups: workgroups as u32,
            has_lengths: u32::from(self.lengths.is_some()),
            stores_lengths: 0,
            has_bias_forward: has_bias,
            has_bias_reverse: has_bias,
            x_start: bindings.x.start,
            x_batch_stride: stride(&self.x, 0),
            x_token_stride: stride(&self.x, 1),
            forward_start: bindings.weight_forward.start,
            forward_stride: self.weight.stride(),
            reverse_start: bindings.weight_reverse.start + half as u32 * self.weight.stride(),
            reverse_stride: self.weight.stride(),
            bias_forward_start: bindings.bias_forward.start,
            bias_reverse_start: bindings.bias_reverse.start + half as u32,
            lengths_start: bindings.lengths.start,
            scratch_lengths_start: 0,
            scratch_gates_start: bindings.scratch.start,
        };
        let bindings = bindings.into_array();
        plan.dispatch(tile.shader(false), constants.values(), &parameters, bindings, workgroups)
    }
}
