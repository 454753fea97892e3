//! Many rows: weights are copied in blocks and multiplied with packed activations.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use std::ops::Range;

use super::layer::Layer;
use super::strategy::{MAX_ROWS, Strategy};
use crate::backend::cpu::Workspace;
use crate::backend::cpu::instructions::{Leaf, MAX_LANES, Vectors};
use crate::backend::cpu::parallel::{Shared, chunk, for_each_chunk};
use crate::backend::cpu::product::tiles::{Multiply, Packing, ROW_UNIT, Scratch};
use crate::backend::cpu::products::Products;
use crate::backend::cpu::rms_norm::Scale;
use crate::dtype::Float;

/// Columns of a few rows that are packed at a time.
const PACK_COLUMNS: usize = 64;

pub(super) fn run<V: Vectors, P: Products<V>>(
    tokens: (V, P),
    layer: &Layer<'_, P::Weight>,
    strategy: Strategy,
    workspace: &mut Workspace,
) {
    let parts = layer.rows.div_ceil(MAX_ROWS);
    let part_rows = layer.rows.div_ceil(parts).next_multiple_of(V::TILE_VECTORS * V::LANES);
    for part in 0..parts {
        let rows = chunk(layer.rows, part_rows, part);
        if !rows.is_empty() {
            run_part(tokens, layer, rows, strategy, workspace);
        }
    }
}

fn run_part<V: Vectors, P: Products<V>>(
    tokens: (V, P),
    layer: &Layer<'_, P::Weight>,
    rows: Range<usize>,
    strategy: Strategy,
    workspace: &mut Workspace,
) {
    let (outputs, depth) = (layer.down.rows(), layer.down.columns());
    let h_columns = if layer.first.is_empty() { 0 } else { depth };
    let (v, p) = tokens;
    let n_packing = Packing::new::<V, P>(p, rows.len(), layer.input.columns);
    let h_packing = Packing::new::<V, P>(p, rows.len(), h_columns);
    let (sums_length, panel_length) = (n_packing.sums(), Packing::panels::<V, P>(p));
    let mut arena = workspace.reserve(
        Workspace::bytes_for::<P::Operand>(n_packing.operands())
            + Workspace::bytes_for::<P::Operand>(h_packing.operands())
            + Workspace::bytes_for::<f32>(sums_length * strategy.threads)
            + Workspace::bytes_for::<P::Operand>(panel_length * strategy.threads),
    );
    let (n, h) = (arena.take(n_packing.operands()), arena.take(h_packing.operands()));
    let sums = Shared::new(arena.take(sums_length * strategy.threads));
    let panels = Shared::new(arena.take(panel_length * strategy.threads));
    // SAFETY: a slot's chunks run one after another, and nobody else uses its scratch memory.
    let scratch = |slot: usize| unsafe {
        Scratch {
            sums: sums.slice(slot * sums_length..(slot + 1) * sums_length),
            panels: panels.slice(slot * panel_length..(slot + 1) * panel_length),
        }
    };
    let [first_rows, second_rows] = strategy.chunk_rows;

    let shared_n = Shared::new(&mut *n);
    let vectors = if depth == 0 { 0 } else { n_packing.padded_rows() / V::LANES };
    for_each_chunk(strategy.threads, vectors, &|_, index| {
        let start = rows.start;
        p.enter(
            v,
            Pack { tokens, layer, start, lane: index * V::LANES, packing: n_packing, n: shared_n },
        );
    });
    let n = (n_packing, &*n);

    let shared_h = (h_packing, Shared::new(&mut *h));
    for_each_chunk(strategy.threads, h_columns.div_ceil(first_rows), &|slot, index| {
        let neurons = chunk(depth, first_rows, index);
        let (matrices, rows) = (layer.first, neurons.clone());
        let mut scratch = scratch(slot);
        p.enter(v, Multiply { tokens, matrices, rows, activations: n, scratch: &mut scratch });
        p.enter(v, First { tokens, layer, neurons, sums: scratch.sums, h: shared_h });
    });
    let h = if layer.first.is_empty() { n } else { (h_packing, &*h) };

    let chunks = layer.output.chunks(outputs, second_rows);
    for_each_chunk(strategy.threads, chunks, &|slot, index| {
        let (features, start) = (chunk(outputs, second_rows, index), rows.start);
        let (matrices, activations, rows) = (&[layer.down], h, features.clone());
        let mut scratch = scratch(slot);
        p.enter(v, Multiply { tokens, matrices, rows, activations, scratch: &mut scratch });
        p.enter(v, Second { v, layer, features, start, packing: h.0, sums: scratch.sums });
    });
}

/// Selects, normalises, converts and packs one vector of rows.
struct Pack<'a, V: Vectors, P: Products<V>> {
    tokens: (V, P),
    layer: &'a Layer<'a, P::Weight>,
    /// First row of the part.
    start: usize,
    /// First row of the vector, within the part.
    lane: usize,
    packing: Packing,
    n: Shared<'a, P::Operand>,
}

impl<V: Vectors, P: Products<V>> Leaf for Pack<'_, V, P> {
    #[inline(always)]
    fn run(self) {
        let Pack { tokens: (v, _), layer, start, lane, packing, n } = self;
        let zero: P::Operand = bytemuck::Zeroable::zeroed();
        let columns = packing.columns();
        let count = V::LANES.min(packing.rows() - lane);
        let mut scales = [Scale::ONE; MAX_LANES];
        for (index, scale) in scales[..count].iter_mut().enumerate() {
            *scale = layer.input.scale(v, start + lane + index);
        }
        // Rows beyond the last stay zero.
        let mut buffer = [[zero; PACK_COLUMNS]; MAX_LANES];
        for first in (0..columns).step_by(PACK_COLUMNS) {
            let width = PACK_COLUMNS.min(columns - first);
            for (index, buffer) in buffer[..count].iter_mut().enumerate() {
                let row = start + lane + index;
                for at in (0..width).step_by(V::LANES) {
                    let vector = layer.input.load(v, row, first + at, scales[index]);
                    v.store_slice(vector, &mut buffer[at..at + V::LANES]);
                }
                buffer[width..].fill(zero);
            }
            for at in (0..PACK_COLUMNS.min(packing.padded_columns() - first)).step_by(P::GROUP) {
                let offset = packing.offset(lane, first + at);
                // SAFETY: this vector's rows belong to this chunk.
                let groups = unsafe { n.slice(offset..offset + P::STEP) };
                for (group, buffer) in groups.chunks_exact_mut(P::GROUP).zip(&buffer) {
                    group.copy_from_slice(&buffer[at..at + P::GROUP]);
                }
            }
        }
    }
}

/// `h` of some neurons.
struct First<'a, V: Vectors, P: Products<V>> {
    tokens: (V, P),
    layer: &'a Layer<'a, P::Weight>,
    neurons: Range<usize>,
    sums: &'a [f32],
    h: (Packing, Shared<'a, P::Operand>),
}

impl<V: Vectors, P: Products<V>> Leaf for First<'_, V, P> {
    #[inline(always)]
    fn run(self) {
        let First { tokens: (v, p), layer, neurons, sums, h: (packing, h) } = self;
        let gated = layer.first.len() == 2;
        let stride = packing.sums_stride();
        let second = neurons.len().next_multiple_of(ROW_UNIT) * stride;
        let is_last = neurons.end == packing.columns();
        let end = if is_last { packing.padded_columns() } else { neurons.end } - neurons.start;
        for group in (0..end).step_by(P::GROUP) {
            let count = P::GROUP.min(neurons.len().saturating_sub(group));
            let mut biases = [[v.splat(0.0); 2]; 2];
            let mut factors = [None; 2];
            for index in 0..count {
                let neuron = neurons.start + group + index;
                biases[index] = layer.hidden.splat_biases(v, neuron, gated);
                factors[index] = layer.hidden.splat_factor(v, neuron);
            }
            for lane in (0..packing.padded_rows()).step_by(V::LANES) {
                let mut values = [v.splat(0.0); 2];
                for index in 0..count {
                    let at = (group + index) * stride + lane;
                    let first = v.add(v.load_slice(&sums[at..]), biases[index][0]);
                    values[index] = if gated {
                        let up = v.load_slice(&sums[second + at..]);
                        let up = v.add(up, biases[index][1]);
                        layer.hidden.activate(v, &[first, up], factors[index])
                    } else {
                        layer.hidden.activate(v, &[first], factors[index])
                    };
                }
                let offset = packing.offset(lane, neurons.start + group);
                // SAFETY: these neurons belong to this chunk, which starts with a whole group.
                unsafe {
                    p.store_groups(v, values, h.slice(offset..offset + P::STEP).as_mut_ptr())
                };
            }
        }
    }
}

/// The output's columns of some features.
struct Second<'a, V, W> {
    v: V,
    layer: &'a Layer<'a, W>,
    features: Range<usize>,
    /// First row of the part.
    start: usize,
    packing: Packing,
    sums: &'a [f32],
}

impl<V: Vectors, W: Float> Leaf for Second<'_, V, W> {
    #[inline(always)]
    fn run(self) {
        let Second { v, layer, features, start, packing, sums } = self;
        let stride = packing.sums_stride();
        for row in 0..packing.rows() {
            // SAFETY: these features belong to this chunk.
            unsafe { layer.output.copy_residual(v, start + row, &features) };
            for at in (0..features.len()).step_by(V::LANES) {
                let count = V::LANES.min(features.len() - at);
                let mut lanes = [0f32; MAX_LANES];
                for (index, lane) in lanes[..count].iter_mut().enumerate() {
                    *lane = sums[(at + index) * stride + row];
                }
                let vector = v.load_slice(&lanes);
                let column = features.start + at;
                // SAFETY: these features belong to this chunk.
                unsafe { layer.output.finish(v, vector, start + row, column, count) };
            }
        }
    }
}
