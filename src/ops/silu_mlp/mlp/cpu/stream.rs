//! A few rows: weights are streamed past the activations, as vectors or as tiles.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use std::ops::Range;

use super::layer::{Input, Layer};
use super::strategy::{Kernel, Strategy};
use crate::backend::cpu::Workspace;
use crate::backend::cpu::instructions::{Leaf, Vectors};
use crate::backend::cpu::parallel::{Shared, chunk, for_each_chunk};
use crate::backend::cpu::product::activations::{Activations, ActivationsMut, Arrangement};
use crate::backend::cpu::product::stream::SumRows;
use crate::backend::cpu::products::Products;
use crate::dtype::Float;

pub(super) fn run<V: Vectors, P: Products<V>>(
    tokens: (V, P),
    layer: &Layer<'_, P::Weight>,
    strategy: Strategy,
    workspace: &mut Workspace,
) {
    let (rows, depth) = (layer.rows, layer.down.columns());
    let (inputs, outputs) = (layer.input.columns, layer.down.rows());
    let (v, p) = tokens;
    let arrange = |columns: usize| match strategy.kernel {
        Kernel::StreamTiles => Arrangement::tiles::<V, P>(p, rows, columns),
        _ => Arrangement::rows(rows, columns),
    };
    let h_columns = if layer.first.is_empty() { 0 } else { depth };
    let (n_arrangement, h_arrangement) = (arrange(inputs), arrange(h_columns));
    let (n_length, h_length) = (n_arrangement.operands(), h_arrangement.operands());
    let [first_rows, second_rows] = strategy.chunk_rows;
    let sums_length = rows * (first_rows * layer.first.len()).max(second_rows);
    let mut arena = workspace.reserve(
        Workspace::bytes_for::<P::Operand>(n_length)
            + Workspace::bytes_for::<P::Operand>(h_length)
            + Workspace::bytes_for::<f32>(sums_length * strategy.threads),
    );
    let (n, h) = (arena.take(n_length), arena.take(h_length));
    let sums = Shared::new(arena.take(sums_length * strategy.threads));
    // SAFETY: a slot's chunks run one after another, and nobody else uses its sums.
    let slot_sums =
        |slot: usize| unsafe { sums.slice(slot * sums_length..(slot + 1) * sums_length) };

    let shared_n = ActivationsMut::new(&mut *n, n_arrangement);
    if depth > 0 {
        for_each_chunk(1, 1, &|_, _| {
            p.enter(v, Prepare { v, input: &layer.input, rows: 0..rows, n: shared_n })
        });
    }
    let n = Activations::new(n, n_arrangement);

    let shared_h = ActivationsMut::new(&mut *h, h_arrangement);
    for_each_chunk(strategy.threads, h_columns.div_ceil(first_rows), &|slot, index| {
        let neurons = chunk(depth, first_rows, index);
        let (matrices, sums) = (layer.first, slot_sums(slot));
        let rows = neurons.clone();
        p.enter(v, SumRows { tokens, matrices, rows, activations: n, sums: &mut *sums });
        p.enter(v, First { v, layer, neurons, sums, h: shared_h });
    });
    let h = if layer.first.is_empty() { n } else { Activations::new(h, h_arrangement) };

    for_each_chunk(strategy.threads, layer.output.chunks(outputs, second_rows), &|slot, index| {
        let features = chunk(outputs, second_rows, index);
        let (matrices, sums) = (&[layer.down], slot_sums(slot));
        let rows = features.clone();
        p.enter(v, SumRows { tokens, matrices, rows, activations: h, sums: &mut *sums });
        p.enter(v, Second { v, layer, features, sums });
    });
}

/// Selects, normalises and converts some rows of activations.
pub(crate) struct Prepare<'a, V, T> {
    pub v: V,
    pub input: &'a Input<'a>,
    pub rows: Range<usize>,
    /// From the first of these rows on.
    pub n: ActivationsMut<'a, T>,
}

impl<V: Vectors, T: Float> Leaf for Prepare<'_, V, T> {
    #[inline(always)]
    fn run(self) {
        let (v, input) = (self.v, self.input);
        for (place, row) in self.rows.enumerate() {
            let scale = input.scale(v, row);
            for column in (0..input.columns).step_by(V::LANES) {
                let vector = input.load(v, row, column, scale);
                // SAFETY: nothing else runs meanwhile.
                unsafe { self.n.store(v, vector, place, column) };
            }
        }
    }
}

/// `h` of some neurons.
struct First<'a, V, W, T> {
    v: V,
    layer: &'a Layer<'a, W>,
    neurons: Range<usize>,
    sums: &'a [f32],
    h: ActivationsMut<'a, T>,
}

impl<V: Vectors, W: Float, T: Float> Leaf for First<'_, V, W, T> {
    #[inline(always)]
    fn run(self) {
        let First { v, layer, neurons, sums, h } = self;
        let gated = layer.first.len() == 2;
        let count = neurons.len();
        for row in 0..layer.rows {
            for at in (0..count).step_by(V::LANES) {
                let biases = layer.hidden.biases(v, neurons.start + at, gated);
                let lanes = at..count.min(at + V::LANES);
                let sum = |matrix: usize| {
                    let start = (matrix * layer.rows + row) * count;
                    v.add(v.load_slice(&sums[start..][lanes.clone()]), biases[matrix])
                };
                let factors = layer.hidden.factors(v, neurons.start + at);
                let vector = if gated {
                    layer.hidden.activate(v, &[sum(0), sum(1)], factors)
                } else {
                    layer.hidden.activate(v, &[sum(0)], factors)
                };
                // SAFETY: these neurons, and the padding behind the last, belong to this chunk.
                unsafe { h.store(v, vector, row, neurons.start + at) };
            }
        }
    }
}

/// The output's columns of some features.
struct Second<'a, V, W> {
    v: V,
    layer: &'a Layer<'a, W>,
    features: Range<usize>,
    sums: &'a [f32],
}

impl<V: Vectors, W: Float> Leaf for Second<'_, V, W> {
    #[inline(always)]
    fn run(self) {
        let Second { v, layer, features, sums } = self;
        let count = features.len();
        for row in 0..layer.rows {
            let sums = &sums[row * count..][..count];
            // SAFETY: these features belong to this chunk.
            unsafe { layer.output.copy_residual(v, row, &features) };
            for at in (0..count).step_by(V::LANES) {
                let vector = v.load_slice(&sums[at..]);
                // SAFETY: these features belong to this chunk.
                unsafe { layer.output.finish(v, vector, row, features.start + at, count - at) };
            }
        }
    }
}
