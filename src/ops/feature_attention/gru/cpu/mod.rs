//! Layers of a bidirectional GRU on the CPU.
//!
//! The valid tokens of all texts are packed one behind the other. A layer is three parallel passes: its weights are
//! packed into panels, the input's share of every gate is one product over all tokens, and the recurrence runs every step
//! of some texts in one direction without waiting for anybody. What a text costs is what its own tokens cost.

mod panels;
mod product;
mod recurrence;
mod texts;
mod tile;

pub(crate) use panels::Groups;
pub(crate) use recurrence::Output;
pub(crate) use texts::{Text, Texts};

use super::{GruDirection, GruLayer};
use crate::backend::cpu::float_rows::{FloatMatrices, FloatMatricesMut};
use crate::backend::cpu::instructions::{VectorJob, Vectors};
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::pieces::ChunkWork;
use crate::backend::cpu::{Cpu, Workspace};
use crate::tensor::TensorRef;
use panels::{pack, pack_bias};
use product::Product;
use recurrence::Recurrence;

/// A bidirectional GRU, as far as scratch memory depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GruExtent {
    pub groups: Groups,
    /// The most features that a layer reads.
    pub columns: usize,
    pub texts: usize,
    /// Valid tokens of all texts.
    pub tokens: usize,
}

/// Memory that layers use one after the other.
pub(crate) struct Scratch<'a> {
    extent: GruExtent,
    input_panels: &'a mut [f32],
    state_panels: &'a mut [f32],
    gate_bias: &'a mut [f32],
    new_bias: &'a mut [f32],
    gates: &'a mut [f32],
    states: &'a mut [f32],
}

impl GruExtent {
    /// For `hidden` units a direction with this CPU's vectors.
    pub fn new(cpu: &Cpu, hidden: usize, columns: usize, texts: &Texts) -> GruExtent {
        struct GroupsOf(usize);
        impl VectorJob for GroupsOf {
            type Output = Groups;
            fn run<V: Vectors>(self, _: V) -> Groups {
                Groups::of::<V>(self.0)
            }
        }
        GruExtent {
            groups: cpu.instructions().dispatch(GroupsOf(hidden)),
            columns,
            texts: texts.with_tokens().len(),
            tokens: texts.tokens(),
        }
    }

    /// Panels of both weights, both biases, gates, states.
    fn sizes(&self) -> [usize; 6] {
        let groups = &self.groups;
        [
            2 * groups.panels(self.columns),
            2 * groups.panels(groups.hidden),
            2 * groups.row(),
            2 * groups.state(),
            2 * self.tokens * groups.row(),
            Recurrence::states(groups, self.texts),
        ]
    }

    pub fn bytes(&self) -> usize {
        self.sizes().into_iter().map(Workspace::bytes_for::<f32>).sum()
    }

    /// Takes [`GruExtent::bytes`].
    pub fn scratch<'a>(self, mut take: impl FnMut(usize) -> &'a mut [f32]) -> Scratch<'a> {
        let [input_panels, state_panels, gate_bias, new_bias, gates, states] =
            self.sizes().map(&mut take);
        Scratch { extent: self, input_panels, state_panels, gate_bias, new_bias, gates, states }
    }
}

/// Where a layer's states begin and end, `[2 * layers, B, h]`, and which of them are its own.
#[derive(Clone, Copy)]
pub(crate) struct States<'a> {
    pub initial: Option<FloatMatrices<'a>>,
    pub last: Option<FloatMatricesMut<'a>>,
    pub layer: usize,
}

/// The input's share of a layer's gates; `input` holds `columns` features of every valid token.
pub(crate) fn project(
    cpu: &Cpu,
    weights: &GruLayer<TensorRef<'_>>,
    input: &[f32],
    columns: usize,
    scratch: &mut Scratch<'_>,
) {
    let GruExtent { groups, tokens, .. } = scratch.extent;
    let panels = &mut scratch.input_panels[..2 * groups.panels(columns)];
    let pack = Pack {
        groups,
        weights: weights.map(|direction| direction.weight_ih),
        columns,
        panels: Shared::new(panels),
    };
    cpu.run_chunks(pack.chunks(), pack);
    let biases = scratch.gate_bias.chunks_exact_mut(groups.row());
    let biases = biases.zip(scratch.new_bias.chunks_exact_mut(groups.state()));
    for (GruDirection { bias_ih, bias_hh, .. }, (gates, new)) in weights.iter().zip(biases) {
        pack_bias(&groups, [*bias_ih, *bias_hh], gates, new);
    }
    let product = Product {
        groups,
        input,
        columns,
        tokens,
        panels,
        bias: scratch.gate_bias,
        gates: Shared::new(scratch.gates),
    };
    cpu.run_chunks(product.chunks(), product);
}

/// The recurrence of a layer whose input [`project`] has just seen.
pub(crate) fn recur(
    cpu: &Cpu,
    weights: &GruLayer<TensorRef<'_>>,
    texts: &Texts,
    states: States<'_>,
    output: Output<'_>,
    scratch: &mut Scratch<'_>,
) {
    let GruExtent { groups, tokens, .. } = scratch.extent;
    let pack = Pack {
        groups,
        weights: weights.map(|direction| direction.weight_hh),
        columns: groups.hidden,
        panels: Shared::new(scratch.state_panels),
    };
    cpu.run_chunks(pack.chunks(), pack);
    let texts = texts.with_tokens();
    let recurrence = Recurrence {
        groups,
        texts,
        tokens,
        tiles: Recurrence::tiles(&groups, texts.len(), cpu.threads()),
        panels: scratch.state_panels,
        new_bias: scratch.new_bias,
        gates: scratch.gates,
        states: Shared::new(scratch.states),
        output,
        initial: states.initial,
        last: states.last,
        layer: states.layer,
    };
    cpu.run_chunks(recurrence.chunks(), recurrence);
}

/// Packing of one weight of both directions.
#[derive(Clone, Copy)]
struct Pack<'a> {
    groups: Groups,
    weights: [TensorRef<'a>; 2],
    columns: usize,
    panels: Shared<'a, f32>,
}

impl Pack<'_> {
    fn chunks(&self) -> usize {
        2 * self.groups.count()
    }
}

impl ChunkWork for Pack<'_> {
    #[inline(always)]
    #[allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]
    fn run<V: Vectors>(&self, v: V, _slot: usize, chunk: usize) {
        let size = 3 * V::LANES * self.columns;
        let (direction, group) = (chunk / self.groups.count(), chunk % self.groups.count());
        // SAFETY: each chunk has its own panel.
        let panel = unsafe { self.panels.slice(chunk * size..(chunk + 1) * size) };
        pack(v, &self.groups, self.weights[direction], self.columns, group, panel);
    }
}
