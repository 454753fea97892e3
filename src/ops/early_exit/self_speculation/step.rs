//! One iteration: draft, verify, commit.

use super::{LayerRow, Layers, SelfSpeculation, SequenceProgress};
use crate::backend::cpu::Cpu;
use crate::error::Error;
use crate::ops::early_exit::verification::Finish;
use crate::ops::early_exit::verify_greedy::{VerifyGreedy, VerifyGreedyArgs};
use crate::tensor::{TensorMut, TensorRef};

/// A sequence on its way through an iteration.
struct Draft {
    place: usize,
    /// The position behind the pending tokens, that of the first draft.
    start: usize,
    tokens: Vec<i32>,
    /// How many tokens it may draft.
    limit: usize,
}

impl SelfSpeculation {
    /// Drafts, verifies and commits once for every active sequence, and says what came of it, in the order of their
    /// places. Without active sequences nothing runs.
    ///
    /// # Errors
    /// Those of [`Layers::run`]. The batch is then as it was before the step, and the step may be repeated.
    pub fn step<L: Layers>(&mut self, layers: &mut L) -> Result<Vec<SequenceProgress>, L::Error> {
        let drafts = self.draft(layers).and_then(|drafts| {
            let target = self.verify(layers, &drafts)?;
            Ok((drafts, target))
        });
        let (drafts, target) = match drafts {
            Ok(done) => done,
            Err(error) => {
                for place in 0..self.sequences.len() {
                    self.cache.roll_back(place)?;
                }
                return Err(error);
            }
        };
        Ok(self.commit(&drafts, &target)?)
    }

    /// Runs the layers before the exit, one token after another, until every draft is as long as it may be.
    fn draft<L: Layers>(&mut self, layers: &mut L) -> Result<Vec<Draft>, L::Error> {
        let mut drafts = self.begin();
        loop {
            let goes_on: Vec<usize> = (0..drafts.len())
                .filter(|&index| {
                    let draft = &drafts[index];
                    let stopped =
                        draft.tokens.last().is_some_and(|id| self.settings.stop_ids().contains(id));
                    draft.tokens.len() < draft.limit && !stopped
                })
                .collect();
            if goes_on.is_empty() {
                return Ok(drafts);
            }
            let mut rows = Vec::new();
            for &index in &goes_on {
                self.early_rows(&drafts[index], true, &mut rows);
            }
            let mut tokens = vec![-1; goes_on.len()];
            self.run_early(layers, &rows, &mut tokens)?;
            for (&index, &token) in goes_on.iter().zip(&tokens) {
                match token >= 0 {
                    true => drafts[index].tokens.push(token),
                    // The exit has nothing to say; the rest of the model may.
                    false => drafts[index].limit = drafts[index].tokens.len(),
                }
            }
        }
    }

    /// Active sequences, with how much each may draft: one token less than it may emit, since the model adds one itself.
    fn begin(&self) -> Vec<Draft> {
        let active = |(place, sequence): (usize, &Option<super::Sequence>)| {
            let sequence = sequence.as_ref().filter(|it| it.finish == Finish::Continue)?;
            Some(Draft {
                place,
                start: self.cache.full_length(place) + sequence.pending.len(),
                tokens: Vec::new(),
                limit: sequence.draft_length.min(sequence.budget - 1),
            })
        };
        self.sequences.iter().enumerate().filter_map(active).collect()
    }

    /// Known tokens, pending or drafted, that the layers before the exit have not run on; the last of them may want the
    /// token that follows it.
    fn early_rows(&self, draft: &Draft, wants_token: bool, rows: &mut Vec<LayerRow>) {
        let known = draft.start + draft.tokens.len();
        let first = self.cache.early_length(draft.place);
        rows.extend((first..known).map(|position| LayerRow {
            sequence: draft.place,
            position,
            token: self.token_at(draft, position),
            wants_token: wants_token && position + 1 == known,
        }));
    }

    fn token_at(&self, draft: &Draft, position: usize) -> i32 {
        let pending =
            self.sequences[draft.place].as_ref().map_or(&[][..], |sequence| &sequence.pending);
        match position.checked_sub(draft.start) {
            Some(place) => draft.tokens[place],
            None => pending[pending.len() - (draft.start - position)],
        }
    }

    fn run_early<L: Layers>(
        &mut self,
        layers: &mut L,
        rows: &[LayerRow],
        tokens: &mut [i32],
    ) -> Result<(), L::Error> {
        layers.run(0..self.settings.exit_layer(), rows, tokens)?;
        for row in rows {
            self.cache.extend_early(row.sequence, 1)?;
        }
        Ok(())
    }

    /// Runs what is left of the layers on everything that is not committed: the model's token behind the last pending
    /// token and behind each draft.
    fn verify<L: Layers>(
        &mut self,
        layers: &mut L,
        drafts: &[Draft],
    ) -> Result<Vec<i32>, L::Error> {
        let mut rows = Vec::new();
        // The last draft of each has only been chosen yet.
        drafts.iter().for_each(|draft| self.early_rows(draft, false, &mut rows));
        if !rows.is_empty() {
            self.run_early(layers, &rows, &mut [])?;
        }
        rows.clear();
        for draft in drafts {
            let first = self.cache.full_length(draft.place);
            rows.extend((first..draft.start + draft.tokens.len()).map(|position| LayerRow {
                sequence: draft.place,
                position,
                token: self.token_at(draft, position),
                wants_token: position + 1 >= draft.start,
            }));
        }
        let mut target = vec![-1; rows.iter().filter(|row| row.wants_token).count()];
        if !rows.is_empty() {
            layers.run(self.settings.exit_layer()..self.settings.layers(), &rows, &mut target)?;
        }
        Ok(target)
    }

    /// Keeps what the model agrees with.
    fn commit(&mut self, drafts: &[Draft], target: &[i32]) -> Result<Vec<SequenceProgress>, Error> {
        let longest = drafts.iter().map(|draft| draft.tokens.len()).max().unwrap_or(0);
        let verified = Verified::new(self, drafts, target, longest)?;
        let mut progress = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            let emitted = verified.emitted[index] as usize;
            let accepted = verified.accepted[index] as usize;
            let tokens = verified.tokens[index * (longest + 1)..][..emitted].to_vec();
            let finish =
                Finish::from_code(verified.finish[index]).unwrap_or(Finish::InvalidSequence);
            if let Some(&last) = tokens.last() {
                // Everything before the last token emitted has been through all layers.
                self.cache.commit(draft.place, draft.start + emitted - 1)?;
                let sequence = self.sequence(draft.place)?;
                sequence.pending.clear();
                sequence.pending.push(last);
                sequence.budget -= emitted;
            } else {
                self.cache.roll_back(draft.place)?;
            }
            self.sequence(draft.place)?.finish = finish;
            self.statistics.drafted += draft.tokens.len() as u64;
            self.statistics.accepted += accepted as u64;
            self.statistics.emitted += emitted as u64;
            self.statistics.verifications += 1;
            progress.push(SequenceProgress {
                sequence: draft.place,
                tokens,
                drafted: draft.tokens.len(),
                accepted,
                finish,
            });
        }
        Ok(progress)
    }
}

/// Results of [`VerifyGreedy`].
struct Verified {
    tokens: Vec<i32>,
    accepted: Vec<i32>,
    emitted: Vec<i32>,
    finish: Vec<i32>,
}

impl Verified {
    fn new(
        speculation: &SelfSpeculation,
        drafts: &[Draft],
        target: &[i32],
        longest: usize,
    ) -> Result<Verified, Error> {
        let all: Vec<i32> = drafts.iter().flat_map(|draft| draft.tokens.iter().copied()).collect();
        let mut offsets = vec![0u32];
        let mut budget = Vec::new();
        for draft in drafts {
            offsets.push(offsets[offsets.len() - 1] + draft.tokens.len() as u32);
            let left = speculation.sequences[draft.place].as_ref().map_or(0, |it| it.budget);
            budget.push(i32::try_from(left).unwrap_or(i32::MAX));
        }
        let count = drafts.len();
        let stop_ids = speculation.settings.stop_ids();
        let mut results = Verified {
            tokens: vec![0; count * (longest + 1)],
            accepted: vec![0; count],
            emitted: vec![0; count],
            finish: vec![0; count],
        };
        let args = VerifyGreedyArgs::new(
            TensorRef::new(&all, &[all.len()])?,
            TensorRef::new(&offsets, &[offsets.len()])?,
            TensorRef::new(target, &[target.len()])?,
        )
        .stop_ids(TensorRef::new(stop_ids, &[stop_ids.len()])?)
        .budget(TensorRef::new(&budget, &[count])?)
        .tokens(TensorMut::new(&mut results.tokens, &[count, longest + 1])?)
        .accepted(TensorMut::new(&mut results.accepted, &[count])?)
        .emitted(TensorMut::new(&mut results.emitted, &[count])?)
        .finish(TensorMut::new(&mut results.finish, &[count])?);
        Cpu::new().verify_greedy(&VerifyGreedy::new(longest)?, args)?;
        Ok(results)
    }
}
