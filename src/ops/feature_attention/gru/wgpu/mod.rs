//! A layer of a bidirectional GRU through wgpu: two dispatches for as many texts as a binding holds.

mod product;
mod strategy;

use super::scratch::GruScratch;
use super::{GruExtent, GruLayer};
use crate::backend::wgpu::registry::{gru_input, gru_recurrence};
use crate::backend::wgpu::{Bound, Operand, PlanBuilder, Wgpu, WgpuWorkspace, dtype_code};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::HasLayout as _;
pub(crate) use product::Product;
use strategy::{Recurrence, Tile};

/// Two states of each text in a tensor of more: `[.., B, h]` from outer index `first` on.
#[derive(Clone, Copy)]
pub(crate) struct States<'a> {
    pub tensor: Operand<'a>,
    pub first: usize,
    /// Whether they lie in the workspace.
    pub is_inner: bool,
}

impl<'a> States<'a> {
    /// Those of a layer in `[2 * layers, B, h]`.
    pub fn of_layer(tensor: Option<Operand<'a>>, layer: usize) -> Option<States<'a>> {
        tensor.map(|tensor| States { tensor, first: 2 * layer, is_inner: false })
    }
}

/// A layer and everything that it reads and writes.
pub(crate) struct Layer<'a> {
    pub extent: GruExtent,
    pub weights: GruLayer<Operand<'a>>,
    /// `[B, L, features]`.
    pub x: Operand<'a>,
    /// Whether that lies in the workspace.
    pub is_inner: bool,
    /// `[B]`.
    pub lengths: Option<Operand<'a>>,
    pub initial: Option<States<'a>>,
    /// `[B, L, 2h]`.
    pub out: Operand<'a>,
    pub last: Option<States<'a>>,
}

/// Some texts of the batch, and the scratch for them.
#[derive(Clone, Copy)]
struct Part<'a> {
    first: usize,
    count: usize,
    scratch: Bound<'a>,
}

impl<'a> Layer<'a> {
    /// Adds the layer's dispatches. The workspace starts with the parts that `scratch` divides it into.
    pub fn record(
        &self,
        wgpu: &'a Wgpu,
        plan: &mut PlanBuilder<'a>,
        workspace: WgpuWorkspace<'a>,
        scratch: &GruScratch,
    ) -> Result<(), Error> {
        let GruExtent { op, batch, steps, hidden, .. } = self.extent;
        let capabilities = wgpu.capabilities();
        let head = scratch.gates / size_of::<f32>();
        let row = steps * 6 * hidden;
        let memory = workspace.tensor(op, 0, &[head + batch * row], capabilities)?;
        let room = memory.elements_per_binding().saturating_sub(head);
        let mut most = (room / row.max(1)).max(1);
        if steps > 0 {
            most = most.min(self.x.slices_per_binding()?).min(self.out.slices_per_binding()?);
        }
        for first in (0..batch).step_by(most) {
            let count = most.min(batch - first);
            let part = Part { first, count, scratch: memory.elements(0, head + count * row)? };
            if steps > 0 {
                self.input(wgpu, plan, &part, head)?;
            }
            self.recurrence(wgpu, plan, &part, head)?;
        }
        Ok(())
    }

    fn input(
        &self,
        wgpu: &Wgpu,
        plan: &mut PlanBuilder<'a>,
        part: &Part<'a>,
        head: usize,
    ) -> Result<(), Error> {
        let extent = &self.extent;
        let [forward, reverse] = &self.weights;
        let bindings = gru_input::Bindings {
            x: self.x.slices(part.first, part.count)?,
            weight_forward: forward.weight_ih.whole()?,
            weight_reverse: reverse.weight_ih.whole()?,
            bias_forward: optional(forward.bias_ih)?,
            bias_reverse: optional(reverse.bias_ih)?,
            lengths: self
                .lengths
                .map_or(Ok(Bound::ABSENT), |lengths| lengths.elements(part.first, part.count))?,
            scratch: part.scratch,
        };
        let tile = Tile::of(wgpu.capabilities());
        let constants = gru_input::Constants {
            input: dtype_code(extent.activation),
            weight: dtype_code(extent.weight),
            ..gru_input::Constants::default()
        };
        let rows = 3 * extent.hidden;
        let [token_tiles, row_tiles] = tile.count(part.count * extent.steps, rows);
        let workgroups = token_tiles as u64 * row_tiles as u64;
        let parameters = gru_input::Parameters {
            batch: part.count as u32,
            steps: extent.steps as u32,
            features: extent.features as u32,
            outputs: rows as u32,
            token_tiles: token_tiles as u32,
            workgroups: u32::try_from(workgroups).unwrap_or(u32::MAX),
            has_lengths: u32::from(self.lengths.is_some()),
            stores_lengths: 1,
            has_bias_forward: u32::from(forward.bias_ih.is_some()),
            has_bias_reverse: u32::from(reverse.bias_ih.is_some()),
            x_start: bindings.x.start,
            x_batch_stride: stride(&self.x, 0),
            x_token_stride: stride(&self.x, 1),
            forward_start: bindings.weight_forward.start,
            forward_stride: forward.weight_ih.stride(),
            reverse_start: bindings.weight_reverse.start,
            reverse_stride: reverse.weight_ih.stride(),
            bias_forward_start: bindings.bias_forward.start,
            bias_reverse_start: bindings.bias_reverse.start,
            lengths_start: bindings.lengths.start,
            scratch_lengths_start: bindings.scratch.start,
            scratch_gates_start: bindings.scratch.start + head as u32,
        };
        let bindings = bindings.into_array();
        plan.dispatch(
            tile.shader(self.is_inner),
            constants.values(),
            &parameters,
            bindings,
            workgroups,
        )
    }

    fn recurrence(
        &self,
        wgpu: &Wgpu,
        plan: &mut PlanBuilder<'a>,
        part: &Part<'a>,
        head: usize,
    ) -> Result<(), Error> {
        let extent = &self.extent;
        let [forward, reverse] = &self.weights;
        let bindings = gru_recurrence::Bindings {
            scratch: part.scratch,
            weight_forward: forward.weight_hh.whole()?,
            weight_reverse: reverse.weight_hh.whole()?,
            bias_forward: optional(forward.bias_hh)?,
            bias_reverse: optional(reverse.bias_hh)?,
            initial: states(self.initial)?,
            out: match extent.steps {
                0 => Bound::ABSENT,
                _ => self.out.slices(part.first, part.count)?,
            },
            last: states(self.last)?,
        };
        let recurrence = Recurrence::of(extent.hidden, wgpu.capabilities());
        let constants = gru_recurrence::Constants {
            weight: dtype_code(extent.weight),
            ..recurrence.constants()
        };
        let workgroups = 2 * part.count.div_ceil(recurrence.rows as usize);
        let parameters = gru_recurrence::Parameters {
            workgroups: workgroups as u32,
            ..self.recurrence_parameters(part, head, &bindings)
        };
        let bindings = bindings.into_array();
        let shader = recurrence.shader(self.initial.is_some_and(|states| states.is_inner));
        plan.dispatch(shader, constants.values(), &parameters, bindings, workgroups as u64)
    }

    fn recurrence_parameters(
        &self,
        part: &Part<'a>,
        head: usize,
        bindings: &gru_recurrence::Bindings<Bound<'a>>,
    ) -> gru_recurrence::Parameters {
        let extent = &self.extent;
        let [forward, reverse] = &self.weights;
        let states_stride = |states: Option<States<'_>>, axis| {
            states.map_or(0, |states| stride(&states.tensor, axis))
        };
        // The part's first text, from the start of the tensor that holds all of them.
        let from = |states: Option<States<'_>>, bound: &Bound<'_>| {
            bound.start + part.first as u32 * states_stride(states, 1)
        };
        gru_recurrence::Parameters {
            steps: extent.steps as u32,
            hidden: extent.hidden as u32,
            workgroups: 0,
            batch: part.count as u32,
            has_bias_forward: u32::from(forward.bias_hh.is_some()),
            has_bias_reverse: u32::from(reverse.bias_hh.is_some()),
            has_initial: u32::from(self.initial.is_some()),
            has_last: u32::from(self.last.is_some()),
            out_units: words(extent.hidden, self.out.layout().dtype()),
            last_units: words(extent.hidden, states_dtype(self.last)),
            lengths_start: bindings.scratch.start,
            gates_start: bindings.scratch.start + head as u32,
            forward_start: bindings.weight_forward.start,
            forward_stride: forward.weight_hh.stride(),
            reverse_start: bindings.weight_reverse.start,
            reverse_stride: reverse.weight_hh.stride(),
            bias_forward_start: bindings.bias_forward.start,
            bias_reverse_start: bindings.bias_reverse.start,
            initial_start: from(self.initial, &bindings.initial),
            initial_direction_stride: states_stride(self.initial, 0),
            initial_batch_stride: states_stride(self.initial, 1),
            out_start: bindings.out.start,
            out_batch_stride: stride(&self.out, 0),
            out_token_stride: stride(&self.out, 1),
            last_start: from(self.last, &bindings.last),
            last_direction_stride: states_stride(self.last, 0),
            last_batch_stride: states_stride(self.last, 1),
            initial_dtype: dtype_code(states_dtype(self.initial)),
            out_dtype: dtype_code(self.out.layout().dtype()),
            last_dtype: dtype_code(states_dtype(self.last)),
        }
    }
}

/// Of an outer dimension; where it does not fit, it leads to a binding too large, or nowhere.
fn stride(operand: &Operand<'_>, axis: usize) -> u32 {
    u32::try_from(operand.layout().strides()[axis]).unwrap_or(u32::MAX)
}

fn optional<'a>(tensor: Option<Operand<'a>>) -> Result<Bound<'a>, Error> {
    tensor.map_or(Ok(Bound::ABSENT), |tensor| tensor.whole())
}

fn states<'a>(states: Option<States<'a>>) -> Result<Bound<'a>, Error> {
    states.map_or(Ok(Bound::ABSENT), |states| states.tensor.slices(states.first, 2))
}

fn states_dtype(states: Option<States<'_>>) -> DType {
    states.map_or(DType::F32, |states| states.tensor.layout().dtype())
}

/// Words that a row touches at most, wherever it starts.
fn words(columns: usize, dtype: DType) -> u32 {
    let words = if dtype == DType::F32 { columns } else { columns / 2 + 1 };
    words as u32
}
