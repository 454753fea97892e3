//! The dense SwiGLU block.

use std::hint::black_box;

use candle_core::{Device, Tensor, WithDType};
use siluette::{Cpu, Element, Float, GatedMlp, GatedMlpArgs, TensorMut, TensorRef, Workspace};

use crate::measure::{Failure, Medians, check_equal, in_turns};
use crate::weights::{Layer, Layers, Random};

pub fn measure<T: Float + WithDType>(layers: &Layers<T>, rows: usize) -> Result<Medians, Failure> {
    let (hidden, ffn) = (layers.inputs, layers.ffn);
    let x: Vec<T> = Random(7).values(rows * hidden, 2.0);
    let candle_x = Tensor::from_slice(&x, (rows, hidden), &Device::Cpu)?;
    let op = GatedMlp::new(hidden, ffn, <T as Element>::DTYPE)?;
    let (cpu, mut workspace) = (Cpu::new(), Workspace::default());
    let mut out = x.clone();
    let mut ours = |layer: usize, out: &mut Vec<T>| -> Result<(), Failure> {
        let layer = &layers.all[layer];
        let args = GatedMlpArgs::new(
            TensorRef::new(&x, &[rows, hidden])?,
            TensorRef::new(&layer.gate, &[ffn, hidden])?,
            TensorRef::new(&layer.up, &[ffn, hidden])?,
            TensorRef::new(&layer.down, &[hidden, ffn])?,
            TensorMut::new(out, &[rows, hidden])?,
        );
        Ok(cpu.gated_mlp(&op, args, &mut workspace)?)
    };
    let theirs = |layer: usize| candle_mlp(&candle_x, &layers.all[layer]);

    ours(0, &mut out)?;
    check_equal(&out, &theirs(0)?)?;
    let mut ours = |layer| ours(layer, &mut out);
    let mut theirs = |layer| Ok(drop(black_box(theirs(layer)?)));
    in_turns(layers.all.len(), vec![("siluette", &mut ours), ("candle", &mut theirs)])
}

pub fn candle_mlp<T>(x: &Tensor, layer: &Layer<T>) -> candle_core::Result<Tensor> {
    let [gate, up, down] = &layer.candle;
    let h = (x.matmul(&gate.t()?)?.silu()? * x.matmul(&up.t()?)?)?;
    h.matmul(&down.t()?)
}
