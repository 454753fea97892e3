//! `feature_attention` on the CPU: a thread a text where there are enough of them, else three passes over parts of
//! texts. Either way an element is made by the same operations in the same order.
#![allow(
    unsafe_code,
    reason = "threads write disjoint parts of the output and of the scratch memory"
)]

use std::ops::Range;

use super::{FeatureAttention, FeatureAttentionArgs};
use crate::backend::cpu::activation::{sigmoid, tanh};
use crate::backend::cpu::float_rows::{FloatMatrices, FloatMatricesMut, FloatRows};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::{Shared, chunk};
use crate::backend::cpu::pieces::ChunkWork;
use crate::backend::cpu::{Cpu, Workspace};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::feature_attention::lengths::length_of;
use crate::ops::feature_attention::products::products;
use crate::tensor::{TensorMut, TensorRef};

/// Elements that keep a thread busy for several times as long as it takes to wake it.
const PIECE_ELEMENTS: usize = 1 << 15;
/// Columns of a piece are a multiple of it: whole vectors of any instruction set, and whole cache lines.
const PIECE_COLUMNS: usize = 64;

impl Cpu {
    /// [`FeatureAttention`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, and the first text whose length is out of range; `out` is then
    /// untouched.
    pub fn feature_attention(
        &self,
        op: &FeatureAttention,
        mut args: FeatureAttentionArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        let shape = args.x.layout();
        let [batch, tokens] = [shape.shape()[0], shape.shape()[1]];
        if shape.elements() == 0 {
            return Ok(());
        }
        let threads = self.threads();
        let is_spread = batch < threads;
        let states = if is_spread { batch } else { threads };
        let stride = (op.features + op.reduced).next_multiple_of(PIECE_COLUMNS);
        let mut arena = workspace.reserve(Workspace::bytes_for::<f32>(states * stride));
        let texts = Texts {
            op: *op,
            tokens,
            x: FloatMatrices::new(args.x),
            w1: FloatRows::new(args.w1),
            b1: args.b1.map(FloatRows::new),
            w2: FloatRows::new(args.w2),
            b2: args.b2.map(FloatRows::new),
            lengths: args.lengths,
            states: Shared::new(arena.take(states * stride)),
            stride,
            out: FloatMatricesMut::new(&mut args.out),
        };
        if is_spread {
            spread(self, batch, texts);
        } else {
            self.run_chunks(batch, Whole(texts));
        }
        Ok(())
    }
}

/// One pass after the other, each over parts of all texts.
fn spread(cpu: &Cpu, batch: usize, texts: Texts<'_>) {
    let op = texts.op;
    let columns = (PIECE_ELEMENTS / texts.tokens).next_multiple_of(PIECE_COLUMNS);
    let rows = (PIECE_ELEMENTS / op.features).next_multiple_of(4);
    // A column of the last pass is a row of w2 too.
    let last = (PIECE_ELEMENTS / (texts.tokens + op.reduced)).next_multiple_of(PIECE_COLUMNS);
    for (pass, length, size) in [
        (Pass::Squeeze, op.features, columns),
        (Pass::Reduce, op.reduced, rows),
        (Pass::Excite, op.features, last),
    ] {
        let pieces = length.div_ceil(size);
        cpu.run_chunks(batch * pieces, Part { texts, pass, length, size, pieces });
    }
}

#[derive(Clone, Copy)]
enum Pass {
    Squeeze,
    Reduce,
    Excite,
}

/// A part of a text in one pass.
#[derive(Clone, Copy)]
struct Part<'a> {
    texts: Texts<'a>,
    pass: Pass,
    /// Columns or rows of a text, of a piece, and pieces of a text.
    length: usize,
    size: usize,
    pieces: usize,
}

impl ChunkWork for Part<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, index: usize) {
        let text = index / self.pieces;
        let part = chunk(self.length, self.size, index % self.pieces);
        // SAFETY: the text's state is its own, and this part of it this piece's; passes come one after the other, and
        // none writes what it reads of other parts.
        unsafe {
            match self.pass {
                Pass::Squeeze => {
                    self.texts.squeeze(v, text, part.clone(), self.texts.features(text, part));
                }
                Pass::Reduce => {
                    let squeezed = self.texts.features(text, 0..self.texts.op.features);
                    self.texts.reduce(v, squeezed, part.clone(), self.texts.reduced(text, part));
                }
                Pass::Excite => {
                    let reduced = self.texts.reduced(text, 0..self.texts.op.reduced);
                    let excited = self.texts.features(text, part.clone());
                    self.texts.excite(v, reduced, part.clone(), excited);
                    self.texts.scale(v, text, part, excited);
                }
            }
        }
    }
}

/// A whole text, from tokens to tokens.
#[derive(Clone, Copy)]
struct Whole<'a>(Texts<'a>);

impl ChunkWork for Whole<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, slot: usize, text: usize) {
        let Whole(texts) = self;
        let (features, reduced) = (texts.op.features, texts.op.reduced);
        // SAFETY: the slot's state is this thread's, and the text this call's.
        unsafe {
            let state = texts.features(slot, 0..features);
            let a = texts.reduced(slot, 0..reduced);
            texts.squeeze(v, text, 0..features, state);
            texts.reduce(v, state, 0..reduced, a);
            texts.excite(v, a, 0..features, state);
            texts.scale(v, text, 0..features, state);
        }
    }
}

/// The tensors, and a state for each text or thread: `s`, later `e`, and behind it `a`.
#[derive(Clone, Copy)]
struct Texts<'a> {
    op: FeatureAttention,
    tokens: usize,
    x: FloatMatrices<'a>,
    w1: FloatRows<'a>,
    b1: Option<FloatRows<'a>>,
    w2: FloatRows<'a>,
    b2: Option<FloatRows<'a>>,
    lengths: Option<TensorRef<'a>>,
    states: Shared<'a, f32>,
    stride: usize,
    out: FloatMatricesMut<'a>,
}

impl<'a> Texts<'a> {
    /// # Safety
    /// Nobody else uses this part of the state meanwhile.
    #[allow(clippy::mut_from_ref, reason = "exclusive by the caller's promise")]
    #[inline(always)]
    unsafe fn features(&self, state: usize, columns: Range<usize>) -> &'a mut [f32] {
        let start = state * self.stride;
        // SAFETY: the caller's promise.
        unsafe { self.states.slice(start + columns.start..start + columns.end) }
    }

    /// # Safety
    /// As [`Texts::features`].
    #[allow(clippy::mut_from_ref, reason = "exclusive by the caller's promise")]
    #[inline(always)]
    unsafe fn reduced(&self, state: usize, rows: Range<usize>) -> &'a mut [f32] {
        let start = state * self.stride + self.op.features;
        // SAFETY: the caller's promise.
        unsafe { self.states.slice(start + rows.start..start + rows.end) }
    }

    /// The mean over the text's tokens of these columns; four tokens at a time, so that the sums are loaded and stored
    /// a quarter as often.
    #[inline(always)]
    fn squeeze<V: Vectors>(&self, v: V, text: usize, columns: Range<usize>, s: &mut [f32]) {
        let x = self.x.matrix(text);
        let length = length_of(&self.lengths, text, self.tokens);
        s.fill(0.0);
        for token in (0..length).step_by(4) {
            let rest = length - token;
            for at in (0..s.len()).step_by(V::LANES) {
                let load = |row: usize| {
                    if row < rest {
                        x.load(v, token + row, columns.start + at)
                    } else {
                        v.splat(0.0)
                    }
                };
                let four = v.add(v.add(load(0), load(1)), v.add(load(2), load(3)));
                let end = s.len().min(at + V::LANES);
                let sum = v.add(v.load_slice(&s[at..end]), four);
                v.store_slice(sum, &mut s[at..end]);
            }
        }
        for s in s {
            *s /= length as f32;
        }
    }

    /// `a` of these rows of `w1`.
    #[inline(always)]
    fn reduce<V: Vectors>(&self, v: V, s: &[f32], rows: Range<usize>, a: &mut [f32]) {
        products(v, &self.w1, self.b1.as_ref(), rows, s, a);
        if self.op.tanh {
            for a in a.chunks_mut(V::LANES) {
                v.store_slice(tanh(v, v.load_slice(a)), a);
            }
        }
    }

    /// `e` of these columns.
    #[inline(always)]
    fn excite<V: Vectors>(&self, v: V, a: &[f32], columns: Range<usize>, e: &mut [f32]) {
        products(v, &self.w2, self.b2.as_ref(), columns, a, e);
        for e in e.chunks_mut(V::LANES) {
            v.store_slice(sigmoid(v, v.load_slice(e)), e);
        }
    }

    /// `x * e` in these columns of the text's tokens, 0 behind them.
    ///
    /// # Safety
    /// Nobody else uses these columns of the text's output.
    #[inline(always)]
    unsafe fn scale<V: Vectors>(&self, v: V, text: usize, columns: Range<usize>, e: &[f32]) {
        let (x, out) = (self.x.matrix(text), self.out.matrix(text));
        let length = length_of(&self.lengths, text, self.tokens);
        for token in 0..self.tokens {
            for at in (0..e.len()).step_by(V::LANES) {
                let (column, count) = (columns.start + at, e.len() - at);
                let value = if token < length {
                    let e = v.load_slice(&e[at..e.len().min(at + V::LANES)]);
                    v.mul(x.load(v, token, column), e)
                } else {
                    v.splat(0.0)
                };
                // SAFETY: the caller's promise.
                unsafe { out.store(v, value, token, column, count) };
            }
        }
    }
}
