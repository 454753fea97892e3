//! `sparse_gated_mlp` on the CPU: the rows of weights that a token's neurons have, and no others.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

mod last;
mod neurons;

use std::ops::Range;

use last::{AddRows, Finish, Survivors};
use neurons::{Activate, Select};

use super::{NeuronLists, SparseGatedMlp, SparseGatedMlpArgs};
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::{Shared, chunk, for_each_chunk};
use crate::backend::cpu::product::Matrix;
use crate::backend::cpu::product::activations::{
    Activations, ActivationsMut, Arrangement, row_stride,
};
use crate::backend::cpu::product::stream::{SumRows, SumSelected};
use crate::backend::cpu::products::{self, ProductJob, Products};
use crate::backend::cpu::{Cpu, Workspace};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::silu_mlp::mlp::cpu::layer::{Hidden, Input, Norm, Output};
use crate::ops::silu_mlp::mlp::cpu::strategy::stream_rows;
use crate::ops::silu_mlp::mlp::cpu::stream::Prepare;
use crate::tensor::{TensorMut, TensorRef};

/// Tokens that are done together: weights that several of them select come from the cache.
const BATCH_TOKENS: usize = 16;
/// Most columns of the output that a thread sums at a time from rows of down weights.
const MAX_COLUMNS: usize = 1024;
/// Columns are cut at whole cache lines of weights.
const COLUMN_UNIT: usize = 64;

impl Cpu {
    /// [`SparseGatedMlp`] on the CPU: the SwiGLU block on the neurons that each token selects.
    ///
    /// `workspace` grows once to what this shape needs, and is reused. A row's result does not depend on its batch.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, or the first list or neuron that is out of range or out of order; `out` is
    /// then untouched.
    pub fn sparse_gated_mlp(
        &self,
        op: &SparseGatedMlp,
        args: SparseGatedMlpArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        let layouts = args.layouts();
        op.validate(&layouts)?;
        op.validate_values(&args.inputs())?;
        let threads = self.threads_for((op.cost(&layouts).flops / 2) as usize);
        let config = op.config;
        let job = SparseJob { op, args, workspace, threads };
        let dispatch = || {
            products::dispatch(
                self.instructions(),
                config.activation_dtype,
                config.weight_dtype,
                job,
            )
        };
        if threads > 1 {
            self.enter(dispatch)
        } else {
            dispatch()
        }
        Ok(())
    }
}

struct SparseJob<'a> {
    op: &'a SparseGatedMlp,
    args: SparseGatedMlpArgs<TensorRef<'a>, TensorMut<'a>>,
    workspace: &'a mut Workspace,
    threads: usize,
}

impl ProductJob for SparseJob<'_> {
    type Output = ();

    fn run<V: Vectors, P: Products<V>>(self, v: V, p: P) {
        let SparseJob { op, mut args, workspace, threads } = self;
        let config = &op.config;
        let rows = args.x.layout().shape()[0];
        let lists = NeuronLists::new(&args);
        let block = Block {
            tokens: (v, p),
            op,
            threads,
            gate: Matrix::new(args.gate_weight),
            up: Matrix::new(args.up_weight),
            down: Matrix::new(args.down_weight),
            lists,
            input: Input {
                x: FloatRows::new(args.x),
                columns: op.hidden(),
                indices: None,
                norm: config.norm.zip(args.norm_weight).map(|(eps, weight)| Norm {
                    eps,
                    weight: FloatRows::new(weight),
                    features: op.hidden(),
                    of_selection: false,
                    divisor: op.hidden(),
                }),
                mask: None,
                dtype: config.activation_dtype,
            },
            hidden: Hidden {
                gate_bias: None,
                up_bias: None,
                mask: None,
                rounding: config.rounding,
                dtype: config.activation_dtype,
            },
            output: Output {
                bias: None,
                mask: None,
                residual: args.residual.map(FloatRows::new),
                indices: None,
                out: FloatRowsMut::new(&mut args.out),
            },
        };
        for first in (0..rows).step_by(BATCH_TOKENS) {
            block.batch(first..rows.min(first + BATCH_TOKENS), workspace);
        }
    }
}

/// The tensors, ready for the kernels.
struct Block<'a, V: Vectors, P: Products<V>> {
    tokens: (V, P),
    op: &'a SparseGatedMlp,
    threads: usize,
    gate: Matrix<'a, P::Weight>,
    up: Matrix<'a, P::Weight>,
    down: Matrix<'a, P::Weight>,
    lists: Option<NeuronLists<'a>>,
    input: Input<'a>,
    hidden: Hidden<'a>,
    output: Output<'a>,
}

/// A thread's own buffers for some neurons.
struct Scratch<'a> {
    /// `[row][neuron]`, or of the selected neurons of one row.
    gates: &'a mut [f32],
    ups: &'a mut [f32],
    selected: &'a mut [u32],
}

impl<V: Vectors, P: Products<V>> Block<'_, V, P> {
    fn batch(&self, rows: Range<usize>, workspace: &mut Workspace) {
        let (count, [hidden, ffn]) = (rows.len(), [self.op.hidden(), self.op.ffn()]);
        let row_bytes = hidden * size_of::<P::Weight>();
        let part = stream_rows(ffn, row_bytes, self.threads);
        let n_arrangement = Arrangement::rows(count, hidden);
        let h_arrangement = Arrangement::rows(count, ffn);
        let (n_length, h_length) = (n_arrangement.operands(), h_arrangement.operands());
        let sums = count * part.max(self.last_part());
        let mut arena = workspace.reserve(
            Workspace::bytes_for::<P::Operand>(n_length)
                + Workspace::bytes_for::<P::Operand>(h_length)
                + Workspace::bytes_for::<f32>(sums * self.threads)
                + Workspace::bytes_for::<f32>(part * self.threads)
                + Workspace::bytes_for::<u32>(part * self.threads)
                + 2 * Workspace::bytes_for::<f32>(count * ffn),
        );
        let (n, h) = (arena.take(n_length), arena.take(h_length));
        let gates = Shared::new(arena.take(sums * self.threads));
        let ups = Shared::new(arena.take(part * self.threads));
        let selected = Shared::new(arena.take(part * self.threads));
        let survivors = Survivors {
            neurons: arena.take(count * ffn),
            factors: arena.take(count * ffn),
            counts: [0; BATCH_TOKENS],
            ffn,
        };
        let (v, p) = self.tokens;

        let shared_n = ActivationsMut::new(&mut *n, n_arrangement);
        for_each_chunk(1, 1, &|_, _| {
            let (input, rows) = (&self.input, rows.clone());
            p.enter(v, Prepare { v, input, rows, place: 0, n: shared_n });
        });
        let n = Activations::new(n, n_arrangement);
        let shared_h = Shared::new(&mut *h);
        for_each_chunk(self.threads, ffn.div_ceil(part), &|slot, index| {
            // SAFETY: a slot's chunks run one after another, and nobody else uses its buffers.
            let scratch = unsafe {
                Scratch {
                    gates: gates.slice(slot * sums..(slot + 1) * sums),
                    ups: ups.slice(slot * part..(slot + 1) * part),
                    selected: selected.slice(slot * part..(slot + 1) * part),
                }
            };
            self.neurons(rows.clone(), chunk(ffn, part, index), n, scratch, shared_h);
        });
        if self.op.transposed_down {
            self.add_rows(rows, &survivors.of(h), gates, sums);
        } else {
            self.sum_rows(rows, Activations::new(h, h_arrangement), gates, sums);
        }
    }

    /// Rows, or columns, of down weights that a thread takes at a time.
    fn last_part(&self) -> usize {
        let [hidden, ffn] = [self.op.hidden(), self.op.ffn()];
        if self.op.transposed_down {
            hidden.div_ceil(self.threads).next_multiple_of(COLUMN_UNIT).min(MAX_COLUMNS)
        } else {
            stream_rows(hidden, ffn * size_of::<P::Weight>(), self.threads)
        }
    }

    /// `h` of some neurons, zeros where they are not selected.
    fn neurons(
        &self,
        rows: Range<usize>,
        neurons: Range<usize>,
        n: Activations<'_, P::Operand>,
        scratch: Scratch<'_>,
        h: Shared<'_, P::Operand>,
    ) {
        let (tokens @ (v, p), ffn) = (self.tokens, self.op.ffn());
        let stride = row_stride(ffn);
        let Scratch { gates, ups, selected } = scratch;
        let threshold = self.op.threshold();
        if threshold.is_some() {
            let (matrices, rows) = (&[self.gate], neurons.clone());
            p.enter(v, SumRows { tokens, matrices, rows, activations: n, sums: &mut *gates });
        }
        for (place, row) in rows.enumerate() {
            // SAFETY: these neurons, and the padding behind the last, belong to this chunk.
            let h = unsafe {
                let end = if neurons.end == ffn { stride } else { neurons.end };
                h.slice(place * stride + neurons.start..place * stride + end)
            };
            h.fill(bytemuck::Zeroable::zeroed());
            let first = place * neurons.len();
            let (gates, chosen) = match (threshold, self.lists) {
                (None, Some(lists)) => {
                    let list = lists.of(row);
                    let below = |end: usize| list.partition_point(|&j| (j as usize) < end);
                    let chosen = &list[below(neurons.start)..below(neurons.end)];
                    let gates = &mut gates[..chosen.len()];
                    let sums = &mut *gates;
                    let (matrix, rows) = (self.gate, chosen);
                    p.enter(
                        v,
                        SumSelected { tokens, matrix, rows, activations: n, row: place, sums },
                    );
                    (gates, chosen)
                }
                (threshold, _) => {
                    let gates = &mut gates[first..first + neurons.len()];
                    let mut count = 0;
                    p.enter(
                        v,
                        Select {
                            v,
                            threshold: threshold.unwrap_or(0.0),
                            first: neurons.start as u32,
                            gates: &mut *gates,
                            selected: &mut *selected,
                            count: &mut count,
                        },
                    );
                    (&mut gates[..count], &selected[..count])
                }
            };
            let sums = &mut ups[..chosen.len()];
            let (matrix, rows) = (self.up, chosen);
            p.enter(v, SumSelected { tokens, matrix, rows, activations: n, row: place, sums });
            let ups = &ups[..chosen.len()];
            let first = neurons.start;
            p.enter(v, Activate { v, hidden: &self.hidden, gates, ups, chosen, first, h });
        }
    }

    /// The output from down weights in the layout of `nn.Linear`.
    fn sum_rows(
        &self,
        rows: Range<usize>,
        h: Activations<'_, P::Operand>,
        sums: Shared<'_, f32>,
        length: usize,
    ) {
        let (tokens @ (v, p), features) = (self.tokens, self.down.rows());
        let part = self.last_part();
        for_each_chunk(self.threads, features.div_ceil(part), &|slot, index| {
            let columns = chunk(features, part, index);
            // SAFETY: a slot's chunks run one after another, and nobody else uses its sums.
            let sums = unsafe { sums.slice(slot * length..(slot + 1) * length) };
            let (matrices, weight_rows) = (&[self.down], columns.clone());
            p.enter(
                v,
                SumRows { tokens, matrices, rows: weight_rows, activations: h, sums: &mut *sums },
            );
            for (place, row) in rows.clone().enumerate() {
                let sums = &sums[place * columns.len()..][..columns.len()];
                p.enter(v, Finish { v, output: &self.output, row, first: columns.start, sums });
            }
        });
    }

    /// The output from down weights that have a row for each neuron.
    fn add_rows(
        &self,
        rows: Range<usize>,
        survivors: &Survivors<'_>,
        sums: Shared<'_, f32>,
        length: usize,
    ) {
        let ((v, p), features) = (self.tokens, self.op.hidden());
        let part = self.last_part();
        let parts = features.div_ceil(part);
        for_each_chunk(self.threads, rows.len() * parts, &|slot, index| {
            let (place, columns) = (index / parts, chunk(features, part, index % parts));
            let (neurons, factors) = survivors.row(place);
            // SAFETY: a slot's chunks run one after another, and nobody else uses its sums.
            let sums = unsafe { sums.slice(slot * length..slot * length + columns.len()) };
            let (down, first, row) = (self.down, columns.start, rows.start + place);
            p.enter(v, AddRows { v, matrix: down, neurons, factors, columns, sums: &mut *sums });
            p.enter(v, Finish { v, output: &self.output, row, first, sums });
        });
    }
}
