//! Layers of a bidirectional GRU on the CPU.
//!
//! The valid tokens of all texts are packed one behind the other. A layer is three parallel passes: its weights are
//! packed into panels, the input's share of every gate is one product over all tokens, and the recurrence runs every step
//! of some texts in one direction without waiting for anybody. What a text costs is what its own tokens cost.

mod edges;
mod panels;
mod product;
mod recurrence;
mod texts;
mod tile;

pub(crate) use edges::{Edges, fill};
pub(crate) use panels::{Groups, Tiling};
pub(crate) use recurrence::Output;
pub(crate) use texts::{Text, Texts};

use super::{GruDirection, GruLayer};
use crate::backend::cpu::float_rows::{FloatMatrices, FloatMatricesMut, FloatRows};
use crate::backend::cpu::instructions::{VectorJob, Vectors};
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::pieces::ChunkWork;
use crate::backend::cpu::{Cpu, Workspace};
use crate::tensor::TensorRef;
use panels::{Rows, pack, pack_bias};
use product::Product;
use recurrence::Recurrence;

/// The tiling of a CPU's instructions.
pub(crate) fn tiling(cpu: &Cpu) -> Tiling {
    struct Ask;
    impl VectorJob for Ask {
        type Output = Tiling;
        fn run<V: Vectors>(self, _: V) -> Tiling {
            Tiling::of::<V>()
        }
    }
    cpu.instructions().dispatch(Ask)
}

/// Features of every valid token, one token behind the other.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub values: &'a [f32],
    pub columns: usize,
    /// Elements between tokens.
    pub stride: usize,
}

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
    /// For `hidden` units a direction.
    pub fn new(tiling: Tiling, hidden: usize, columns: usize, texts: &Texts) -> GruExtent {
        GruExtent {
            groups: Groups { hidden, tiling },
            columns,
            texts: texts.with_tokens().len(),
            tokens: texts.tokens(),
        }
    }

    /// Panels of both weights, both biases, gates, states.
    fn sizes(&self) -> [usize; 6] {
        let groups = &self.groups;
        [
            2 * groups.row() * self.columns,
            2 * groups.row() * groups.hidden,
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

/// The input's share of a layer's gates.
pub(crate) fn project(
    cpu: &Cpu,
    weights: &GruLayer<TensorRef<'_>>,
    input: Tokens<'_>,
    scratch: &mut Scratch<'_>,
) {
    let GruExtent { groups, tokens, .. } = scratch.extent;
    let panels = &mut scratch.input_panels[..2 * groups.row() * input.columns];
    let pack = Pack {
        rows: Rows::Gates { hidden: groups.hidden },
        weights: &weights.map(|direction| direction.weight_ih),
        count: groups.count(),
        columns: input.columns,
        panels: Shared::new(panels),
    };
    cpu.run_chunks(pack.chunks(), pack);
    let biases = scratch.gate_bias.chunks_exact_mut(groups.row());
    let biases = biases.zip(scratch.new_bias.chunks_exact_mut(groups.state()));
    for (GruDirection { bias_ih, bias_hh, .. }, (gates, new)) in weights.iter().zip(biases) {
        pack_bias(&groups, [*bias_ih, *bias_hh], gates, new);
    }
    let product = Product {
        tiling: groups.tiling,
        matrices: 2,
        input: input.values,
        input_stride: input.stride,
        columns: input.columns,
        tokens,
        panels,
        count: groups.count(),
        bias: scratch.gate_bias,
        output: Shared::new(scratch.gates),
    };
    cpu.run_chunks(product.chunks(), product);
}

/// A plain product of tokens with a weight, on the same tiles.
pub(crate) struct Linear<'a> {
    pub weight: TensorRef<'a>,
    pub bias: Option<TensorRef<'a>>,
    pub tiling: Tiling,
    pub outputs: usize,
}

impl Linear<'_> {
    /// Elements of a row of output: whole panels.
    pub fn row(&self) -> usize {
        3 * self.tiling.panels(self.outputs) * self.tiling.lanes
    }

    /// Elements of scratch memory for `columns` inputs: panels and bias.
    pub fn scratch(&self, columns: usize) -> usize {
        self.row() * (columns + 1)
    }

    /// `output` has [`Linear::row`] elements a token, `scratch` [`Linear::scratch`] at least.
    pub fn run(
        &self,
        cpu: &Cpu,
        tokens: usize,
        input: Tokens<'_>,
        scratch: &mut [f32],
        output: &mut [f32],
    ) {
        let (bias, panels) = scratch[..self.scratch(input.columns)].split_at_mut(self.row());
        let pack = Pack {
            rows: Rows::Plain { outputs: self.outputs },
            weights: &[self.weight],
            count: self.tiling.panels(self.outputs),
            columns: input.columns,
            panels: Shared::new(panels),
        };
        cpu.run_chunks(pack.chunks(), pack);
        bias.fill(0.0);
        if let Some(values) = self.bias.map(FloatRows::new) {
            for (output, bias) in bias[..self.outputs].iter_mut().enumerate() {
                *bias = values.get(0, output);
            }
        }
        let product = Product {
            tiling: self.tiling,
            matrices: 1,
            input: input.values,
            input_stride: input.stride,
            columns: input.columns,
            tokens,
            panels,
            count: self.tiling.panels(self.outputs),
            bias,
            output: Shared::new(output),
        };
        cpu.run_chunks(product.chunks(), product);
    }
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
        rows: Rows::Gates { hidden: groups.hidden },
        weights: &weights.map(|direction| direction.weight_hh),
        count: groups.count(),
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

/// Packing of weights of one shape.
#[derive(Clone, Copy)]
struct Pack<'a> {
    rows: Rows,
    weights: &'a [TensorRef<'a>],
    /// Panels of each.
    count: usize,
    columns: usize,
    panels: Shared<'a, f32>,
}

impl Pack<'_> {
    fn chunks(&self) -> usize {
        self.weights.len() * self.count
    }
}

impl ChunkWork for Pack<'_> {
    #[inline(always)]
    #[allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]
    fn run<V: Vectors>(&self, v: V, _slot: usize, chunk: usize) {
        let size = 3 * V::LANES * self.columns;
        let (weight, index) = (self.weights[chunk / self.count], chunk % self.count);
        // SAFETY: each chunk has its own panel.
        let panel = unsafe { self.panels.slice(chunk * size..(chunk + 1) * size) };
        pack(v, self.rows, weight, self.columns, index, panel);
    }
}
