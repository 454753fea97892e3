//! A model without the features and neurons that its index sets leave out.

use std::path::Path;

use candle_core::{Device, Tensor};
use siluette::candle::{Output, Runner};
use siluette::{CompactWeight, CompactWeightArgs, IndexSet, LayerIndexSets, ModelIndexSets};

use super::Failure;
use super::config::Config;
use super::weights::{Layer, Sets, Weights};

/// Reads index sets that were made for such a model.
pub fn load(path: &Path, config: &Config) -> Result<ModelIndexSets, Failure> {
    let refuse = |reason: String| Failure::input(format!("{}: {reason}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let sets =
        ModelIndexSets::from_safetensors(&bytes).map_err(|error| refuse(error.to_string()))?;
    let got = (sets.layers().len(), sets.width(), sets.neurons());
    let expected = (config.layers, config.hidden, config.ffn);
    if got != expected {
        return Err(refuse(format!(
            "sets of another model: {} layers of {} features and {} neurons, expected {} of {} and {}",
            got.0, got.1, got.2, expected.0, expected.1, expected.2
        )));
    }
    Ok(sets)
}

/// How many of the layers' weights are left out.
pub fn pruned_share(sets: &ModelIndexSets, config: &Config) -> f64 {
    let queries = config.heads * config.head;
    let read = queries + 2 * config.key_value_heads * config.head;
    let kept = |layer: &LayerIndexSets| {
        let [s1, s2, s3, s4, s5] = layer.sets().map(IndexSet::len);
        read * s1 + queries * s2 + s4 * (2 * s3 + s5)
    };
    let dense = config.layers * config.hidden * (read + queries + 3 * config.ffn);
    1.0 - sets.layers().iter().map(kept).sum::<usize>() as f64 / dense as f64
}

/// Cuts the layers' matrices; the final norm and the head stay whole.
pub fn pruned(weights: &Weights, sets: &ModelIndexSets) -> Result<Weights, Failure> {
    let runner = Runner::new();
    let layers = weights.layers.iter().zip(sets.layers());
    Ok(Weights {
        embedding: weights.embedding.clone(),
        layers: layers
            .map(|(layer, sets)| pruned_layer(&runner, layer, sets))
            .collect::<candle_core::Result<_>>()?,
        norm: weights.norm.clone(),
        head: weights.head.clone(),
    })
}

fn pruned_layer(
    runner: &Runner,
    layer: &Layer,
    sets: &LayerIndexSets,
) -> candle_core::Result<Layer> {
    let tensor = |set: &IndexSet| Tensor::from_slice(set.indices(), set.len(), &Device::Cpu);
    let [attention_in, attention_out, mlp_in, mlp_mid, mlp_out] = sets.sets().map(tensor);
    let sets = Sets {
        attention_in: attention_in?,
        attention_out: attention_out?,
        mlp_in: mlp_in?,
        mlp_out: mlp_out?,
    };
    let mlp_mid = mlp_mid?;
    let cut = |weight: &Tensor, rows: Option<&Tensor>, columns: Option<&Tensor>| {
        compacted(runner, weight, rows, columns)
    };
    Ok(Layer {
        input_norm: layer.input_norm.clone(),
        query_key_value: cut(&layer.query_key_value, None, Some(&sets.attention_in))?,
        output: cut(&layer.output, Some(&sets.attention_out), None)?,
        post_norm: layer.post_norm.clone(),
        gate: cut(&layer.gate, Some(&mlp_mid), Some(&sets.mlp_in))?,
        up: cut(&layer.up, Some(&mlp_mid), Some(&sets.mlp_in))?,
        down: cut(&layer.down, Some(&sets.mlp_out), Some(&mlp_mid))?,
        sets: Some(sets),
    })
}

fn compacted(
    runner: &Runner,
    weight: &Tensor,
    rows: Option<&Tensor>,
    columns: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let (all_rows, all_columns) = weight.dims2()?;
    let mut op = CompactWeight::new(all_rows, all_columns, weight.dtype().try_into()?)?;
    if let Some(rows) = rows {
        op = op.with_rows(rows.elem_count())?;
    }
    if let Some(columns) = columns {
        op = op.with_columns(columns.elem_count())?;
    }
    let out = Output::new(weight.dtype(), &[op.out_rows(), op.out_columns()])?;
    let mut args = CompactWeightArgs::new(weight, out);
    (args.rows, args.columns) = (rows, columns);
    Ok(runner.run(&op, args)?.out)
}
