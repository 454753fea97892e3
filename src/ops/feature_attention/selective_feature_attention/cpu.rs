//! `selective_feature_attention` on the CPU: the passes of the GRU, and two over texts.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use super::{Select, SelectiveFeatureAttention, SelectiveFeatureAttentionArgs, StackMode};
use crate::backend::cpu::activation::{sigmoid, tanh};
use crate::backend::cpu::float_rows::{FloatMatrices, FloatMatricesMut, FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::pieces::ChunkWork;
use crate::backend::cpu::silu::exp_of_negative;
use crate::backend::cpu::{Cpu, Workspace};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::feature_attention::gru::cpu::{
    Edges, GruExtent, Linear, Output, Scratch, States, Text, Texts, Tokens, fill, project, recur,
    tiling,
};
use crate::ops::feature_attention::gru::gru_tensors;
use crate::ops::feature_attention::products::products;
use crate::tensor::{TensorMut, TensorRef};

type Args<'a, 'b> = SelectiveFeatureAttentionArgs<TensorRef<'a>, TensorMut<'b>>;

impl Cpu {
    /// [`SelectiveFeatureAttention`] on the CPU. A text costs what its own tokens cost.
    ///
    /// `workspace` grows once to what this shape needs, and is reused.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; `out` is then untouched.
    pub fn selective_feature_attention(
        &self,
        op: &SelectiveFeatureAttention,
        mut args: SelectiveFeatureAttentionArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        let shape = args.x.layout();
        let [batch, longest] = [shape.shape()[0], shape.shape()[1]];
        let texts = Texts::new(&args.lengths, batch, longest);
        let memory = Memory::new(self, op, &args, batch, &texts, workspace);
        let edges = Edges {
            x: FloatMatrices::new(args.x),
            columns: op.features,
            tokens: Shared::new(&mut memory.tokens[..texts.tokens() * op.features]),
            texts: texts.all(),
            longest,
            out: FloatMatricesMut::new(&mut args.out),
        };
        self.run_chunks(batch, edges);
        if texts.tokens() > 0 {
            run(self, op, &mut args, &texts, memory);
        }
        Ok(())
    }
}

/// Scratch memory; `T` valid tokens, `t` texts that have some.
struct Memory<'a> {
    reduce: Linear<'a>,
    expand: Linear<'a>,
    /// Panels of one of the products.
    panels: &'a mut [f32],
    /// `[T, D]`, later rows of the expansion.
    tokens: &'a mut [f32],
    /// `[T, row]`, later what is selected, `[T, d1]`.
    reduced: &'a mut [f32],
    /// `[N, T, d1]`.
    branches: &'a mut [f32],
    /// Before and behind a branch: `[2, B, h]` each.
    states: [&'a mut [f32]; 2],
    /// `[t, d2]`.
    z: &'a mut [f32],
    /// `[t, N, d1]`.
    weights: &'a mut [f32],
    gru: Scratch<'a>,
}

impl<'a> Memory<'a> {
    fn new(
        cpu: &Cpu,
        op: &SelectiveFeatureAttention,
        args: &Args<'a, '_>,
        batch: usize,
        texts: &Texts,
        workspace: &'a mut Workspace,
    ) -> Memory<'a> {
        let (tiling, d1, tokens) = (tiling(cpu), op.reduced, texts.tokens());
        let linear = |weight, bias, outputs| Linear { weight, bias, tiling, outputs };
        let reduce = linear(args.reduce_weight, args.reduce_bias, d1);
        let expand = linear(args.expand_weight, args.expand_bias, op.features);
        let gru = GruExtent::new(tiling, op.hidden(), d1, texts);
        let states = if op.stack_mode == StackMode::StateChained { batch * d1 } else { 0 };
        let sizes = [
            reduce.scratch(op.features).max(expand.scratch(d1)),
            tokens * op.features.max(expand.row()),
            tokens * reduce.row(),
            op.branches * tokens * d1,
            states,
            states,
            texts.with_tokens().len() * op.squeezed,
            texts.with_tokens().len() * op.branches * d1,
        ];
        let bytes: usize = sizes.into_iter().map(Workspace::bytes_for::<f32>).sum();
        let mut arena = workspace.reserve(bytes + gru.bytes());
        let [panels, tokens, reduced, branches, before, behind, z, weights] =
            sizes.map(|size| arena.take::<f32>(size));
        let gru = gru.scratch(|size| arena.take::<f32>(size));
        let states = [before, behind];
        Memory { reduce, expand, panels, tokens, reduced, branches, states, z, weights, gru }
    }
}

/// From packed tokens to `out`; there is at least one token.
fn run(
    cpu: &Cpu,
    op: &SelectiveFeatureAttention,
    args: &mut Args<'_, '_>,
    texts: &Texts,
    mut memory: Memory<'_>,
) {
    let (count, d1) = (texts.tokens(), op.reduced);
    let tokens = Tokens { values: memory.tokens, columns: op.features, stride: op.features };
    memory.reduce.run(cpu, count, tokens, memory.panels, memory.reduced);
    branches(cpu, op, args, texts, &mut memory);

    let squeeze = Squeeze {
        op,
        texts: texts.with_tokens(),
        tokens: count,
        branches: memory.branches,
        squeeze: FloatRows::new(args.squeeze_weight),
        squeeze_bias: args.squeeze_bias.map(FloatRows::new),
        args: &args.inputs(),
        z: Shared::new(memory.z),
        weights: Shared::new(memory.weights),
    };
    cpu.run_chunks(squeeze.texts.len(), squeeze);
    if op.select == Select::GlobalSum {
        let total: f64 = memory.weights.iter().map(|weight| f64::from(*weight)).sum();
        for weight in &mut *memory.weights {
            *weight /= total as f32;
        }
    }
    let selected = &mut memory.reduced[..count * d1];
    let sum = WeightedSum {
        op,
        texts: texts.with_tokens(),
        tokens: count,
        branches: memory.branches,
        weights: memory.weights,
        selected: Shared::new(selected),
    };
    cpu.run_chunks(sum.texts.len(), sum);
    let selected = Tokens { values: selected, columns: d1, stride: d1 };
    memory.expand.run(cpu, count, selected, memory.panels, memory.tokens);
    let rows = TensorRef::strided(memory.tokens, &[count, op.features], &[memory.expand.row(), 1])
        .expect("as long as its shape");
    let unpack = Unpack {
        texts: texts.with_tokens(),
        rows: FloatRows::new(rows),
        out: FloatMatricesMut::new(&mut args.out),
    };
    cpu.run_chunks(unpack.texts.len(), unpack);
}

/// Every branch, one after the other.
fn branches(
    cpu: &Cpu,
    op: &SelectiveFeatureAttention,
    args: &Args<'_, '_>,
    texts: &Texts,
    memory: &mut Memory<'_>,
) {
    let (count, d1) = (texts.tokens(), op.reduced);
    let weights = gru_tensors!(args);
    let batch = args.x.layout().shape()[0];
    let states = [2, batch, op.hidden()];
    for branch in 0..op.branches {
        let (done, rest) = memory.branches.split_at_mut(branch * count * d1);
        let input = match done.chunks_exact(count * d1).last() {
            Some(values) if op.stack_mode == StackMode::OutputChained => {
                Tokens { values, columns: d1, stride: d1 }
            }
            _ => Tokens { values: memory.reduced, columns: d1, stride: memory.reduce.row() },
        };
        let weights = weights.layer(branch);
        project(cpu, &weights, input, &mut memory.gru);
        let mut output =
            TensorMut::new(&mut rest[..count * d1], &[count, d1]).expect("as long as its shape");
        let output = Output::Tokens(FloatRowsMut::new(&mut output));
        let mut ends = States { initial: None, last: None, layer: 0 };
        if op.stack_mode == StackMode::OutputChained {
            recur(cpu, &weights, texts, ends, output, &mut memory.gru);
            continue;
        }
        memory.states.swap(0, 1);
        let [before, behind] = &mut memory.states;
        let initial = TensorRef::new(before, &states).expect("as long as its shape");
        let mut last = TensorMut::new(behind, &states).expect("as long as its shape");
        ends.initial = (branch > 0).then(|| FloatMatrices::new(initial));
        ends.last = Some(FloatMatricesMut::new(&mut last));
        recur(cpu, &weights, texts, ends, output, &mut memory.gru);
    }
}

/// The weights of a text's branches; for [`Select::GlobalSum`] before they are divided by their sum.
#[derive(Clone, Copy)]
struct Squeeze<'a> {
    op: &'a SelectiveFeatureAttention,
    texts: &'a [Text],
    tokens: usize,
    branches: &'a [f32],
    squeeze: FloatRows<'a>,
    squeeze_bias: Option<FloatRows<'a>>,
    args: &'a SelectiveFeatureAttentionArgs<TensorRef<'a>, crate::Layout>,
    z: Shared<'a, f32>,
    weights: Shared<'a, f32>,
}

impl ChunkWork for Squeeze<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, chunk: usize) {
        let (op, text) = (self.op, self.texts[chunk]);
        let (d1, size) = (op.reduced, op.branches * op.reduced);
        // SAFETY: each text has its own.
        let weights = unsafe { self.weights.slice(chunk * size..(chunk + 1) * size) };
        // SAFETY: as above.
        let z = unsafe { self.z.slice(chunk * op.squeezed..(chunk + 1) * op.squeezed) };
        // The first branch's weights come last.
        let squeezed = &mut weights[..d1];
        self.pool(v, &text, squeezed);
        products(v, &self.squeeze, self.squeeze_bias.as_ref(), 0..op.squeezed, squeezed, z);
        for part in z.chunks_mut(V::LANES) {
            v.store_slice(tanh(v, v.load_slice(part)), part);
        }
        for (branch, gates) in weights.chunks_exact_mut(d1).enumerate() {
            let weight = self.args.select_weight.get(branch).expect("validated: one a branch");
            let bias = self.args.select_bias.get(branch).map(|bias| FloatRows::new(*bias));
            products(v, &FloatRows::new(*weight), bias.as_ref(), 0..d1, z, gates);
            for part in gates.chunks_mut(V::LANES) {
                // exp(g) = e exp(g - 1): the exponential is one of negative numbers.
                let gate = v.sub(sigmoid(v, v.load_slice(part)), v.splat(1.0));
                let exponential = exp_of_negative(v, gate);
                v.store_slice(v.mul(exponential, v.splat(std::f32::consts::E)), part);
            }
        }
        if op.select == Select::BranchSoftmax {
            for channel in (0..d1).step_by(V::LANES) {
                let end = d1.min(channel + V::LANES);
                let mut sum = v.splat(0.0);
                for gates in weights.chunks_exact(d1) {
                    sum = v.add(sum, v.load_slice(&gates[channel..end]));
                }
                for gates in weights.chunks_exact_mut(d1) {
                    let part = &mut gates[channel..end];
                    v.store_slice(v.div(v.load_slice(part), sum), part);
                }
            }
        }
    }
}

impl Squeeze<'_> {
    /// Mean and maximum over the branches and the text's tokens, added up.
    #[inline(always)]
    fn pool<V: Vectors>(&self, v: V, text: &Text, squeezed: &mut [f32]) {
        let d1 = squeezed.len();
        let values = (self.op.branches * text.length) as f32;
        for channel in (0..d1).step_by(V::LANES) {
            let end = d1.min(channel + V::LANES);
            // States lie above -1.
            let (mut sum, mut largest) = (v.splat(0.0), v.splat(-1.0));
            for branch in self.branches.chunks_exact(self.tokens * d1) {
                let states =
                    branch[text.first * d1..(text.first + text.length) * d1].chunks_exact(d1);
                for state in states {
                    let state = v.load_slice(&state[channel..end]);
                    sum = v.add(sum, state);
                    largest = v.select_less(largest, state, state, largest);
                }
            }
            let mean = v.div(sum, v.splat(values));
            v.store_slice(v.add(mean, largest), &mut squeezed[channel..end]);
        }
    }
}

/// What is selected for the tokens of a text.
#[derive(Clone, Copy)]
struct WeightedSum<'a> {
    op: &'a SelectiveFeatureAttention,
    texts: &'a [Text],
    tokens: usize,
    branches: &'a [f32],
    weights: &'a [f32],
    selected: Shared<'a, f32>,
}

impl ChunkWork for WeightedSum<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, chunk: usize) {
        let (text, d1) = (self.texts[chunk], self.op.reduced);
        let range = text.first * d1..(text.first + text.length) * d1;
        // SAFETY: each text has its own tokens.
        let selected = unsafe { self.selected.slice(range.clone()) };
        let size = self.op.branches * d1;
        let weights = &self.weights[chunk * size..][..size];
        for (token, selected) in selected.chunks_exact_mut(d1).enumerate() {
            let at = range.start + token * d1;
            for channel in (0..d1).step_by(V::LANES) {
                let end = d1.min(channel + V::LANES);
                let mut sum = v.splat(0.0);
                for (branch, weights) in weights.chunks_exact(d1).enumerate() {
                    let start = branch * self.tokens * d1 + at;
                    let state = v.load_slice(&self.branches[start + channel..start + end]);
                    sum = v.mul_add(v.load_slice(&weights[channel..end]), state, sum);
                }
                v.store_slice(sum, &mut selected[channel..end]);
            }
        }
    }
}

/// Rows of the expansion, rounded and back to where their tokens were.
#[derive(Clone, Copy)]
struct Unpack<'a> {
    texts: &'a [Text],
    rows: FloatRows<'a>,
    out: FloatMatricesMut<'a>,
}

impl ChunkWork for Unpack<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, chunk: usize) {
        let text = self.texts[chunk];
        let out = self.out.matrix(text.index);
        for token in 0..text.length {
            let row = text.first + token;
            // SAFETY: each text has its own rows.
            unsafe { fill(v, &out, token, |column| self.rows.load(v, row, column)) };
        }
    }
}
