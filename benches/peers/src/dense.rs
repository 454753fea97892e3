//! The dense SwiGLU block.

use candle_core::{Device, Tensor, WithDType};
use siluette::{Cpu, Element, Float, GatedMlp, GatedMlpArgs, TensorMut, TensorRef, Workspace};

use crate::coprocess::{Case, Coprocess};
use crate::gemm_mlp::GemmMlp;
use crate::measure::{Contestant, Failure, Medians, check_equal, check_near, in_turns};
use crate::weights::{Layer, Layers, Random};

/// siluette's block.
pub struct Block<'a, T> {
    layers: &'a Layers<T>,
    op: GatedMlp,
    x: &'a [T],
    rows: usize,
    cpu: Cpu,
    workspace: Workspace,
}

impl<'a, T: Float> Block<'a, T> {
    pub fn new(layers: &'a Layers<T>, x: &'a [T], rows: usize) -> Result<Block<'a, T>, Failure> {
        let op = GatedMlp::new(layers.inputs, layers.ffn, <T as Element>::DTYPE)?;
        Ok(Block { layers, op, x, rows, cpu: Cpu::new(), workspace: Workspace::default() })
    }

    pub fn run(&mut self, layer: usize, out: &mut [T]) -> Result<(), Failure> {
        let (rows, hidden, ffn) = (self.rows, self.layers.inputs, self.layers.ffn);
        let layer = &self.layers.all[layer];
        let args = GatedMlpArgs::new(
            TensorRef::new(self.x, &[rows, hidden])?,
            TensorRef::new(&layer.gate, &[ffn, hidden])?,
            TensorRef::new(&layer.up, &[ffn, hidden])?,
            TensorRef::new(&layer.down, &[hidden, ffn])?,
            TensorMut::new(out, &[rows, hidden])?,
        );
        Ok(self.cpu.gated_mlp(&self.op, args, &mut self.workspace)?)
    }
}

pub fn measure<T: Float + WithDType>(
    layers: &Layers<T>,
    rows: usize,
    peers: &[Coprocess],
) -> Result<Medians, Failure> {
    let (hidden, ffn) = (layers.inputs, layers.ffn);
    let x: Vec<T> = Random(7).values(rows * hidden, 2.0);
    let candle_x = Tensor::from_slice(&x, (rows, hidden), &Device::Cpu)?;
    let mut block = Block::new(layers, &x, rows)?;
    let mut out = x.clone();
    let theirs = |layer: usize| candle_mlp(&candle_x, &layers.all[layer]);

    block.run(0, &mut out)?;
    check_equal(&out, &theirs(0)?)?;
    let mut gemm = GemmMlp::new(&x, rows, ffn);
    if let Some(gemm) = &mut gemm {
        gemm.run(&layers.all[0]);
        let values: Vec<f32> = gemm.out.iter().map(|value| value.to_f32()).collect();
        check_near(&out, &values)?;
    }
    let mut contestants = vec![
        Contestant::timed("siluette", |layer| block.run(layer, &mut out)),
        Contestant::timed("candle", |layer| Ok(theirs(layer)?)),
    ];
    contestants.extend(gemm.map(|mut gemm| {
        Contestant::timed("gemm", move |layer| {
            gemm.run(&layers.all[layer]);
            Ok(())
        })
    }));
    let dimensions =
        [("hidden", hidden), ("ffn", ffn), ("rows", rows), ("layers", layers.all.len())];
    let case = Case { op: "gated_mlp", dtype: <T as Element>::DTYPE, dimensions: &dimensions };
    for peer in peers {
        contestants.extend(peer.contestants(&case)?);
    }
    in_turns(layers.all.len(), contestants)
}

pub fn candle_mlp<T>(x: &Tensor, layer: &Layer<T>) -> candle_core::Result<Tensor> {
    let [gate, up, down] = &layer.candle;
    let h = (x.matmul(&gate.t()?)?.silu()? * x.matmul(&up.t()?)?)?;
    h.matmul(&down.t()?)
}
