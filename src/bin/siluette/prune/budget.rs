//! Masks from the magnitude of the weights, for a given share of weights to keep.
//!
//! A stand-in for DISP-LLM's hypernetwork, which learns its masks by training on text: cheap, deterministic and
//! good enough to try the pipeline, not to publish a model. Every layer keeps the same shares; which features and
//! neurons, its own weights decide.

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use siluette::device::NamedTensors;
use siluette::{
    Error, IndexSet, LayerIndexSets, ModelIndexSets, Parameters, Problem, Tensor, bf16, f16,
};

use super::compute::on_cpu;
use super::llama::{Llama, Projection};
use super::mistake;
use crate::output;

/// Sizes are multiples of this, where the budget allows: what tensor cores read at a time.
const UNIT: usize = 16;

/// Keeps `budget` of the weights of each attention and MLP block, between 0 and 1.
///
/// The MLP keeps a share `sqrt(budget)` of features and of neurons, since its weights are their product; attention,
/// whose heads stay whole, keeps `budget` of its features.
pub fn choose(model: &Llama, budget: f64) -> Result<ModelIndexSets, Error> {
    if !(0.0..=1.0).contains(&budget) {
        let got = budget.to_string();
        return Err(mistake("budget", Problem::Value, "a share between 0 and 1", &got));
    }
    let progress = output::progress(model.layers());
    let mut layers = Vec::new();
    for layer in 0..model.layers() {
        layers.push(choose_layer(model, layer, budget)?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    ModelIndexSets::new(layers)
}

fn choose_layer(model: &Llama, layer: usize, budget: f64) -> Result<LayerIndexSets, Error> {
    let squares = |projection| Squares::of(&model.matrix(layer, projection)?);
    let [query, key, value] =
        [squares(Projection::Query)?, squares(Projection::Key)?, squares(Projection::Value)?];
    let attention = squares(Projection::AttentionOutput)?;
    let (gate, up) = (squares(Projection::Gate)?, squares(Projection::Up)?);
    let down = squares(Projection::Down)?;

    let reads = |matrices: &[&Squares]| -> Vec<f64> {
        let sum = |feature| matrices.iter().map(|matrix| matrix.columns[feature]).sum();
        (0..model.width()).map(sum).collect()
    };
    let neurons: Vec<f64> = gate
        .rows
        .iter()
        .zip(&up.rows)
        .zip(&down.columns)
        .map(|((gate, up), down)| gate * up * down)
        .collect();
    let top = |scores: &[f64], share: f64| top(scores, rounded(scores.len(), share));
    let mlp = budget.sqrt();
    Ok(LayerIndexSets {
        attention_in: top(&reads(&[&query, &key, &value]), budget)?,
        attention_out: top(&attention.rows, budget)?,
        mlp_in: top(&reads(&[&gate, &up]), mlp)?,
        mlp_mid: top(&neurons, mlp)?,
        mlp_out: top(&down.rows, mlp)?,
    })
}

/// `share` of `length`, to the nearest multiple of [`UNIT`] that there is, or all of it.
fn rounded(length: usize, share: f64) -> usize {
    let exact = length as f64 * share;
    if length < UNIT {
        return exact.round() as usize;
    }
    let multiple = ((exact / UNIT as f64).round() as usize * UNIT).min(length);
    let all_is_nearer = length as f64 - exact < (exact - multiple as f64).abs();
    if all_is_nearer { length } else { multiple }
}

/// The `k` largest.
fn top(scores: &[f64], k: usize) -> Result<IndexSet, Error> {
    // Only their order matters: brought to a range that f32 holds.
    let largest = scores.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let narrow: Vec<f32> = scores.iter().map(|score| (score / largest).sqrt() as f32).collect();
    let inputs =
        NamedTensors::from([("scores".to_owned(), Tensor::from_slice(&narrow, &[narrow.len()])?)]);
    let parameters = Parameters::new().with("k", &k.to_string());
    let indices = on_cpu("select_top", inputs, &parameters)?;
    let indices = indices.get("indices").and_then(|tensor| tensor.view().as_slice::<u32>());
    IndexSet::new(indices.unwrap_or_default().to_vec(), scores.len())
}

/// Sums of the squares of a matrix, by row and by column.
struct Squares {
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl Squares {
    fn of(matrix: &TensorView<'_>) -> Result<Squares, Error> {
        let (rows, columns) = (matrix.shape()[0], matrix.shape()[1]);
        let size = matrix.dtype().bitsize() / 8;
        let element: fn(&[u8]) -> f64 = match matrix.dtype() {
            Dtype::F32 => |bytes| f32::from_le_bytes(bytes.try_into().unwrap_or_default()).into(),
            Dtype::F16 => |bytes| f16::from_le_bytes(bytes.try_into().unwrap_or_default()).into(),
            Dtype::BF16 => |bytes| bf16::from_le_bytes(bytes.try_into().unwrap_or_default()).into(),
            other => {
                let got = format!("{other:?}");
                return Err(mistake("model", Problem::DType, "F32, F16 or BF16 weights", &got));
            }
        };
        let mut squares = Squares { rows: vec![0.0; rows], columns: vec![0.0; columns] };
        for (index, bytes) in matrix.data().chunks_exact(size).enumerate() {
            let square = element(bytes).powi(2);
            squares.rows[index / columns] += square;
            squares.columns[index % columns] += square;
        }
        Ok(squares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_multiples_where_there_are_any() {
        assert_eq!(rounded(576, 0.5), 288);
        assert_eq!(rounded(576, 0.5f64.sqrt()), 400);
        assert_eq!([rounded(20, 0.85), rounded(20, 0.95)], [16, 20]);
        assert_eq!(rounded(6, 0.5), 3);
        assert_eq!([rounded(576, 0.0), rounded(576, 1.0)], [0, 576]);
    }

    #[test]
    fn squares_are_summed_both_ways() {
        let bytes: Vec<u8> = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0].map(f32::to_le_bytes).concat();
        let view = TensorView::new(Dtype::F32, vec![2, 3], &bytes).unwrap();
        let squares = Squares::of(&view).unwrap();
        assert_eq!((squares.rows, squares.columns), (vec![14.0, 77.0], vec![17.0, 29.0, 45.0]));
    }
}
