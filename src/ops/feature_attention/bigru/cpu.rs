//! `bigru` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use super::{BiGru, BiGruArgs};
use crate::backend::cpu::float_rows::{FloatMatrices, FloatMatricesMut, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::pieces::ChunkWork;
use crate::backend::cpu::{Cpu, Workspace};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::ops::feature_attention::gru::cpu::{
    GruExtent, Output, States, Text, Texts, project, recur,
};
use crate::ops::feature_attention::gru::gru_tensors;
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`BiGru`] on the CPU. A text costs what its own tokens cost.
    ///
    /// `workspace` grows once to what this shape needs, and is reused.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; outputs are then untouched.
    pub fn bigru(
        &self,
        op: &BiGru,
        args: BiGruArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        bigru(self, op, args, workspace);
        Ok(())
    }
}

/// `args` are valid.
fn bigru(
    cpu: &Cpu,
    op: &BiGru,
    mut args: BiGruArgs<TensorRef<'_>, TensorMut<'_>>,
    workspace: &mut Workspace,
) {
    let (hidden, shape) = (op.hidden, args.x.layout());
    let [batch, longest] = [shape.shape()[0], shape.shape()[1]];
    let texts = Texts::new(&args.lengths, batch, longest);
    let columns = if op.layers > 1 { op.input.max(2 * hidden) } else { op.input };
    let extent = GruExtent::new(cpu, hidden, columns, &texts);
    let between = if op.layers > 1 { texts.tokens() * 2 * hidden } else { 0 };
    let sizes = [texts.tokens() * op.input, between];
    let bytes: usize = sizes.into_iter().map(Workspace::bytes_for::<f32>).sum();
    let mut arena = workspace.reserve(bytes + extent.bytes());
    let [tokens, between] = sizes.map(|size| arena.take::<f32>(size));
    let mut scratch = extent.scratch(|size| arena.take::<f32>(size));

    let weights = gru_tensors!(args);
    let initial = args.h0.map(FloatMatrices::new);
    let last = args.h_n.as_mut().map(FloatMatricesMut::new);
    let out = FloatMatricesMut::new(&mut args.out);
    let edges = Edges {
        op,
        x: FloatMatrices::new(args.x),
        tokens: Shared::new(tokens),
        texts: texts.all(),
        longest,
        out,
        initial,
        last,
    };
    cpu.run_chunks(batch, edges);
    for layer in 0..op.layers {
        let weights = weights.layer(layer);
        if layer == 0 {
            project(cpu, &weights, tokens, op.input, &mut scratch);
        } else {
            project(cpu, &weights, between, 2 * hidden, &mut scratch);
        }
        let states = States { initial, last, layer };
        if layer + 1 == op.layers {
            recur(cpu, &weights, &texts, states, Output::Texts(out), &mut scratch);
        } else {
            let mut between = TensorMut::new(between, &[texts.tokens(), 2 * hidden])
                .expect("as long as its shape, which is smaller than that of the output");
            let output = Output::Tokens(FloatRowsMut::new(&mut between));
            recur(cpu, &weights, &texts, states, output, &mut scratch);
        }
    }
}

/// What surrounds the recurrence: tokens are widened and packed, what lies behind a text's end becomes 0, and a text
/// without tokens ends as it began.
#[derive(Clone, Copy)]
struct Edges<'a> {
    op: &'a BiGru,
    x: FloatMatrices<'a>,
    tokens: Shared<'a, f32>,
    texts: &'a [Text],
    longest: usize,
    out: FloatMatricesMut<'a>,
    initial: Option<FloatMatrices<'a>>,
    last: Option<FloatMatricesMut<'a>>,
}

impl ChunkWork for Edges<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, chunk: usize) {
        let (text, BiGru { input, hidden, layers, .. }) = (self.texts[chunk], *self.op);
        let range = text.first * input..(text.first + text.length) * input;
        // SAFETY: each text has its own tokens.
        let tokens = unsafe { self.tokens.slice(range) };
        let (x, out) = (self.x.matrix(text.index), self.out.matrix(text.index));
        for (token, row) in tokens.chunks_exact_mut(input).enumerate() {
            for (index, part) in row.chunks_mut(V::LANES).enumerate() {
                v.store_slice(x.load(v, token, index * V::LANES), part);
            }
        }
        for token in text.length..self.longest {
            for column in (0..2 * hidden).step_by(V::LANES) {
                // SAFETY: each text has its own rows; the recurrence starts behind this pass.
                unsafe { out.store(v, v.splat(0.0), token, column, 2 * hidden - column) };
            }
        }
        let Some(last) = self.last.filter(|_| text.length == 0) else { return };
        for (direction, unit) in (0..2 * layers)
            .flat_map(|direction| (0..hidden).step_by(V::LANES).map(move |unit| (direction, unit)))
        {
            let state = match self.initial {
                Some(initial) => initial.matrix(direction).load(v, text.index, unit),
                None => v.splat(0.0),
            };
            // SAFETY: as above.
            unsafe { last.matrix(direction).store(v, state, text.index, unit, hidden - unit) };
        }
    }
}
