//! Cases of `bigru`.

use crate::arguments::Arguments as _;
use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::layout::Layout;
use crate::ops::feature_attention::BiGruArgs;
use crate::ops::feature_attention::gru::GRU_FIELDS;
use crate::ops::silu_mlp::MLP_DTYPES;
use crate::parameters::Parameters;

/// A GRU over a batch, by description.
#[derive(Clone, Copy)]
struct Gru {
    batch: usize,
    length: usize,
    input: usize,
    hidden: usize,
    layers: usize,
    dtypes: (DType, DType),
    has_lengths: bool,
    has_biases: bool,
    has_initial: bool,
    gap: usize,
    fill: Fill,
}

const PLAIN: Gru = Gru {
    batch: 3,
    length: 7,
    input: 10,
    hidden: 8,
    layers: 1,
    dtypes: (DType::F32, DType::F32),
    has_lengths: true,
    has_biases: true,
    has_initial: false,
    gap: 0,
    fill: Fill::Normal { scale: 1.0 },
};

/// Gates are as exact as f32 sums of some hundred products, and what a step adds to a state's error, the steps behind
/// it mostly forget: 2e-5 is ten times what is seen. One rounding follows.
pub(super) fn tolerance(dtype: DType) -> Tolerance {
    let outer = match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 0.0,
    };
    Tolerance::Rounded { inner: 2e-5, outer, nmse: 1e-10 + outer * outer }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |gru: Gru| cases.push(gru.case(Purpose::Conformance));
    sizes(&mut push);
    options(&mut push);
    for [batch, length, input, hidden] in [
        [32, 32, 300, 50],
        [32, 64, 300, 150],
        [32, 64, 300, 300],
        [1, 50, 300, 50],
        [256, 128, 128, 64],
    ] {
        let gru = Gru { batch, length, input, hidden, has_lengths: false, ..PLAIN };
        cases.push(gru.case(Purpose::Bench));
    }
    let ragged = Gru { batch: 32, length: 64, input: 300, hidden: 150, ..PLAIN };
    cases.push(ragged.case(Purpose::Bench));
    cases
}

/// Hidden sizes of every kernel and around their borders, and texts of every length.
fn sizes(push: &mut impl FnMut(Gru)) {
    for (index, hidden) in
        [1, 2, 15, 16, 17, 31, 33, 50, 63, 64, 65, 75, 96, 128, 129, 150, 192, 256, 257, 300]
            .into_iter()
            .enumerate()
    {
        let dtypes = MLP_DTYPES[index % MLP_DTYPES.len()];
        let length = if hidden > 128 { 3 } else { 5 };
        push(Gru { batch: 2, length, input: 9, hidden, dtypes, ..PLAIN });
        if hidden > 100 {
            push(Gru { batch: 2, length, input: 3, hidden, has_initial: true, ..PLAIN });
        }
    }
    for [batch, length] in [[0, 4], [3, 0], [1, 1], [2, 1], [1, 40], [9, 6], [33, 3], [70, 2]] {
        push(Gru { batch, length, ..PLAIN });
        push(Gru { batch, length, has_lengths: false, has_initial: true, hidden: 5, ..PLAIN });
    }
    push(Gru { batch: 2, length: 600, input: 2, hidden: 3, ..PLAIN });
    for input in [1, 3, 31, 33, 64, 65, 300] {
        push(Gru { input, hidden: 6, ..PLAIN });
    }
    push(Gru { batch: 1, length: 2, input: 4, hidden: 1000, ..PLAIN });
    // Kernels may step through several rows at once, some of which end earlier or are not there.
    for (batch, hidden) in [(6, 70), (7, 131)] {
        push(Gru { batch, length: 5, input: 4, hidden, has_initial: true, ..PLAIN });
    }
}

fn options(push: &mut impl FnMut(Gru)) {
    for (index, dtypes) in MLP_DTYPES.into_iter().enumerate() {
        let layers = 1 + index % 3;
        push(Gru { dtypes, layers, hidden: 12, gap: 4, has_initial: true, ..PLAIN });
        push(Gru { dtypes, layers, hidden: 7, input: 5, gap: 3, has_biases: false, ..PLAIN });
        push(Gru { dtypes, layers: 2, batch: 17, length: 4, has_lengths: false, ..PLAIN });
    }
    push(Gru { layers: 8, hidden: 4, has_initial: true, ..PLAIN });
    push(Gru { fill: Fill::NotFinite { scale: 1.0 }, batch: 9, length: 3, input: 2, ..PLAIN });
    push(Gru { fill: Fill::Outliers { scale: 3.0 }, batch: 4, length: 30, input: 64, ..PLAIN });
    push(Gru { fill: Fill::Extremes, batch: 4, length: 6, input: 5, ..PLAIN });
}

impl Gru {
    fn name(&self) -> String {
        let Gru { batch, length, input, hidden, layers, .. } = self;
        let mut name =
            format!("batch={batch} length={length} input={input} hidden={hidden} layers={layers}");
        let options = [
            (self.has_lengths, " lengths"),
            (!self.has_biases, " no biases"),
            (self.has_initial, " h0"),
            (self.gap > 0, " gap"),
            (matches!(self.fill, Fill::NotFinite { .. }), " not finite"),
            (matches!(self.fill, Fill::Outliers { .. }), " outliers"),
            (self.fill == Fill::Extremes, " extremes"),
        ];
        name.extend(options.into_iter().filter(|(is_on, _)| *is_on).map(|(_, option)| option));
        name
    }

    fn case(self, purpose: Purpose) -> Case {
        let (dtype, weight) = self.dtypes;
        let label = if dtype == weight {
            dtype.name().to_owned()
        } else {
            format!("{}/{}", dtype.name(), weight.name())
        };
        Case {
            op: "bigru",
            name: self.name(),
            dtype: label,
            purpose,
            tensors: self.tensors(),
            parameters: Parameters::new(),
            output_gap: self.gap,
            tolerance: tolerance(dtype),
        }
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let Gru { batch, length, input, hidden, layers, dtypes: (dtype, weight), .. } = *self;
        let spec = |name, dtype, shape: &[usize], fill| TensorSpec {
            name,
            dtype,
            shape: shape.to_vec(),
            gap: if shape.len() > 1 { self.gap } else { 0 },
            fill,
        };
        let mut tensors = vec![spec("x", dtype, &[batch, length, input], self.fill)];
        for layer in 0..layers {
            let inputs = if layer == 0 { input } else { 2 * hidden };
            // Four fields a direction.
            for fields in BiGruArgs::<Layout, Layout>::FIELDS[GRU_FIELDS].chunks(4) {
                let name = |field: usize| fields[field][layer].name;
                let [weight_ih, weight_hh, bias_ih, bias_hh] = [0, 1, 2, 3].map(name);
                let normal = |fan: usize| Fill::Normal { scale: (fan as f64).sqrt().recip() };
                let mut weights = [
                    spec(weight_ih, weight, &[3 * hidden, inputs], normal(inputs)),
                    spec(weight_hh, weight, &[3 * hidden, hidden], normal(hidden)),
                ];
                // Strides that belong to one direction must not serve the other.
                if weight_ih.ends_with("_reverse") {
                    weights.iter_mut().for_each(|spec| spec.gap *= 3);
                }
                tensors.extend(weights);
                if self.has_biases {
                    let bias = Fill::Normal { scale: 0.5 };
                    tensors.push(spec(bias_ih, weight, &[3 * hidden], bias));
                    tensors.push(spec(bias_hh, weight, &[3 * hidden], bias));
                }
            }
        }
        if self.has_initial {
            let states = [2 * layers, batch, hidden];
            tensors.push(spec("h0", dtype, &states, Fill::Normal { scale: 0.5 }));
        }
        if self.has_lengths {
            let lengths = Fill::Integers { from: 0, below: length as i32 + 1 };
            tensors.push(spec("lengths", DType::I32, &[batch], lengths));
        }
        tensors
    }
}
