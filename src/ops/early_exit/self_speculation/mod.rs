//! Self-speculative decoding: which layers to run on which tokens, and what comes of it.

mod cache;
mod settings;
mod step;

use std::ops::Range;

pub use cache::{DualLengthCache, ExitRing};
pub use settings::SpeculationSettings;

use super::verification::Finish;
use crate::error::{Error, Problem};

const OP: &str = "self_speculation";

/// A model, as far as self-speculation needs one.
pub trait Layers {
    /// What may go wrong in it.
    type Error: From<Error>;

    /// Runs `layers` of the model on `rows`, and the final norm and head on those that want a token.
    ///
    /// - The input of layer 0 is the embedding of the row's token; of any other first layer, the row's state in the
    ///   [`ExitRing`].
    /// - Each layer writes the row's key and value at the row's position, over what may lie there, and lets it attend to
    ///   all positions of its sequence up to its own. Rows of a sequence come in ascending positions, without gaps.
    /// - Behind the exit layer, a row's state is put into the [`ExitRing`].
    /// - `tokens[i]` is the token of the `i`-th row that wants one, or -1 if its logits give none. It must depend on the
    ///   row's logits, its sequence and its position alone: [`ExitHead`](super::ExitHead)'s `token`, or its
    ///   `sampled_token` with the row's position.
    ///
    /// # Errors
    /// The engine's. The step that called is then undone and may be repeated.
    fn run(
        &mut self,
        layers: Range<usize>,
        rows: &[LayerRow],
        tokens: &mut [i32],
    ) -> Result<(), Self::Error>;
}

/// A token of a sequence that layers run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerRow {
    /// Which of the batch's sequences.
    pub sequence: usize,
    /// The token's position in it, from 0 on: its place in the key-value cache.
    pub position: usize,
    /// The token.
    pub token: i32,
    /// Whether the token that follows it is wanted.
    pub wants_token: bool,
}

/// Self-speculative decoding of a batch of sequences: drafts tokens with the layers before the exit and the model's head,
/// verifies them with the layers behind it, commits what the model agrees with.
///
/// An iteration, [`SelfSpeculation::step`], drafts up to `draft_length` tokens for each sequence, one call of
/// [`Layers::run`] for each of them, all sequences together; it then runs the layers behind the exit once on everything
/// that is not committed yet. The tokens that come out are those of plain decoding, whatever was drafted: the model's own
/// choice at every position, be it the best token or one that is sampled with noise keyed by the position.
///
/// Sequences come and go between iterations: [`SelfSpeculation::add`], [`SelfSpeculation::remove`]. Draft lengths can be
/// set for each. What the drafting itself looks at to stop, such as its confidence, cannot bias the output, since a token
/// that is emitted is always the model's; this holds for no verification that accepts at random.
///
/// Source: LayerSkip (arXiv 2404.16710), section 4.3 and algorithm 1.
///
/// ```
/// use std::ops::Range;
/// use siluette::{LayerRow, Layers, SelfSpeculation, SpeculationSettings};
///
/// /// Counts upwards; its first layers think that there is no 3.
/// struct Counter;
///
/// impl Layers for Counter {
///     type Error = siluette::Error;
///
///     fn run(&mut self, layers: Range<usize>, rows: &[LayerRow], tokens: &mut [i32]) -> Result<(), Self::Error> {
///         let wanted = rows.iter().filter(|row| row.wants_token);
///         for (row, token) in wanted.zip(tokens) {
///             let next = row.token + 1;
///             *token = if next == 3 && layers.end == 2 { 4 } else { next };
///         }
///         Ok(())
///     }
/// }
///
/// let settings = SpeculationSettings::new(8, 2)?.with_draft_length(4).with_stop_ids(&[7]);
/// let mut speculation = SelfSpeculation::new(settings, 1, 100)?;
/// let sequence = speculation.add(&[0], 50)?;
/// let mut tokens = Vec::new();
/// while speculation.is_active(sequence) {
///     for progress in speculation.step(&mut Counter)? {
///         tokens.extend(progress.tokens);
///     }
/// }
/// assert_eq!(tokens, [1, 2, 3, 4, 5, 6, 7]);
/// assert_eq!(speculation.statistics().verifications, 2);
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SelfSpeculation {
    settings: SpeculationSettings,
    cache: DualLengthCache,
    sequences: Vec<Option<Sequence>>,
    statistics: SpeculationStatistics,
}

/// A sequence that occupies a place of the batch.
#[derive(Clone, Debug)]
struct Sequence {
    /// Known tokens that not all layers have run on: the prompt, then the last token emitted.
    pending: Vec<i32>,
    /// Tokens that it may still emit.
    budget: usize,
    draft_length: usize,
    finish: Finish,
}

/// What an iteration has brought for a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SequenceProgress {
    /// Which of the batch's sequences.
    pub sequence: usize,
    /// The tokens emitted.
    pub tokens: Vec<i32>,
    /// How many tokens were drafted.
    pub drafted: usize,
    /// How many of the emitted ones were.
    pub accepted: usize,
    /// Whether it goes on.
    pub finish: Finish,
}

/// Sums over all iterations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpeculationStatistics {
    /// Tokens drafted.
    pub drafted: u64,
    /// Tokens drafted that were emitted.
    pub accepted: u64,
    /// Tokens emitted.
    pub emitted: u64,
    /// Verifications, counted for each sequence.
    pub verifications: u64,
}

impl SpeculationStatistics {
    /// The share of drafts that were emitted, or 0 without drafts.
    pub fn acceptance(&self) -> f64 {
        self.accepted as f64 / self.drafted.max(1) as f64
    }

    /// Tokens emitted by a verification, on average: 1 is plain decoding's.
    pub fn tokens_per_verification(&self) -> f64 {
        self.emitted as f64 / self.verifications.max(1) as f64
    }
}

impl SelfSpeculation {
    /// A batch with places for `sequences` sequences of up to `capacity` tokens each: the engine's key-value cache.
    ///
    /// # Errors
    /// [`Problem::Value`] if either is 0, [`Problem::Size`] if there are more than 2^31 - 1 positions in all.
    pub fn new(
        settings: SpeculationSettings,
        sequences: usize,
        capacity: usize,
    ) -> Result<SelfSpeculation, Error> {
        let check = crate::validate::Validator::new(OP);
        check.dimension("sequences", sequences, 1)?;
        check.dimension("capacity", capacity, 1)?;
        check.dimension("positions", sequences.saturating_mul(capacity + 1), 1)?;
        Ok(SelfSpeculation {
            settings,
            cache: DualLengthCache::new(sequences, capacity),
            sequences: vec![None; sequences],
            statistics: SpeculationStatistics::default(),
        })
    }

    /// Gives a prompt a place in the batch, and says which: it may emit up to `budget` tokens, and as many as its cache
    /// has room for.
    ///
    /// # Errors
    /// [`Problem::Value`] for an empty prompt or a negative token, [`Problem::Size`] for a prompt longer than the capacity
    /// or if there is no free place.
    pub fn add(&mut self, prompt: &[i32], budget: usize) -> Result<usize, Error> {
        if prompt.is_empty() {
            let remedy = "start with the tokenizer's token for the beginning of a text";
            let (expected, problem) = ("at least one token", Problem::Value);
            return Err(Error::argument(OP, "tokens", problem, expected, "none", remedy));
        }
        let budget = self.affordable(prompt, prompt.len(), budget)?;
        let Some(place) = self.sequences.iter().position(Option::is_none) else {
            let (count, remedy) = (self.sequences.len(), "remove a finished one");
            let expected = format!("fewer than {count} sequences");
            return Err(Error::argument(OP, "sequences", Problem::Size, expected, count, remedy));
        };
        self.cache.clear(place)?;
        self.sequences[place] = Some(Sequence {
            pending: prompt.to_vec(),
            budget,
            draft_length: self.settings.draft_length(),
            finish: if budget == 0 { Finish::Budget } else { Finish::Continue },
        });
        Ok(place)
    }

    /// Lets a sequence go on behind what it has emitted and these `tokens`, the user's next turn perhaps, with a new
    /// budget: what is in the cache stays there.
    ///
    /// # Errors
    /// [`Problem::Value`] if nothing is there or for a negative token, [`Problem::Size`] if the cache has no room for the
    /// tokens; nothing has changed then.
    pub fn resume(&mut self, sequence: usize, tokens: &[i32], budget: usize) -> Result<(), Error> {
        let known = self.cache.full_length(sequence) + self.sequence(sequence)?.pending.len();
        let budget = self.affordable(tokens, known + tokens.len(), budget)?;
        let sequence = self.sequence(sequence)?;
        sequence.pending.extend_from_slice(tokens);
        sequence.budget = budget;
        sequence.finish = if budget == 0 { Finish::Budget } else { Finish::Continue };
        Ok(())
    }

    /// The budget that `known` tokens, these `tokens` the last of them, leave room for.
    fn affordable(&self, tokens: &[i32], known: usize, budget: usize) -> Result<usize, Error> {
        let capacity = self.cache.capacity();
        if known > capacity {
            let expected = format!("at most {capacity} tokens in all");
            let remedy = "shorten them, or raise `capacity`";
            return Err(Error::argument(OP, "tokens", Problem::Size, expected, known, remedy));
        }
        if let Some(position) = tokens.iter().position(|&token| token < 0) {
            let got = format!("{} at position {position}", tokens[position]);
            return Err(Error::argument(OP, "tokens", Problem::Value, "token ids", got, ""));
        }
        // All tokens but the last one emitted need room in the cache.
        Ok(budget.min(capacity - known + 1))
    }

    /// Frees a sequence's place.
    ///
    /// # Errors
    /// [`Problem::Value`] if nothing is there.
    pub fn remove(&mut self, sequence: usize) -> Result<(), Error> {
        self.sequence(sequence)?;
        self.sequences[sequence] = None;
        Ok(())
    }

    /// How many tokens to draft for a sequence in an iteration from now on; 0 is plain decoding.
    ///
    /// # Errors
    /// [`Problem::Value`] if nothing is there.
    pub fn set_draft_length(&mut self, sequence: usize, tokens: usize) -> Result<(), Error> {
        self.sequence(sequence)?.draft_length = tokens;
        Ok(())
    }

    /// Whether a sequence is there and goes on.
    pub fn is_active(&self, sequence: usize) -> bool {
        self.finish(sequence) == Some(Finish::Continue)
    }

    /// Whether any sequence goes on.
    pub fn is_any_active(&self) -> bool {
        (0..self.sequences.len()).any(|sequence| self.is_active(sequence))
    }

    /// Why a sequence has ended, or that it has not; `None` if nothing is there.
    pub fn finish(&self, sequence: usize) -> Option<Finish> {
        Some(self.sequences.get(sequence)?.as_ref()?.finish)
    }

    /// The lengths of the engine's key-value cache.
    pub fn cache(&self) -> &DualLengthCache {
        &self.cache
    }

    /// Where the engine keeps exit states.
    pub fn exit_ring(&self) -> ExitRing {
        ExitRing::new(self.cache.sequences(), self.cache.capacity())
    }

    /// The settings that it was made with.
    pub fn settings(&self) -> &SpeculationSettings {
        &self.settings
    }

    /// Sums over all iterations so far.
    pub fn statistics(&self) -> SpeculationStatistics {
        self.statistics
    }

    fn sequence(&mut self, sequence: usize) -> Result<&mut Sequence, Error> {
        self.sequences.get_mut(sequence).and_then(Option::as_mut).ok_or_else(|| {
            let expected = "the number of a sequence that was added";
            Error::argument(OP, "sequence", Problem::Value, expected, sequence, "")
        })
    }
}
