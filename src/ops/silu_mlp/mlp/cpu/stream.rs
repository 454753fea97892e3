//! Weights are streamed past the activations: a few rows, as vectors or as tiles; packed weights past any number.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use std::ops::Range;

use super::layer::{Input, Layer};
use super::strategy::{Kernel, MAX_ROWS, Strategy};
use crate::backend::cpu::Workspace;
use crate::backend::cpu::instructions::{Leaf, Vectors};
use crate::backend::cpu::parallel::{Shared, chunk, for_each_chunk};
use crate::backend::cpu::product::activations::{Activations, ActivationsMut, Arrangement};
use crate::backend::cpu::product::stream::SumRows;
use crate::backend::cpu::products::Products;
use crate::dtype::Float;

/// Rows that a thread prepares at a time.
const MAX_PREPARED: usize = 32;

pub(super) fn run<V: Vectors, P: Products<V>>(
    tokens: (V, P),
    layer: &Layer<'_, P::Weight>,
    strategy: Strategy,
    workspace: &mut Workspace,
) {
    // Few rows are one part.
    let parts = layer.rows.div_ceil(MAX_ROWS);
    let part_rows = layer.rows.div_ceil(parts);
    for part in 0..parts {
        run_part(tokens, layer, chunk(layer.rows, part_rows, part), strategy, workspace);
    }
}

fn run_part<V: Vectors, P: Products<V>>(
    tokens: (V, P),
    layer: &Layer<'_, P::Weight>,
    part: Range<usize>,
    strategy: Strategy,
    workspace: &mut Workspace,
) {
    let (rows, depth) = (part.len(), layer.down.columns());
    let (inputs, outputs) = (layer.input.columns, layer.down.rows());
    let (v, p) = tokens;
    let arrange = |columns: usize| match strategy.kernel {
        Kernel::StreamTiles => Arrangement::tiles::<V, P>(p, rows, columns),
        Kernel::Panels => Arrangement::batches::<V>(rows, columns),
        _ => Arrangement::rows(rows, columns),
    };
    let h_columns = if layer.first.is_empty() { 0 } else { depth };
    let (n_arrangement, h_arrangement) = (arrange(inputs), arrange(h_columns));
    let (n_length, h_length) = (n_arrangement.operands(), h_arrangement.operands());
    let [first_rows, second_rows] = strategy.chunk_rows;
    let first_stride = n_arrangement.sums_stride(first_rows);
    let second_stride = n_arrangement.sums_stride(second_rows);
    let sums_length = rows * (first_stride * layer.first.len()).max(second_stride);
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
        let slots = if rows > MAX_PREPARED { strategy.threads } else { 1 };
        for_each_chunk(slots, rows.div_ceil(MAX_PREPARED), &|_, index| {
            let places = chunk(rows, MAX_PREPARED, index);
            let (place, rows) = (places.start, part.start + places.start..part.start + places.end);
            p.enter(v, Prepare { v, input: &layer.input, rows, place, n: shared_n })
        });
    }
    let n = Activations::new(n, n_arrangement);

    let shared_h = ActivationsMut::new(&mut *h, h_arrangement);
    for_each_chunk(strategy.threads, h_columns.div_ceil(first_rows), &|slot, index| {
        let neurons = chunk(depth, first_rows, index);
        let (matrices, sums) = (layer.first, slot_sums(slot));
        let rows = neurons.clone();
        p.enter(v, SumRows { tokens, matrices, rows, activations: n, sums: &mut *sums });
        p.enter(v, First { v, layer, rows: part.len(), neurons, sums, h: shared_h });
    });
    let h = if layer.first.is_empty() { n } else { Activations::new(h, h_arrangement) };

    for_each_chunk(strategy.threads, layer.output.chunks(outputs, second_rows), &|slot, index| {
        let features = chunk(outputs, second_rows, index);
        let (matrices, sums) = (&[layer.down], slot_sums(slot));
        let rows = features.clone();
        p.enter(v, SumRows { tokens, matrices, rows, activations: h, sums: &mut *sums });
        let (rows, stride) = (part.clone(), h.arrangement.sums_stride(features.len()));
        p.enter(v, Second { v, layer, rows, features, sums, stride });
    });
}

/// Selects, normalises and converts some rows of activations.
pub(crate) struct Prepare<'a, V, T> {
    pub v: V,
    pub input: &'a Input<'a>,
    pub rows: Range<usize>,
    /// Where in `n` the first of them goes.
    pub place: usize,
    pub n: ActivationsMut<'a, T>,
}

impl<V: Vectors, T: Float> Leaf for Prepare<'_, V, T> {
    #[inline(always)]
    fn run(self) {
        let (v, input) = (self.v, self.input);
        for (place, row) in (self.place..).zip(self.rows) {
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
    /// How many.
    rows: usize,
    neurons: Range<usize>,
    sums: &'a [f32],
    h: ActivationsMut<'a, T>,
}

impl<V: Vectors, W: Float, T: Float> Leaf for First<'_, V, W, T> {
    #[inline(always)]
    fn run(self) {
        let First { v, layer, rows, neurons, sums, h } = self;
        let gated = layer.first.len() == 2;
        let count = neurons.len();
        let stride = h.sums_stride(count);
        for row in 0..rows {
            for at in (0..count).step_by(V::LANES) {
                let biases = layer.hidden.biases(v, neurons.start + at, gated);
                let lanes = at..count.min(at + V::LANES);
                let sum = |matrix: usize| {
                    let start = (matrix * rows + row) * stride;
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
    rows: Range<usize>,
    features: Range<usize>,
    sums: &'a [f32],
    /// From the sums of one row to the next row's.
    stride: usize,
}

impl<V: Vectors, W: Float> Leaf for Second<'_, V, W> {
    #[inline(always)]
    fn run(self) {
        let Second { v, layer, rows, features, sums, stride } = self;
        let count = features.len();
        for (place, row) in rows.enumerate() {
            let sums = &sums[place * stride..][..count];
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
