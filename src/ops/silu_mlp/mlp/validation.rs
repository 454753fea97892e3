//! Everything that the kernels of a block rely on.

use super::config::{First, MlpConfig, MlpTensors};
use crate::backend::cpu::packed_weight::WeightForm;
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::ops::prune_gather::index_set::{check_ascending, index_values};
use crate::tensor::TensorRef;
use crate::validate::Validator;

impl MlpConfig {
    /// As [`MlpConfig::validate`]; the weights may be packed, all of them or none.
    pub(super) fn validate_weight_form(
        &self,
        args: &MlpTensors<Layout, Layout>,
    ) -> Result<WeightForm, Error> {
        let check = Validator::new(self.op);
        let first = [self.ffn, self.inputs];
        let second =
            [self.outputs, if self.first == First::Absent { self.inputs } else { self.ffn }];
        let mut lying = *args;
        let weights = [
            ("gate_weight", lying.gate_weight.as_mut(), first),
            ("up_weight", lying.up_weight.as_mut(), first),
            (self.down_names()[0], Some(&mut lying.down_weight), second),
        ];
        let mut forms = [None; 3];
        for (form, (name, layout, shape)) in forms.iter_mut().zip(weights) {
            let Some(layout) = layout else { continue };
            *form = Some((name, check.weight_form(name, layout, shape)?));
        }
        self.validate(&lying)?;
        let mut forms = forms.into_iter().flatten();
        let Some((first, form)) = forms.next() else { return Ok(WeightForm::AsTheyLie) };
        match forms.find(|&(_, other)| other != form) {
            Some((name, _)) => Err(check.mixed_packing(name, first, form)),
            None => Ok(form),
        }
    }

    pub fn validate(&self, args: &MlpTensors<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(self.op);
        let activation = self.activation_dtype;
        let rows = check.rows("x", &args.x, self.hidden, X)?;
        check.tensor("x", &args.x, activation, &[rows, self.hidden], X)?;
        self.validate_weights(args)?;
        self.validate_selection(args)?;
        let written = [rows, self.width];
        if self.first == First::Absent && self.scatters {
            check.presence("residual", args.residual.is_some(), true, SCATTERED)?;
        }
        check.optional_tensor("residual", &args.residual, activation, &written, OUT)?;
        check.float("out", args.out.dtype())?;
        check.tensor("out", &args.out, args.out.dtype(), &written, OUT)
    }

    fn validate_weights(&self, args: &MlpTensors<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(self.op);
        let (weight, ffn, outputs) = (self.weight_dtype, self.ffn, self.outputs);
        let first = [ffn, self.inputs];
        check.presence("gate_weight", args.gate_weight.is_some(), self.is_gated(), "")?;
        check.optional_tensor("gate_weight", &args.gate_weight, weight, &first, FIRST)?;
        check.presence("up_weight", args.up_weight.is_some(), self.first != First::Absent, "")?;
        check.optional_tensor("up_weight", &args.up_weight, weight, &first, FIRST)?;
        let [down_weight, down_bias] = self.down_names();
        let (second, meaning) = match self.first {
            First::Absent => ([outputs, self.inputs], ONLY),
            _ => ([outputs, ffn], SECOND),
        };
        check.tensor(down_weight, &args.down_weight, weight, &second, meaning)?;
        check.optional_tensor("gate_bias", &args.gate_bias, weight, &[ffn], FIRST_BIAS)?;
        check.optional_tensor("up_bias", &args.up_bias, weight, &[ffn], FIRST_BIAS)?;
        check.optional_tensor(down_bias, &args.down_bias, weight, &[outputs], SECOND_BIAS)?;
        check.presence("norm_weight", args.norm_weight.is_some(), self.norm.is_some(), NORM)?;
        check.optional_tensor("norm_weight", &args.norm_weight, weight, &[self.hidden], NORMED)
    }

    fn validate_selection(&self, args: &MlpTensors<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(self.op);
        for (name, indices, wanted, length, meaning) in [
            ("in_indices", &args.in_indices, self.gathers, self.inputs, READ),
            ("out_indices", &args.out_indices, self.scatters, self.outputs, WRITTEN),
        ] {
            check.presence(name, indices.is_some(), wanted, meaning)?;
            check.optional_tensor(name, indices, DType::U32, &[length], meaning)?;
        }
        for (name, mask, length) in [
            ("in_mask", &args.in_mask, self.hidden),
            ("mid_mask", &args.mid_mask, self.ffn),
            ("out_mask", &args.out_mask, self.outputs),
        ] {
            check.presence(name, mask.is_some(), self.masked, "")?;
            check.optional_tensor(name, mask, DType::F32, &[length], MASK)?;
        }
        Ok(())
    }

    /// As [`crate::Operation::validate_values`]; `args` are valid.
    pub fn validate_values<Out>(&self, args: &MlpTensors<TensorRef<'_>, Out>) -> Result<(), Error> {
        for (name, indices, domain) in [
            ("in_indices", args.in_indices, self.hidden),
            ("out_indices", args.out_indices, self.width),
        ] {
            if let Some(indices) = indices {
                check_ascending(self.op, name, index_values(indices), domain)?;
            }
        }
        Ok(())
    }
}

pub(super) const X: &str = "one row of `hidden` features a token";
const OUT: &str = "one row for each of x, of as many features as are written";
const FIRST: &str = "out_features = ffn, in_features = features that are read";
const SECOND: &str = "out_features = features that are written, in_features = ffn";
const ONLY: &str = "out_features = features that are written, in_features = features that are read";
const FIRST_BIAS: &str = "one value an ffn neuron, in the weights' type";
const SECOND_BIAS: &str = "one value a row of the weight, in the weights' type";
const NORMED: &str = "one value a feature of x, in the weights' type";
const NORM: &str = "it goes with a descriptor made `with_norm`";
const READ: &str = "one index for each column of the weights that read it";
const WRITTEN: &str = "one index for each row of the weights that write it";
const SCATTERED: &str = "what out_indices write is added to it";
const MASK: &str = "one f32 value a feature, or a neuron";
