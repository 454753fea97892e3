//! Everything that the kernels of a head rely on, and what they cost.

use super::{ExitHeadArgs, ExitHeadStatesArgs};
use crate::backend::cpu::packed_weight::WeightForm;
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::operation::Cost;
use crate::ops::early_exit::config::HeadConfig;
use crate::ops::early_exit::merge_exit_states::{self, MergeExitStates};
use crate::ops::early_exit::state;
use crate::validate::Validator;

const HIDDEN: &str = "[R, D]";
const WEIGHT: &str = "[V, D]: out_features = vocabulary, in_features = hidden";
const OF_ROWS: &str = "[M]: one for each row of the outputs";
const NORM: &str = "norm_weight goes with a descriptor that has a norm, and only with one";

impl HeadConfig {
    /// As [`HeadConfig::validate_results`]; the weight may be packed.
    pub(super) fn validate_results_form(
        &self,
        args: &ExitHeadArgs<Layout, Layout>,
    ) -> Result<WeightForm, Error> {
        let (form, head_weight) = self.weight_form(args.head_weight)?;
        self.validate_results(&ExitHeadArgs { head_weight, ..*args })?;
        Ok(form)
    }

    /// As [`HeadConfig::validate_states`]; the weight may be packed.
    pub(super) fn validate_states_form(
        &self,
        args: &ExitHeadStatesArgs<Layout, Layout>,
    ) -> Result<WeightForm, Error> {
        let (form, head_weight) = self.weight_form(args.head_weight)?;
        self.validate_states(&ExitHeadStatesArgs { head_weight, ..*args })?;
        Ok(form)
    }

    fn weight_form(&self, mut head_weight: Layout) -> Result<(WeightForm, Layout), Error> {
        let shape = [self.vocabulary, self.hidden];
        let check = Validator::new(self.op);
        let form = check.weight_form("head_weight", &mut head_weight, shape)?;
        Ok((form, head_weight))
    }

    pub(super) fn validate_states(
        &self,
        args: &ExitHeadStatesArgs<Layout, Layout>,
    ) -> Result<(), Error> {
        let check = Validator::new(self.op);
        let rows = self.output_rows(&args.hidden, args.rows.as_ref())?;
        let all = args.hidden.shape()[0];
        check.tensor("hidden", &args.hidden, self.activation_dtype, &[all, self.hidden], HIDDEN)?;
        let (weight, vocabulary) = (self.weight_dtype, self.vocabulary);
        check.tensor(
            "head_weight",
            &args.head_weight,
            weight,
            &[vocabulary, self.hidden],
            WEIGHT,
        )?;
        check.presence("norm_weight", args.norm_weight.is_some(), self.norm.is_some(), NORM)?;
        check.optional_tensor("norm_weight", &args.norm_weight, weight, &[self.hidden], "[D]")?;
        check.optional_tensor("head_bias", &args.head_bias, weight, &[vocabulary], "[V]")?;
        for (name, tensor) in [
            ("rows", &args.rows),
            ("positions", &args.positions),
            ("gather_tokens", &args.gather_tokens),
        ] {
            check.optional_tensor(name, tensor, DType::I32, &[rows], OF_ROWS)?;
        }
        check.optional_tensor("seeds", &args.seeds, DType::U32, &[rows, 2], "[M, 2]")?;
        if args.seeds.is_some() {
            let remedy = "seeds are of noise that is drawn by position";
            check.presence("positions", args.positions.is_some(), true, remedy)?;
        }
        let [values, tokens] = state::shapes(self.tiles(), rows, self.top_k);
        check.tensor("state_values", &args.state_values, DType::F32, &values, state::VALUES)?;
        check.tensor("state_tokens", &args.state_tokens, DType::I32, &tokens, state::TOKENS)?;
        check.optional_tensor("logits", &args.logits, DType::F32, &[rows, vocabulary], "[M, V]")
    }

    pub(super) fn validate_results(
        &self,
        args: &ExitHeadArgs<Layout, Layout>,
    ) -> Result<(), Error> {
        let check = Validator::new(self.op);
        let rows = self.output_rows(&args.hidden, args.rows.as_ref())?;
        let [values, tokens] = state::layouts(self.tiles(), rows, self.top_k)?;
        self.validate_states(&args.states(values, tokens, args.logits))?;
        for (output, wanted, input, present) in [
            ("sampled_token", args.sampled_token, "positions", args.positions),
            ("gathered_logit", args.gathered_logit, "gather_tokens", args.gather_tokens),
        ] {
            if wanted.is_some() {
                let remedy = if output == "sampled_token" {
                    "sampled_token is drawn by position"
                } else {
                    "gathered_logit is that of gather_tokens"
                };
                check.presence(input, present.is_some(), true, remedy)?;
            }
        }
        let merge = MergeExitStates::of_head(self.op, self.top_k);
        merge_exit_states::validate(&merge, &(*args).into_merge(values, tokens))
    }

    pub(super) fn cost(&self, args: &ExitHeadStatesArgs<Layout, Layout>, written: u64) -> Cost {
        let bytes = |layout: &Layout| (layout.elements() * layout.dtype().size()) as u64;
        let rows = self.output_rows(&args.hidden, args.rows.as_ref()).unwrap_or(0);
        let activations = rows.min(args.hidden.shape()[0]) * self.hidden;
        let others = [args.norm_weight, args.head_bias, args.rows];
        let of_rows = [args.positions, args.seeds, args.gather_tokens];
        let others: u64 = others.iter().chain(&of_rows).flatten().map(bytes).sum();
        Cost {
            flops: 2 * (rows * self.vocabulary) as u64 * self.hidden as u64,
            bytes_read: bytes(&args.head_weight)
                + others
                + (activations * self.activation_dtype.size()) as u64,
            bytes_written: written + args.logits.as_ref().map_or(0, bytes),
        }
    }
}
