//! The dense SwiGLU block.

use candle_core::{Device, Tensor, WithDType};
use siluette::{
    Cpu, Element, Float, GatedMlp, GatedMlpArgs, PackedWeight, TensorMut, TensorRef, Workspace,
};

use crate::coprocess::{Case, Coprocess};
use crate::gemm_mlp::GemmMlp;
use crate::measure::{Contestant, Failure, Medians, check_equal, check_near, in_turns};
use crate::weights::{Layer, Layers, Random};

/// siluette's block.
pub struct Block<'a, T> {
    /// Of gate, up and down, by layer.
    weights: Vec<[TensorRef<'a>; 3]>,
    op: GatedMlp,
    x: &'a [T],
    rows: usize,
    cpu: Cpu,
    workspace: Workspace,
}

impl<'a, T: Float> Block<'a, T> {
    pub fn new(layers: &'a Layers<T>, x: &'a [T], rows: usize) -> Result<Block<'a, T>, Failure> {
        let op = GatedMlp::new(layers.inputs, layers.ffn, <T as Element>::DTYPE)?;
        let weights = layers.all.iter().map(|layer| tensors(layers, layer));
        Ok(Block {
            weights: weights.collect::<Result<_, Failure>>()?,
            op,
            x,
            rows,
            cpu: Cpu::new(),
            workspace: Workspace::default(),
        })
    }

    /// With weights as [`pack`] makes them.
    fn with_weights(mut self, packed: &'a Packed) -> Block<'a, T> {
        let views = packed.iter().map(|weights| weights.each_ref().map(PackedWeight::view));
        self.weights = views.collect();
        self
    }

    pub fn run(&mut self, layer: usize, out: &mut [T]) -> Result<(), Failure> {
        let [gate, up, down] = self.weights[layer];
        let shape = [self.rows, self.op.hidden()];
        let (x, out) = (TensorRef::new(self.x, &shape)?, TensorMut::new(out, &shape)?);
        let args = GatedMlpArgs::new(x, gate, up, down, out);
        Ok(self.cpu.gated_mlp(&self.op, args, &mut self.workspace)?)
    }
}

/// Packed weights by layer.
pub type Packed = Vec<[PackedWeight; 3]>;

pub fn pack<T: Float>(layers: &Layers<T>) -> Result<Packed, Failure> {
    let pack = |layer: &Layer<T>| -> Result<[PackedWeight; 3], Failure> {
        let [gate, up, down] = tensors(layers, layer)?;
        Ok([PackedWeight::new(gate)?, PackedWeight::new(up)?, PackedWeight::new(down)?])
    };
    layers.all.iter().map(pack).collect()
}

fn tensors<'a, T: Float>(
    layers: &Layers<T>,
    layer: &'a Layer<T>,
) -> Result<[TensorRef<'a>; 3], Failure> {
    let (hidden, ffn) = (layers.inputs, layers.ffn);
    Ok([
        TensorRef::new(&layer.gate, &[ffn, hidden])?,
        TensorRef::new(&layer.up, &[ffn, hidden])?,
        TensorRef::new(&layer.down, &[hidden, ffn])?,
    ])
}

pub fn measure<T: Float + WithDType>(
    layers: &Layers<T>,
    packed: &Packed,
    rows: usize,
    peers: &[Coprocess],
) -> Result<Medians, Failure> {
    let (hidden, ffn) = (layers.inputs, layers.ffn);
    let x: Vec<T> = Random(7).values(rows * hidden, 2.0);
    let candle_x = Tensor::from_slice(&x, (rows, hidden), &Device::Cpu)?;
    let mut block = Block::new(layers, &x, rows)?;
    let mut packed = Block::new(layers, &x, rows)?.with_weights(packed);
    let (mut out, mut packed_out) = (x.clone(), x.clone());
    let theirs = |layer: usize| candle_mlp(&candle_x, &layers.all[layer]);

    block.run(0, &mut out)?;
    check_equal(&out, &theirs(0)?)?;
    packed.run(0, &mut packed_out)?;
    check_equal(&packed_out, &theirs(0)?)?;
    let mut gemm = GemmMlp::new(&x, rows, ffn);
    if let Some(gemm) = &mut gemm {
        gemm.run(&layers.all[0]);
        let values: Vec<f32> = gemm.out.iter().map(|value| value.to_f32()).collect();
        check_near(&out, &values)?;
    }
    let mut contestants = vec![
        Contestant::timed("siluette", |layer| block.run(layer, &mut out)),
        Contestant::timed("candle", |layer| Ok(theirs(layer)?)),
        Contestant::timed("siluette_packed", |layer| packed.run(layer, &mut packed_out)),
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
