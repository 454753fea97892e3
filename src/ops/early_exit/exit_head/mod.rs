//! `exit_head` and `exit_head_states`: a language model's head in one pass over its weight.

mod arguments;
mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod operation;
mod reference;
mod validation;
#[cfg(feature = "wgpu")]
mod wgpu;

use std::hash::Hash;
use std::marker::PhantomData;

pub use arguments::{ExitHeadArgs, ExitHeadStatesArgs};

use super::config::HeadConfig;
use crate::backend::cpu::{Cpu, Workspace};
use crate::dtype::DType;
use crate::error::Error;
use crate::tensor::{TensorMut, TensorRef};

/// The descriptor of a head: [`ExitHead`] or [`ExitHeadStates`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head<K> {
    config: HeadConfig,
    kind: PhantomData<K>,
}

/// What a [`Head`] writes. Sealed.
pub trait HeadKind: sealed::Kind + Copy + Eq + Hash + std::fmt::Debug + Send + Sync {}

mod sealed {
    pub trait Kind {
        const NAME: &'static str;
    }
}

/// Marks an [`ExitHead`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Results;

/// Marks [`ExitHeadStates`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct States;

impl HeadKind for Results {}
impl HeadKind for States {}

impl sealed::Kind for Results {
    const NAME: &'static str = "exit_head";
}

impl sealed::Kind for States {
    const NAME: &'static str = "exit_head_states";
}

/// The head of a language model, without logits in memory: `logits = softcap(n W^T + b)`, `n = x` or `rms_norm(x)`, and
/// of them any of the best token, the two largest logits, log-sum-exp, entropy, the `top_k` best tokens, one token's
/// logit, and a sampled token.
///
/// The probability of the best token is `exp(max_logit - log_sum_exp)`, the margin to the second that minus
/// `exp(second_logit - log_sum_exp)`.
///
/// A norm's result is rounded once to the activation type. A row's results depend neither on the other rows, however many
/// there are, nor on how the vocabulary is spread over devices: [`ExitHeadStates`] of the parts and
/// [`MergeExitStates`](super::MergeExitStates) give the same bits. [`Head::with_batch_invariance`] gives up a part of that.
///
/// `sampled_token` is `argmax(logit * inv_temperature + g)` with Gumbel noise `g = -ln(-ln(1 - u))` from Philox 4x32-10:
/// the key is the seed, or the row's own of `seeds`, the counter (position, id / 4, purpose, 0), the word id % 4. The same
/// seed and position draw the same noise whatever the batch; sequences that are to differ need seeds of their own.
///
/// What rows without a token get is said in the [family's documentation](super).
///
/// Source: LayerSkip (arXiv 2404.16710), section 4.2; FlashSampling and the online softmax (arXiv 1805.02867).
///
/// ```
/// use siluette::{DType, ExitHead};
/// let op = ExitHead::new(2048, 128_256, DType::BF16)?.with_norm(1e-5)?.with_top_k(8)?;
/// assert_eq!((op.hidden(), op.vocabulary(), op.tiles()), (2048, 128_256, 1002));
/// # Ok::<(), siluette::Error>(())
/// ```
pub type ExitHead = Head<Results>;

/// [`ExitHead`] of a part of the vocabulary, as states to be merged: of each tile of
/// [`VOCABULARY_TILE`](super::VOCABULARY_TILE) ids and each row,
///
/// - `state_values`: the largest logit `m1`, the second largest `m2`, `s = sum exp(x - m1)`,
///   `t = sum (x - m1) exp(x - m1)`, the logit of `gather_tokens`, the best score of `sampled_token`, and the `top_k`
///   largest logits, descending;
/// - `state_tokens`: the ids of `m1` and of the best score, and those of the `top_k`.
///
/// What a tile does not have is `-inf`, its id -1. A row without a token is NaN and -1 throughout.
///
/// Raising `m1` by `D` multiplies `s` by `exp(-D)` and makes `t` to `exp(-D) (t - D s)`.
pub type ExitHeadStates = Head<States>;

impl<K: HeadKind> Head<K> {
    /// A head from `hidden` features to `vocabulary` logits, activations and weight of type `dtype`, without norm.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) for 0, [`Problem::Size`](crate::Problem::Size) above 2^31 - 1,
    /// [`Problem::DType`](crate::Problem::DType) for an integer type.
    pub fn new(hidden: usize, vocabulary: usize, dtype: DType) -> Result<Self, Error> {
        HeadConfig::new(K::NAME, hidden, vocabulary, dtype).map(Head::from_config)
    }

    /// Weight, bias and norm weight of another type: f16 or bf16 under f32 activations.
    ///
    /// # Errors
    /// [`Problem::DType`](crate::Problem::DType) for any other mix.
    pub fn with_weight_dtype(self, dtype: DType) -> Result<Self, Error> {
        self.config.with_weight_dtype(dtype).map(Head::from_config)
    }

    /// Starts with an RMS norm, `w_j x_j / sqrt(mean(x^2) + eps)`, rounded once to the activation type;
    /// `norm_weight` must then be given.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) if `eps` is negative or not finite.
    pub fn with_norm(self, eps: f32) -> Result<Self, Error> {
        self.config.with_norm(eps).map(Head::from_config)
    }

    /// Logits are `softcap * tanh(logit / softcap)`.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) if it is not positive and finite.
    pub fn with_softcap(self, softcap: f32) -> Result<Self, Error> {
        self.config.with_softcap(softcap).map(Head::from_config)
    }

    /// How `sampled_token` is drawn; `inv_temperature` is 1 and the seed 0 unless set.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) if `inv_temperature` is negative or not finite.
    pub fn with_sampling(self, inv_temperature: f32, seed: u64) -> Result<Self, Error> {
        self.config.with_sampling(inv_temperature, seed).map(Head::from_config)
    }

    /// Masks ids from `valid_vocab` on, everywhere: their logits are `-inf`.
    ///
    /// # Errors
    /// [`Problem::Size`](crate::Problem::Size) above 2^31 - 1.
    pub fn with_valid_vocab(self, valid_vocab: usize) -> Result<Self, Error> {
        self.config.with_valid_vocab(valid_vocab).map(Head::from_config)
    }

    /// The weight's first row is of this id.
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) if it is no multiple of
    /// [`VOCABULARY_TILE`](super::VOCABULARY_TILE), [`Problem::Size`](crate::Problem::Size) if ids exceed 2^31 - 1.
    pub fn with_vocab_offset(self, offset: usize) -> Result<Self, Error> {
        self.config.with_vocab_offset(offset).map(Head::from_config)
    }

    /// Length of the lists of best tokens, up to [`MAX_TOP_K`](super::MAX_TOP_K).
    ///
    /// # Errors
    /// [`Problem::Value`](crate::Problem::Value) above it.
    pub fn with_top_k(self, top_k: usize) -> Result<Self, Error> {
        self.config.with_top_k(top_k).map(Head::from_config)
    }

    /// Whether a row's results are the same bits in every batch; they are unless this says `false`, which lets a backend
    /// choose its kernel by the number of rows. What decodes one token at a time and verifies many at once needs it, as
    /// [`SelfSpeculation`](crate::SelfSpeculation) does; scoring a text does not.
    ///
    /// Without it, on Hopper, many rows take a faster kernel, which sums logits in another order. A row's results still do
    /// not depend on what the other rows hold, and parts of a vocabulary still give the bits of the whole, if the rows of
    /// all weights alike start on multiples of 16 bytes or do not.
    #[must_use]
    pub fn with_batch_invariance(mut self, batch_invariant: bool) -> Self {
        self.config.batch_invariant = batch_invariant;
        self
    }

    /// Features of a row.
    pub fn hidden(&self) -> usize {
        self.config.hidden
    }

    /// Rows of the weight.
    pub fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    /// Tiles of the vocabulary: states of a row.
    pub fn tiles(&self) -> usize {
        self.config.tiles()
    }

    fn from_config(config: HeadConfig) -> Self {
        Head { config, kind: PhantomData }
    }
}

impl Cpu {
    /// [`ExitHead`] on the CPU: the weight is streamed once past all rows. It may be [packed](crate::PackedWeight), which
    /// sums logits in another order.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; outputs are then untouched.
    pub fn exit_head(
        &self,
        op: &ExitHead,
        args: ExitHeadArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        let form = op.config.validate_results_form(&args.layouts())?;
        cpu::head(self, &op.config, form, args, workspace)
    }

    /// [`ExitHeadStates`] on the CPU. The weight may be [packed](crate::PackedWeight): of parts of a vocabulary all, or none.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; outputs are then untouched.
    pub fn exit_head_states(
        &self,
        op: &ExitHeadStates,
        args: ExitHeadStatesArgs<TensorRef<'_>, TensorMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        let form = op.config.validate_states_form(&args.layouts())?;
        cpu::states(self, &op.config, form, args, workspace);
        Ok(())
    }
}
