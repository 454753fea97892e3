//! The operation's tensors.

use crate::arguments::arguments;

arguments! {
    /// Tensors of [`VerifySampled`](super::VerifySampled); `B` sequences, `N` drafts in all, `V` ids.
    pub struct VerifySampledArgs {
        /// `[N + B, V]`: logits or probabilities of the target, `S_b + 1` rows a sequence.
        input target,
        /// `[N]`: drafted ids; -1, or any other that is none, is never accepted.
        input draft: integer,
        /// `[B + 1]`: where each sequence's drafts start, and where the last one's end.
        input offsets: index,
        /// `[N, V]`, as `target`: what the drafts were sampled from; for modes full and block.
        optional_input draft_distribution,
        /// `[K]`: ids that end a sequence; negative ones are none.
        optional_input stop_ids: integer,
        /// `[B]`: how many tokens a sequence may still emit.
        optional_input budget: integer,
        /// `[B]`, f32: divides logits; above 0.
        optional_input temperature,
        /// `[B]`: how many ids are kept; 0 for all.
        optional_input top_k: integer,
        /// `[B]`, f32: the mass that is kept, in (0, 1].
        optional_input top_p,
        /// `[B]`, f32: the least share of the largest probability, in [0, 1).
        optional_input min_p,
        /// `[N + B, 2]`, f32: coin and residual number of each row, in [0, 1); not for mode match.
        optional_input uniforms,
        /// `[B]`: positions of the tokens that the sequences' first rows give; needed without `uniforms`.
        optional_input positions: integer,
        /// `[B, 2]`: low and high words of the sequences' seeds.
        optional_input seeds: index,
        /// `[B, S + 1]`: emitted ids, then -1.
        optional_output tokens: integer,
        /// `[B]`: how many of them are drafts.
        optional_output accepted: integer,
        /// `[B]`: how many there are.
        optional_output emitted: integer,
        /// `[B]`: the last one, or -1.
        optional_output next_token: integer,
        /// `[B]`: the row of `target` behind which it stands, or -1.
        optional_output last_row: integer,
        /// `[B]`: 0 to go on, 1 stop id, 2 budget, 3 row without a distribution, 4 no valid sequence.
        optional_output finish: integer,
    }
}
