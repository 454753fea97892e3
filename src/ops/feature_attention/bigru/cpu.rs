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
    Edges, GruExtent, Output, States, Text, Texts, Tokens, fill, project, recur, tiling,
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
    let extent = GruExtent::new(tiling(cpu), hidden, columns, &texts);
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
        x: FloatMatrices::new(args.x),
        columns: op.input,
        tokens: Shared::new(tokens),
        texts: texts.all(),
        longest,
        out,
    };
    cpu.run_chunks(batch, edges);
    if let Some(last) = last {
        let texts = &texts.all()[texts.with_tokens().len()..];
        cpu.run_chunks(texts.len(), Unmoved { texts, initial, last, states: 2 * op.layers });
    }
    for layer in 0..op.layers {
        let weights = weights.layer(layer);
        let (values, columns) = match layer {
            0 => (&*tokens, op.input),
            _ => (&*between, 2 * hidden),
        };
        project(cpu, &weights, Tokens { values, columns, stride: columns }, &mut scratch);
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

/// A text without tokens ends as it began.
#[derive(Clone, Copy)]
struct Unmoved<'a> {
    texts: &'a [Text],
    initial: Option<FloatMatrices<'a>>,
    last: FloatMatricesMut<'a>,
    states: usize,
}

impl ChunkWork for Unmoved<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, chunk: usize) {
        let text = self.texts[chunk].index;
        for state in 0..self.states {
            let initial = self.initial.map(|initial| initial.matrix(state));
            let start = |column| initial.map_or(v.splat(0.0), |rows| rows.load(v, text, column));
            // SAFETY: each text has its own rows.
            unsafe { fill(v, &self.last.matrix(state), text, start) };
        }
    }
}
