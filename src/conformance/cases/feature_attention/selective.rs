//! Cases of `selective_feature_attention`.

use super::bigru;
use crate::arguments::Arguments as _;
use crate::conformance::{Case, Fill, Purpose, TensorSpec, Tolerance};
use crate::dtype::DType;
use crate::layout::Layout;
use crate::ops::feature_attention::SelectiveFeatureAttentionArgs;
use crate::ops::silu_mlp::MLP_DTYPES;
use crate::parameters::Parameters;

/// A selective feature attention over a batch, by description.
#[derive(Clone, Copy)]
struct Selective {
    batch: usize,
    length: usize,
    features: usize,
    reduced: usize,
    squeezed: usize,
    branches: usize,
    dtypes: (DType, DType),
    stack_mode: &'static str,
    select: &'static str,
    has_lengths: bool,
    has_biases: bool,
    gap: usize,
    fill: Fill,
}

const PLAIN: Selective = Selective {
    batch: 3,
    length: 6,
    features: 10,
    reduced: 8,
    squeezed: 5,
    branches: 3,
    dtypes: (DType::F32, DType::F32),
    stack_mode: "output_chained",
    select: "branch_softmax",
    has_lengths: true,
    has_biases: true,
    gap: 0,
    fill: Fill::Normal { scale: 1.0 },
};

/// As exact as the states that are selected, in units of the expansion's weights.
pub(super) fn tolerance(out: DType) -> Tolerance {
    bigru::tolerance(out)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |case: Selective| cases.push(case.case(Purpose::Conformance));
    for (index, reduced) in [2, 6, 16, 30, 64, 66, 100, 130].into_iter().enumerate() {
        let dtypes = MLP_DTYPES[index % MLP_DTYPES.len()];
        let stack_mode = ["output_chained", "state_chained"][index % 2];
        let squeezed = [1, 7, 33, 60][index % 4];
        push(Selective { reduced, squeezed, dtypes, stack_mode, batch: 2, length: 4, ..PLAIN });
    }
    // On CUDA, 128 and less is one launch for all branches, whose tiles hold 32 tokens.
    for reduced in [128, 130] {
        let several = Selective { reduced, squeezed: 33, batch: 2, ..PLAIN };
        push(Selective { length: 33, select: "global_sum", ..several });
        push(Selective { length: 65, has_lengths: false, branches: 2, ..several });
        let stack_mode = "state_chained";
        push(Selective { length: 3, branches: 8, stack_mode, has_biases: false, ..several });
    }
    for (index, [batch, length]) in
        [[0, 4], [3, 0], [1, 1], [5, 1], [1, 30], [9, 5], [33, 2]].into_iter().enumerate()
    {
        let select = ["branch_softmax", "global_sum"][index % 2];
        push(Selective { batch, length, select, ..PLAIN });
        push(Selective { batch, length, has_lengths: false, reduced: 12, branches: 2, ..PLAIN });
    }
    for (index, branches) in [1, 2, 4, 8].into_iter().enumerate() {
        let select = ["global_sum", "branch_softmax"][index % 2];
        push(Selective { branches, select, stack_mode: "state_chained", ..PLAIN });
    }
    for features in [1, 31, 33, 64, 65, 150] {
        push(Selective { features, gap: features % 2 * 3, ..PLAIN });
    }
    for (index, dtypes) in MLP_DTYPES.into_iter().enumerate() {
        let select = ["global_sum", "branch_softmax"][index % 2];
        push(Selective { dtypes, select, gap: 4, has_biases: false, ..PLAIN });
    }
    push(Selective {
        fill: Fill::NotFinite { scale: 1.0 },
        batch: 7,
        length: 2,
        features: 3,
        ..PLAIN
    });
    push(Selective { fill: Fill::Outliers { scale: 2.0 }, length: 20, features: 70, ..PLAIN });
    push(Selective { batch: 2, length: 530, features: 2, reduced: 4, ..PLAIN });
    let usual =
        Selective { features: 600, reduced: 100, squeezed: 60, has_lengths: false, ..PLAIN };
    for [batch, length] in [[32, 50], [1, 50], [256, 128]] {
        cases.push(Selective { batch, length, ..usual }.case(Purpose::Bench));
    }
    cases
        .push(Selective { batch: 32, length: 50, has_lengths: true, ..usual }.case(Purpose::Bench));
    cases
}

impl Selective {
    fn name(&self) -> String {
        let Selective { batch, length, features, reduced, squeezed, branches, .. } = self;
        let mut name = format!(
            "batch={batch} length={length} features={features} reduced={reduced} \
             squeezed={squeezed} branches={branches}"
        );
        let options = [
            (self.stack_mode == "state_chained", " state chained"),
            (self.select == "global_sum", " global sum"),
            (self.has_lengths, " lengths"),
            (!self.has_biases, " no biases"),
            (self.gap > 0, " gap"),
            (matches!(self.fill, Fill::NotFinite { .. }), " not finite"),
            (matches!(self.fill, Fill::Outliers { .. }), " outliers"),
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
        let parameters =
            Parameters::new().with("stack_mode", self.stack_mode).with("select", self.select);
        Case {
            op: "selective_feature_attention",
            name: self.name(),
            dtype: label,
            purpose,
            tensors: self.tensors(),
            parameters,
            output_gap: self.gap,
            tolerance: tolerance(dtype),
        }
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let Selective { batch, length, features, reduced, squeezed, branches, .. } = *self;
        let (dtype, weight) = self.dtypes;
        let spec = |name, dtype, shape: &[usize], fill| TensorSpec {
            name,
            dtype,
            shape: shape.to_vec(),
            gap: if shape.len() > 1 { self.gap } else { 0 },
            fill,
        };
        let mut tensors = vec![spec("x", dtype, &[batch, length, features], self.fill)];
        let mut linear =
            |[name, bias]: [&'static str; 2], rows: usize, columns: usize, scale: f64| {
                let fill = Fill::Normal { scale: scale / (columns as f64).sqrt() };
                tensors.push(spec(name, weight, &[rows, columns], fill));
                if self.has_biases {
                    tensors.push(spec(bias, weight, &[rows], Fill::Normal { scale: 0.3 }));
                }
            };
        linear(["reduce_weight", "reduce_bias"], reduced, features, 1.0);
        linear(["squeeze_weight", "squeeze_bias"], squeezed, reduced, 2.0);
        linear(["expand_weight", "expand_bias"], features, reduced, 1.0);
        let fields = SelectiveFeatureAttentionArgs::<Layout, Layout>::FIELDS;
        let hidden = reduced / 2;
        let name = |field: usize, branch: usize| fields[field][branch].name;
        for branch in 0..branches {
            // Two directions of four fields each, then the selection's.
            for first in [1, 5] {
                let rows = 3 * hidden;
                let [weight_ih, weight_hh, bias_ih, bias_hh] =
                    [0, 1, 2, 3].map(|tensor| name(first + tensor, branch));
                linear([weight_ih, bias_ih], rows, reduced, 1.0);
                linear([weight_hh, bias_hh], rows, hidden, 1.0);
            }
            linear([name(13, branch), name(14, branch)], reduced, squeezed, 3.0);
        }
        if self.has_lengths {
            let lengths = Fill::Integers { from: 0, below: length as i32 + 1 };
            tensors.push(spec("lengths", DType::I32, &[batch], lengths));
        }
        tensors
    }
}
