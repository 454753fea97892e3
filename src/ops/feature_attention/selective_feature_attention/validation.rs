//! Everything that kernels of [`SelectiveFeatureAttention`] rely on.

use super::{SelectiveFeatureAttention, SelectiveFeatureAttentionArgs};
use crate::arguments::{Arguments as _, MAX_REPEATED};
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::feature_attention::gru::{GRU_FIELDS, GruShape, gru_tensors};
use crate::ops::feature_attention::lengths;
use crate::validate::Validator;

type Layouts = SelectiveFeatureAttentionArgs<Layout, Layout>;

/// The fields of the selection's weights and biases.
pub(super) const SELECT_FIELDS: [usize; 2] = [13, 14];

impl SelectiveFeatureAttention {
    /// Texts and tokens of a text; a shape error unless `x` has both.
    pub(super) fn extent(&self, x: &Layout) -> Result<[usize; 2], Error> {
        match *x.shape() {
            [batch, length, features] if features == self.features => Ok([batch, length]),
            ref got => {
                let (expected, got) = (format!("[B, L, {}]", self.features), format!("{got:?}"));
                Err(Error::argument(Self::NAME, "x", Problem::Shape, expected, got, X))
            }
        }
    }

    pub(super) fn validate_layouts(&self, args: &Layouts) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let [batch, length] = self.extent(&args.x)?;
        check.dimension("x", batch.saturating_mul(length), 0)?;
        check.tensor("x", &args.x, self.dtype, &[batch, length, self.features], X)?;
        lengths::validate(&check, &args.lengths, batch)?;
        let shape = GruShape {
            layers: self.branches,
            inputs: [self.reduced; 2],
            hidden: self.hidden(),
            dtype: self.weight_dtype,
        };
        gru_tensors!(args).validate(&check, &Layouts::FIELDS[GRU_FIELDS], &shape)?;
        self.validate_products(&check, args)?;
        check.float("out", args.out.dtype())?;
        let outputs = [batch, length, self.features];
        check.tensor("out", &args.out, args.out.dtype(), &outputs, "as x")
    }

    fn validate_products(&self, check: &Validator, args: &Layouts) -> Result<(), Error> {
        let (dtype, [all, d1, d2]) =
            (self.weight_dtype, [self.features, self.reduced, self.squeezed]);
        check.tensor("reduce_weight", &args.reduce_weight, dtype, &[d1, all], PRODUCT)?;
        check.optional_tensor("reduce_bias", &args.reduce_bias, dtype, &[d1], BIAS)?;
        check.tensor("squeeze_weight", &args.squeeze_weight, dtype, &[d2, d1], PRODUCT)?;
        check.optional_tensor("squeeze_bias", &args.squeeze_bias, dtype, &[d2], BIAS)?;
        check.tensor("expand_weight", &args.expand_weight, dtype, &[all, d1], PRODUCT)?;
        check.optional_tensor("expand_bias", &args.expand_bias, dtype, &[all], BIAS)?;
        let [weights, biases] = SELECT_FIELDS.map(|field| Layouts::FIELDS[field]);
        for branch in 0..MAX_REPEATED {
            let wanted = branch < self.branches;
            let (weight, bias) = (args.select_weight.get(branch), args.select_bias.get(branch));
            check.presence(weights[branch].name, weight.is_some(), wanted, BRANCHES)?;
            if !wanted {
                check.presence(biases[branch].name, bias.is_some(), false, BRANCHES)?;
            }
            let [weight, bias] = [weight, bias].map(Option::<&Layout>::copied);
            check.optional_tensor(weights[branch].name, &weight, dtype, &[d1, d2], PRODUCT)?;
            check.optional_tensor(biases[branch].name, &bias, dtype, &[d1], BIAS)?;
        }
        Ok(())
    }
}

const X: &str = "texts, tokens, features";
const PRODUCT: &str = "outputs, inputs, as torch.nn.Linear has them";
const BIAS: &str = "one value a row of the weight, in the weights' type";
const BRANCHES: &str = "one for each branch";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_validation_looks_for_them() {
        let pattern = |field: usize| Layouts::FIELDS[field][0].pattern;
        assert_eq!(SELECT_FIELDS.map(pattern), ["select{k}_weight", "select{k}_bias"]);
    }
}
