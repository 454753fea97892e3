//! What operations share that run bidirectional GRUs: weights of layers, and the recurrence.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod reference;
pub(crate) mod scratch;
#[cfg(feature = "safetensors")]
pub(crate) mod weights;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

use crate::arguments::{ArgumentInfo, Repeated};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::validate::Validator;

/// One direction of a layer: `[3h, in]`, `[3h, h]`, `[3h]`, `[3h]`, gates in the order r, z, n.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GruDirection<T> {
    pub weight_ih: T,
    pub weight_hh: T,
    pub bias_ih: Option<T>,
    pub bias_hh: Option<T>,
}

/// Both directions of a layer, forward and reverse.
pub(crate) type GruLayer<T> = [GruDirection<T>; 2];

/// Where the eight repeated tensors stand among the fields of an argument struct: behind `x`.
pub(crate) const GRU_FIELDS: std::ops::Range<usize> = 1..9;

/// The weights of all layers, as the argument structs hold them.
pub(crate) struct GruTensors<T> {
    /// Forward, reverse: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`.
    pub directions: [[Repeated<T>; 4]; 2],
}

/// The weights in the fields of an argument struct: `gru_tensors!(args)` takes copies, `gru_tensors!(args, as_ref)`
/// references.
macro_rules! gru_tensors {
    ($args:ident $(, $as_ref:ident)?) => {
        $crate::ops::feature_attention::gru::GruTensors {
            directions: [
                [
                    $args.weight_ih$(.$as_ref())?,
                    $args.weight_hh$(.$as_ref())?,
                    $args.bias_ih$(.$as_ref())?,
                    $args.bias_hh$(.$as_ref())?,
                ],
                [
                    $args.weight_ih_reverse$(.$as_ref())?,
                    $args.weight_hh_reverse$(.$as_ref())?,
                    $args.bias_ih_reverse$(.$as_ref())?,
                    $args.bias_hh_reverse$(.$as_ref())?,
                ],
            ],
        }
    };
}
pub(crate) use gru_tensors;

/// The size of a layer's work, and its types.
#[derive(Clone, Copy, Debug)]
#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub(crate) struct GruExtent {
    pub op: &'static str,
    pub batch: usize,
    pub steps: usize,
    /// Of what the layer reads.
    pub features: usize,
    pub hidden: usize,
    /// Of what the layer reads.
    pub activation: DType,
    pub weight: DType,
}

#[cfg(feature = "cuda")]
impl<T> GruTensors<T> {
    /// What `make` makes of each tensor; `fields` are those of the eight repeated tensors, in order.
    pub fn try_map<To>(
        self,
        fields: &[&'static [ArgumentInfo]],
        mut make: impl FnMut(&'static ArgumentInfo, T) -> Result<To, Error>,
    ) -> Result<GruTensors<To>, Error> {
        let mut directions = [const { [const { Repeated::none() }; 4] }; 2];
        let tensors = self.directions.into_iter().flatten();
        for ((slot, tensors), field) in directions.iter_mut().flatten().zip(tensors).zip(fields) {
            *slot = tensors.try_map(field, &mut make)?;
        }
        Ok(GruTensors { directions })
    }

    pub fn as_ref(&self) -> GruTensors<&T> {
        let directions = self.directions.each_ref();
        GruTensors {
            directions: directions.map(|tensors| tensors.each_ref().map(Repeated::as_ref)),
        }
    }
}

impl<T: Copy> GruTensors<T> {
    /// The weights of a layer that validation has shown to be there.
    pub fn layer(&self, layer: usize) -> GruLayer<T> {
        self.directions.each_ref().map(|[weight_ih, weight_hh, bias_ih, bias_hh]| {
            let required = |weights: &Repeated<T>| {
                *weights.get(layer).expect("validated: as many layers as the descriptor has")
            };
            GruDirection {
                weight_ih: required(weight_ih),
                weight_hh: required(weight_hh),
                bias_ih: bias_ih.get(layer).copied(),
                bias_hh: bias_hh.get(layer).copied(),
            }
        })
    }
}

/// What the weights of GRU layers must be.
pub(crate) struct GruShape {
    pub layers: usize,
    /// Features that the first layer reads, and that the others do.
    pub inputs: [usize; 2],
    pub hidden: usize,
    pub dtype: DType,
}

impl GruTensors<Layout> {
    /// `fields` are those of the eight repeated tensors, in order.
    pub fn validate(
        &self,
        check: &Validator,
        fields: &[&'static [ArgumentInfo]],
        shape: &GruShape,
    ) -> Result<(), Error> {
        for (direction, tensors) in self.directions.iter().enumerate() {
            for (place, tensors) in tensors.iter().enumerate() {
                let field = fields[4 * direction + place];
                for (layer, info) in field.iter().enumerate() {
                    let wanted = layer < shape.layers;
                    let is_bias = place >= 2;
                    let layout = tensors.get(layer).copied();
                    let name = info.name;
                    if !(wanted && is_bias) {
                        let remedy = if direction == 1 && wanted { REVERSE } else { LAYERS };
                        check.presence(name, layout.is_some(), wanted, remedy)?;
                    }
                    let columns = match place {
                        0 => shape.inputs[usize::from(layer > 0)],
                        _ => shape.hidden,
                    };
                    let rows = 3 * shape.hidden;
                    let dimensions = if is_bias { &[rows][..] } else { &[rows, columns] };
                    check.optional_tensor(name, &layout, shape.dtype, dimensions, GATES)?;
                }
            }
        }
        Ok(())
    }
}

/// That three gates of `hidden` rows stay within what kernels can index.
pub(crate) fn validate_hidden(op: &'static str, hidden: usize) -> Result<(), Error> {
    Validator::new(op).dimension("hidden", hidden, 1)?;
    if hidden <= MAX_HIDDEN {
        return Ok(());
    }
    let expected = format!("at most {MAX_HIDDEN}");
    Err(Error::argument(op, "hidden", Problem::Size, expected, hidden, ""))
}

/// Both directions' gates in 31 bits.
const MAX_HIDDEN: usize = i32::MAX as usize / 6;

const GATES: &str = "three gates of `hidden` rows in the order r, z, n, as torch.nn.GRU has them";
const REVERSE: &str = "every layer runs in both directions and needs the weights of both";
const LAYERS: &str = "one for each layer";

#[cfg(test)]
mod tests {
    use super::GRU_FIELDS;
    use crate::arguments::Arguments;
    use crate::layout::Layout;
    use crate::ops::feature_attention::{BiGruArgs, SelectiveFeatureAttentionArgs};

    fn ends<A: Arguments<Layout, Layout>>() -> [&'static str; 2] {
        [GRU_FIELDS.start, GRU_FIELDS.end - 1].map(|field| A::FIELDS[field][0].pattern)
    }

    #[test]
    fn weights_are_where_they_are_looked_for() {
        let patterns = ends::<BiGruArgs<Layout, Layout>>();
        assert_eq!(patterns, ["weight_ih_l{k}", "bias_hh_l{k}_reverse"]);
        let patterns = ends::<SelectiveFeatureAttentionArgs<Layout, Layout>>();
        assert_eq!(patterns, ["branch{k}.weight_ih", "branch{k}.bias_hh_reverse"]);
    }
}
