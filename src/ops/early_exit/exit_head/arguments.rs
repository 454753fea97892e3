//! The heads' tensors.

use crate::arguments::arguments;
use crate::ops::early_exit::merge_exit_states::MergeExitStatesArgs;

arguments! {
    /// Tensors of [`ExitHead`](super::ExitHead); `R` rows of `D` features, of which `M` are computed: all, or those
    /// that `rows` names; `V` entries of the vocabulary.
    pub struct ExitHeadArgs {
        /// Activations `[R, D]`.
        input hidden,
        /// `[V, D]`, `nn.Linear` layout.
        input head_weight,
        /// `[D]`, in the weight's type; goes with a descriptor made `with_norm`.
        optional_input norm_weight,
        /// `[V]`, in the weight's type.
        optional_input head_bias,
        /// `[M]`: which rows of `hidden`; -1, or any other number that is none of its rows, gives a row without a token.
        optional_input rows: integer,
        /// `[M]`: positions in their sequences of the tokens to be sampled.
        optional_input positions: integer,
        /// `[M, 2]`: the seed of each row's noise, its low word first; goes with `positions`. Without it, all have the
        /// descriptor's.
        optional_input seeds: index,
        /// `[M]`: ids whose logits are wanted; those that are no valid id have the logit `-inf`.
        optional_input gather_tokens: integer,
        /// `[M]`: the id of the largest logit, of equal ones the lowest.
        optional_output token: integer,
        /// `[M]`, f32: the largest logit.
        optional_output max_logit,
        /// `[M]`, f32: the second largest logit; the largest if it occurs twice.
        optional_output second_logit,
        /// `[M]`, f32: `ln sum exp(logits)`.
        optional_output log_sum_exp,
        /// `[M]`, f32: entropy of `softmax(logits)` in nats.
        optional_output entropy,
        /// `[M, top_k]`: ids of the largest logits, descending, of equal ones the lower id first; -1 where there are no
        /// more.
        optional_output top_tokens: integer,
        /// `[M, top_k]`, f32: their logits; `-inf` where there are no more.
        optional_output top_logits,
        /// `[M]`, f32: the logits of `gather_tokens`.
        optional_output gathered_logit,
        /// `[M]`: an id drawn from `softmax(logits * inv_temperature)`.
        optional_output sampled_token: integer,
        /// `[M, V]`, f32; `-inf` where masked, NaN in rows that were not selected.
        optional_output logits,
    }
}

arguments! {
    /// Tensors of [`ExitHeadStates`](super::ExitHeadStates); as [`ExitHeadArgs`], with states for outputs.
    pub struct ExitHeadStatesArgs {
        /// Activations `[R, D]`.
        input hidden,
        /// `[V, D]`, `nn.Linear` layout: the vocabulary's entries from `vocab_offset` on.
        input head_weight,
        /// `[D]`, in the weight's type; goes with a descriptor made `with_norm`.
        optional_input norm_weight,
        /// `[V]`, in the weight's type.
        optional_input head_bias,
        /// `[M]`: which rows of `hidden`; -1, or any other number that is none of its rows, gives a row without a token.
        optional_input rows: integer,
        /// `[M]`: positions in their sequences of the tokens to be sampled; without them, none is.
        optional_input positions: integer,
        /// `[M, 2]`: the seed of each row's noise, its low word first; goes with `positions`. Without it, all have the
        /// descriptor's.
        optional_input seeds: index,
        /// `[M]`: ids whose logits are wanted.
        optional_input gather_tokens: integer,
        /// `[tiles, M, 6 + top_k]`, f32: the states' numbers.
        output state_values,
        /// `[tiles, M, 2 + top_k]`: the states' ids.
        output state_tokens: integer,
        /// `[M, V]`, f32; `-inf` where masked, NaN in rows that were not selected.
        optional_output logits,
    }
}

impl<In: Copy, Out> ExitHeadArgs<In, Out> {
    /// The first half of the work, into these states.
    pub(crate) fn states<Written>(
        &self,
        values: Written,
        tokens: Written,
        logits: Option<Written>,
    ) -> ExitHeadStatesArgs<In, Written> {
        ExitHeadStatesArgs {
            hidden: self.hidden,
            head_weight: self.head_weight,
            norm_weight: self.norm_weight,
            head_bias: self.head_bias,
            rows: self.rows,
            positions: self.positions,
            seeds: self.seeds,
            gather_tokens: self.gather_tokens,
            state_values: values,
            state_tokens: tokens,
            logits,
        }
    }

    /// The second half, from these states.
    pub(crate) fn into_merge(self, values: In, tokens: In) -> MergeExitStatesArgs<In, Out> {
        MergeExitStatesArgs {
            state_values: values,
            state_tokens: tokens,
            token: self.token,
            max_logit: self.max_logit,
            second_logit: self.second_logit,
            log_sum_exp: self.log_sum_exp,
            entropy: self.entropy,
            top_tokens: self.top_tokens,
            top_logits: self.top_logits,
            gathered_logit: self.gathered_logit,
            sampled_token: self.sampled_token,
        }
    }
}
