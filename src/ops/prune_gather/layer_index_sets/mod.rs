//! The five index sets of every layer of a model, and the file that holds them.

#[cfg(feature = "safetensors")]
mod file;

use super::IndexSet;
use crate::error::{Error, Problem};

const OP: &str = "index_sets";

/// What one layer reads and writes, and which of its neurons are left.
///
/// Source: DISP-LLM (arXiv 2410.11988), S1 to S5 in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerIndexSets {
    /// S1: features that attention reads, of the model's width.
    pub attention_in: IndexSet,
    /// S2: features that attention writes, of the model's width.
    pub attention_out: IndexSet,
    /// S3: features that the MLP reads, of the model's width.
    pub mlp_in: IndexSet,
    /// S4: neurons of the MLP that are kept.
    pub mlp_mid: IndexSet,
    /// S5: features that the MLP writes, of the model's width.
    pub mlp_out: IndexSet,
}

impl LayerIndexSets {
    /// Names of the sets, in the order S1 to S5.
    pub const NAMES: [&'static str; 5] =
        ["attention_in", "attention_out", "mlp_in", "mlp_mid", "mlp_out"];

    /// The sets, in the order of [`LayerIndexSets::NAMES`].
    pub fn sets(&self) -> [&IndexSet; 5] {
        [&self.attention_in, &self.attention_out, &self.mlp_in, &self.mlp_mid, &self.mlp_out]
    }

    #[cfg(any(test, feature = "safetensors"))]
    fn from_sets(sets: [IndexSet; 5]) -> LayerIndexSets {
        let [attention_in, attention_out, mlp_in, mlp_mid, mlp_out] = sets;
        LayerIndexSets { attention_in, attention_out, mlp_in, mlp_mid, mlp_out }
    }

    /// Weights of the MLP that are left, as a share of the dense MLP's:
    /// `(2 |S3| |S4| + |S4| |S5|) / (3 d F)`.
    pub fn mlp_share(&self) -> f64 {
        let [input, mid, output] =
            [&self.mlp_in, &self.mlp_mid, &self.mlp_out].map(|set| set.len() as f64);
        let dense = 3.0 * self.mlp_in.domain() as f64 * self.mlp_mid.domain() as f64;
        share((2.0 * input * mid + mid * output) / dense)
    }

    /// Weights of attention that are left where queries are as wide as the model: `(3 |S1| + |S2|) / (4 d)`.
    pub fn attention_share(&self) -> f64 {
        let kept = 3.0 * self.attention_in.len() as f64 + self.attention_out.len() as f64;
        share(kept / (4.0 * self.attention_in.domain() as f64))
    }
}

/// Of nothing, everything is left.
fn share(value: f64) -> f64 {
    if value.is_nan() { 1.0 } else { value }
}

/// The index sets of all layers of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIndexSets {
    layers: Vec<LayerIndexSets>,
}

impl ModelIndexSets {
    /// The sets of a model's layers, the first layer first.
    ///
    /// # Errors
    /// [`Problem::Shape`] names the first set that chooses from another number of features than its siblings.
    pub fn new(layers: Vec<LayerIndexSets>) -> Result<ModelIndexSets, Error> {
        if let Some(first) = layers.first() {
            let domains = first.sets().map(IndexSet::domain);
            let [width, _, _, neurons, _] = domains;
            for (index, layer) in layers.iter().enumerate() {
                let expected = [width, width, width, neurons, width];
                let sets = LayerIndexSets::NAMES.into_iter().zip(layer.sets()).zip(expected);
                for ((name, set), expected) in sets {
                    check_domain(index, name, set, expected)?;
                }
            }
        }
        Ok(ModelIndexSets { layers })
    }

    /// The layers, the first first.
    pub fn layers(&self) -> &[LayerIndexSets] {
        &self.layers
    }

    /// The model's width; 0 if it has no layers.
    pub fn width(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.mlp_in.domain())
    }

    /// Neurons of a dense MLP; 0 if there are no layers.
    pub fn neurons(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.mlp_mid.domain())
    }
}

fn check_domain(
    layer: usize,
    name: &'static str,
    set: &IndexSet,
    expected: usize,
) -> Result<(), Error> {
    if set.domain() == expected {
        return Ok(());
    }
    let argument = format!("layers.{layer}.{name}");
    let (expected, got) = (format!("a choice from {expected}"), format!("from {}", set.domain()));
    let remedy = "all but mlp_mid choose from the model's width, which all layers share";
    Err(Error::argument(OP, argument, Problem::Shape, expected, got, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn layer(width: usize, neurons: usize) -> LayerIndexSets {
        let even = |domain| IndexSet::new((0..domain as u32).step_by(2).collect(), domain).unwrap();
        LayerIndexSets::from_sets([
            even(width),
            IndexSet::empty(width).unwrap(),
            IndexSet::full(width).unwrap(),
            even(neurons),
            even(width),
        ])
    }

    #[test]
    fn shares_follow_the_sizes() {
        let layer = layer(4, 6);
        assert_eq!(layer.mlp_share(), (2.0 * 4.0 * 3.0 + 3.0 * 2.0) / (3.0 * 4.0 * 6.0));
        assert_eq!(layer.attention_share(), 3.0 * 2.0 / 16.0);
        assert_eq!(self::layer(0, 0).mlp_share(), 1.0);
    }

    #[test]
    fn layers_share_their_widths() {
        assert_eq!(ModelIndexSets::new(vec![layer(4, 6), layer(4, 6)]).unwrap().neurons(), 6);
        for other in [layer(5, 6), layer(4, 7)] {
            let error = ModelIndexSets::new(vec![layer(4, 6), other]).unwrap_err();
            assert!(error.to_string().contains("layers.1."), "{error}");
        }
        let odd = LayerIndexSets { mlp_out: IndexSet::full(5).unwrap(), ..layer(4, 6) };
        let error = ModelIndexSets::new(vec![odd]).unwrap_err();
        assert!(error.to_string().contains("layers.0.mlp_out"), "{error}");
    }
}
