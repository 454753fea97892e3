//! `verify_sampled`: which drafts a sampling target accepts, without changing what it samples.

mod arguments;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod operation;
mod reference;
mod validation;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use arguments::VerifySampledArgs;

use crate::backend::cpu::{Cpu, Workspace};
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::ops::early_exit::verification::{Batch, walk_words};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::Validator;

/// How a drafted token `x` is judged; p is the target's distribution, q the draft's. None of them changes what the
/// target samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SampledMode {
    /// The target's token is `argmax(logit / T + Gumbel(seed, position))`, the noise being that of
    /// [`ExitHead`](super::ExitHead); a draft is accepted while it equals it. A draft that was sampled by the same
    /// noise is accepted more often than by any other mode that does not know q.
    Match,
    /// The draft was chosen greedily: accept with probability `p(x)`, else draw from p without x.
    OneHot,
    /// The draft was sampled from q: accept if `u q(x) < p(x)`, else draw from `relu(p - q)`.
    Full,
    /// Block verification: drafts are judged together, from the last one back (arXiv 2403.10444, algorithm 2). Accepts
    /// at least as many as [`SampledMode::Full`] on average.
    Block,
}

/// What `target` and `draft_distribution` hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SampledValues {
    /// Logits; temperature and filters apply to both.
    #[default]
    Logits,
    /// Probabilities. Those of the target are filtered, those of the draft are final; both are divided by their sum.
    Probabilities,
}

/// How top-k and top-p meet. `min_p` is relative to the largest probability and so the same in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FilterOrder {
    /// Both look at the full distribution; what both keep stays.
    #[default]
    Joint,
    /// Top-p looks at what top-k has left, renormalised.
    Sequential,
}

/// Verifies drafts against a target that samples: emits the accepted ones and one token more, so that what is emitted is
/// distributed as if the target had sampled it all.
///
/// Sequence `b` has `S_b = offsets[b + 1] - offsets[b]` drafts and `S_b + 1` rows of `target`, from row `offsets[b] + b`
/// on. Row i is the target's distribution behind i drafts and judges draft i; the last one gives the bonus token of a
/// sequence whose drafts were all accepted.
///
/// # Distributions
///
/// `softmax(logits / temperature)`, filtered: with ids ordered by value, of equal ones the lowest first, `top_k` keeps
/// exactly k ids (0: all), `top_p` the shortest beginning whose mass reaches it (1: all), `min_p` what has at least its
/// share of the largest probability; see [`FilterOrder`]. What stays is renormalised. Draft logits are treated alike,
/// since q must be the distribution that was sampled from.
///
/// # Random numbers
///
/// `uniforms[row] = (coin, residual)`; or Philox under the sequence's seed, counter (position, 0, purpose, 0), the position
/// being `positions[b] + i`. Nothing depends on the rest of the batch. An accepted draft has used the coin of its row, the
/// token behind it the residual number of its own.
///
/// A residual without mass, which only rounding or an impossible draft can give, becomes p without x, and if that is empty
/// too the likeliest token.
///
/// # What ends a walk
///
/// A rejected draft, a stop id, the budget, or a row without a distribution: NaN, `+inf` or no finite logit, a negative
/// probability, probabilities whose sum is off 1 by more than 1e-3 (f32) or 1e-2 (f16, bf16). In a draft's distribution NaN
/// and negative entries count as probability 0. Rows behind the end do not matter; [`SampledMode::Block`] does not look
/// behind the first row without a distribution. Ids outside the vocabulary are never accepted.
///
/// # Outputs
///
/// `finish` is 0 (go on), 1 (stop id), 2 (budget), 3 (a row without a distribution), 4 (a sequence whose offsets or own
/// parameters are not valid, which emits nothing).
///
/// # Numerics
///
/// Weights are integers of 31 fraction bits, relative to the largest, and their sums exact: results depend neither on the
/// order of work nor on the batch. What is less likely than 2^-32 of the likeliest counts as impossible, except in the
/// reference. By enumeration, what is emitted is within 2e-6 of the target's distribution in total variation.
///
/// ```
/// use siluette::{Cpu, DType, SampledMode, TensorMut, TensorRef, VerifySampled, VerifySampledArgs, Workspace};
/// // One sequence with the draft 1; the target is sure of 1, and then of 0.
/// let target = TensorRef::new(&[-50.0f32, 50.0, 50.0, -50.0], &[2, 2])?;
/// let (draft, offsets) = (TensorRef::new(&[1], &[1])?, TensorRef::new(&[0u32, 1], &[2])?);
/// let mut tokens = [0; 2];
/// let args = VerifySampledArgs::new(target, draft, offsets)
///     .positions(TensorRef::new(&[7], &[1])?)
///     .tokens(TensorMut::new(&mut tokens, &[1, 2])?);
/// let op = VerifySampled::new(2, 1, DType::F32, SampledMode::OneHot)?.with_seed(42);
/// Cpu::new().verify_sampled(&op, args, &mut Workspace::default())?;
/// assert_eq!(tokens, [1, 0]);
/// # Ok::<(), siluette::Error>(())
/// ```
///
/// Source: Leviathan et al. 2023 (arXiv 2211.17192), Chen et al. 2023 (arXiv 2302.01318); block verification, Sun et al.
/// (arXiv 2403.10444).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VerifySampled {
    vocabulary: usize,
    valid_vocab: usize,
    max_draft: usize,
    dtype: DType,
    mode: SampledMode,
    values: SampledValues,
    filter: FilterOrder,
    seed: u64,
}

impl VerifySampled {
    /// Rows of `vocabulary` logits of type `dtype`, and at most `max_draft` drafts a sequence.
    ///
    /// # Errors
    /// [`Problem::Value`] for an empty vocabulary, [`Problem::Size`] beyond 2^31 - 1, [`Problem::DType`] for integers.
    pub fn new(
        vocabulary: usize,
        max_draft: usize,
        dtype: DType,
        mode: SampledMode,
    ) -> Result<VerifySampled, Error> {
        let check = Validator::new(VerifySampled::NAME);
        check.dimension("vocabulary", vocabulary, 1)?;
        check.dimension("max_draft", max_draft.saturating_add(1), 1)?;
        check.float("dtype", dtype)?;
        Ok(VerifySampled {
            vocabulary,
            valid_vocab: vocabulary,
            max_draft,
            dtype,
            mode,
            values: SampledValues::Logits,
            filter: FilterOrder::Joint,
            seed: 0,
        })
    }

    /// Rows hold logits, or probabilities.
    ///
    /// # Errors
    /// [`Problem::Value`] for probabilities in [`SampledMode::Match`], which perturbs logits.
    pub fn with_values(self, values: SampledValues) -> Result<VerifySampled, Error> {
        if self.mode == SampledMode::Match && values == SampledValues::Probabilities {
            let (expected, got) = ("logits in mode match", "probabilities");
            return Err(Error::argument(Self::NAME, "values", Problem::Value, expected, got, ""));
        }
        Ok(VerifySampled { values, ..self })
    }

    /// How top-k and top-p meet.
    pub fn with_filter(self, filter: FilterOrder) -> VerifySampled {
        VerifySampled { filter, ..self }
    }

    /// The seed of sequences that `seeds` gives none.
    pub fn with_seed(self, seed: u64) -> VerifySampled {
        VerifySampled { seed, ..self }
    }

    /// Ids from here on are masked, as the padding of a vocabulary is.
    ///
    /// # Errors
    /// [`Problem::Value`] for 0 or more than the vocabulary.
    pub fn with_valid_vocab(self, valid_vocab: usize) -> Result<VerifySampled, Error> {
        if valid_vocab == 0 || valid_vocab > self.vocabulary {
            let expected = format!("1 to {}", self.vocabulary);
            let (name, problem) = ("valid_vocab", Problem::Value);
            return Err(Error::argument(Self::NAME, name, problem, expected, valid_vocab, ""));
        }
        Ok(VerifySampled { valid_vocab, ..self })
    }

    /// Drafts of a sequence, at most; `tokens` has one column more.
    pub fn max_draft(&self) -> usize {
        self.max_draft
    }

    fn batch(&self, draft: &Layout, offsets: &Layout) -> Result<Batch, Error> {
        Batch::new(Self::NAME, self.max_draft, draft, offsets)
    }

    /// What devices leave in the workspace while they work.
    fn scratch(&self, sequences: usize) -> Scratch {
        Scratch {
            sequences,
            slots: sequences.saturating_mul(self.max_draft + 1),
            walk_words: walk_words(self.max_draft),
        }
    }

    /// Whether q is needed.
    fn needs_draft_distribution(&self) -> bool {
        matches!(self.mode, SampledMode::Full | SampledMode::Block)
    }

    /// How far off 1 a sum of probabilities may be.
    fn sum_tolerance(&self) -> f32 {
        if self.dtype == DType::F32 { 1e-3 } else { 1e-2 }
    }
}

/// Parts of a device's workspace, in words of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scratch {
    sequences: usize,
    /// Rows of target, if every sequence had the longest draft.
    slots: usize,
    walk_words: usize,
}

impl Scratch {
    /// Of what is known of a row.
    const PROFILE_WORDS: usize = 8;
    /// Of what is known of a sequence: what wgpu gathers, and how many of its rows CUDA has profiled.
    const SEQUENCE_WORDS: usize = 12;

    /// Profiles of the target's rows, then of the drafts' distributions. What is known of sequences follows.
    fn profiles(&self) -> usize {
        self.slots.saturating_mul(2 * Self::PROFILE_WORDS)
    }

    /// Where walks begin.
    fn walks(&self) -> usize {
        self.profiles().saturating_add(self.sequences * Self::SEQUENCE_WORDS)
    }

    fn bytes(&self) -> usize {
        let walks = self.sequences.saturating_mul(self.walk_words);
        self.walks().saturating_add(walks).saturating_mul(4)
    }
}

impl Cpu {
    /// [`VerifySampled`] on the CPU: rows side by side, then sequences.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; outputs are then untouched.
    pub fn verify_sampled(
        &self,
        op: &VerifySampled,
        args: VerifySampledArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        op.validate_values(&args.inputs())?;
        cpu::verify(self, op, args, workspace);
        Ok(())
    }
}
