//! The SwiGLU block that reads and writes half of the features, also beside our own of all features.

use candle_core::{Device, Tensor, WithDType};
use siluette::{
    Cpu, Element, Float, IndexSet, PrunedGatedMlp, PrunedGatedMlpArgs, TensorMut, TensorRef,
    Workspace,
};

use crate::coprocess::{Case, Coprocess};
use crate::dense::{Block, candle_mlp};
use crate::measure::{Contestant, Failure, Medians, check_equal, in_turns};
use crate::weights::{Layers, Random};

/// The layers' matrices are compact: `inputs` of the `dense` layers' features are read, as many written.
pub fn measure<T: Float + WithDType>(
    layers: &Layers<T>,
    dense: &Layers<T>,
    rows: usize,
    peers: &[Coprocess],
) -> Result<Medians, Failure> {
    let (hidden, selected, ffn) = (dense.inputs, layers.inputs, layers.ffn);
    let x: Vec<T> = Random(7).values(rows * hidden, 2.0);
    let candle_x = Tensor::from_slice(&x, (rows, hidden), &Device::Cpu)?;
    // Every second feature read, the first half written.
    let step = hidden / selected;
    let read = IndexSet::from_mask(&mask(hidden, |feature| feature % step == 0))?;
    let written = IndexSet::from_mask(&mask(hidden, |feature| feature < selected))?;
    let [candle_read, candle_written] =
        [&read, &written].map(|set| Tensor::from_slice(set.indices(), (set.len(),), &Device::Cpu));
    let (candle_read, candle_written) = (candle_read?, candle_written?);
    let op = PrunedGatedMlp::new(hidden, ffn, <T as Element>::DTYPE)?
        .with_inputs(selected)?
        .with_outputs(selected)?;
    let (cpu, mut workspace) = (Cpu::new(), Workspace::default());
    let mut out = x.clone();
    let mut ours = |layer: usize, out: &mut Vec<T>| -> Result<(), Failure> {
        let layer = &layers.all[layer];
        let args = PrunedGatedMlpArgs::new(
            TensorRef::new(&x, &[rows, hidden])?,
            read.indices_tensor(),
            TensorRef::new(&layer.gate, &[ffn, selected])?,
            TensorRef::new(&layer.up, &[ffn, selected])?,
            TensorRef::new(&layer.down, &[selected, ffn])?,
            written.indices_tensor(),
            TensorMut::new(out, &[rows, hidden])?,
        );
        Ok(cpu.pruned_gated_mlp(&op, args, &mut workspace)?)
    };
    let theirs = |layer: usize| -> candle_core::Result<Tensor> {
        let y = candle_mlp(&candle_x.index_select(&candle_read, 1)?, &layers.all[layer])?;
        candle_x.index_add(&candle_written, &y, 1)
    };

    ours(0, &mut out)?;
    check_equal(&out, &theirs(0)?)?;
    let (mut block, mut whole) = (Block::new(dense, &x, rows)?, x.clone());
    let mut contestants = vec![
        Contestant::timed("siluette", |layer| ours(layer, &mut out)),
        Contestant::timed("candle", |layer| Ok(theirs(layer)?)),
        Contestant::timed("siluette_dense", |layer| block.run(layer % dense.all.len(), &mut whole)),
    ];
    let dimensions =
        [("hidden", hidden), ("ffn", ffn), ("rows", rows), ("layers", layers.all.len())];
    let dtype = <T as Element>::DTYPE;
    let case = Case { op: "pruned_gated_mlp", dtype, dimensions: &dimensions };
    for peer in peers {
        contestants.extend(peer.contestants(&case)?);
    }
    in_turns(layers.all.len(), contestants)
}

fn mask(features: usize, keep: impl Fn(usize) -> bool) -> Vec<u8> {
    (0..features).map(|feature| u8::from(keep(feature))).collect()
}
