//! `coupled_neurons` on the CPU.

use rayon::prelude::*;

use super::{CoupledNeurons, CoupledNeuronsArgs, DeanMode};
use crate::backend::cpu::Cpu;
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::prune_gather::selection::cpu::Top;
use crate::ops::prune_gather::selection::{HostScores, NO_INDEX, ScoreKey};
use crate::tensor::{TensorMut, TensorRef, with_float};

impl Cpu {
    /// [`CoupledNeurons`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; the outputs are then untouched.
    pub fn coupled_neurons(
        &self,
        op: &CoupledNeurons,
        mut args: CoupledNeuronsArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let values = args.inputs();
        self.enter(|| op.validate_values(&values))?;
        let coupled = with_float!(op.dtype, T => {
            let tasks = Tasks::<T>::new(self, op, &args);
            match op.mode {
                DeanMode::Intersect => self.enter(|| tasks.intersection()),
                DeanMode::PositionalCompat => tasks.positional(self),
            }
        });
        if let Some(indices) = args.indices.as_mut_slice::<u32>() {
            let (members, rest) = indices.split_at_mut(coupled.len());
            members.copy_from_slice(&coupled);
            rest.fill(NO_INDEX);
        }
        if let Some(count) = args.count.as_mut().and_then(TensorMut::as_mut_slice::<u32>) {
            count[0] = coupled.len() as u32;
        }
        Ok(())
    }
}

/// Scores, and which of them are the largest: general, first, second.
struct Tasks<'a, T> {
    scores: [HostScores<'a, T>; 3],
    top: [Top; 3],
}

impl<'a, T: ScoreKey> Tasks<'a, T> {
    fn new(
        cpu: &Cpu,
        op: &CoupledNeurons,
        args: &CoupledNeuronsArgs<TensorRef<'a>, TensorMut<'_>>,
    ) -> Tasks<'a, T> {
        let scores = [args.general, args.first, args.second].map(HostScores::new);
        let k = [op.general_k, op.task_k, op.task_k];
        let top = [0, 1, 2].map(|set| Top::new(cpu, &scores[set], k[set]));
        Tasks { scores, top }
    }

    fn holds(&self, set: usize, index: usize) -> bool {
        self.top[set].holds(self.scores[set].key(index), index)
    }

    /// Ascending.
    fn intersection(&self) -> Vec<u32> {
        let (first, top) = (&self.scores[1], &self.top[1]);
        let coupled = |chunk: usize| {
            let range = if top.reaches(chunk) { first.chunk(chunk) } else { 0..0 };
            let is_coupled = |&i: &usize| self.holds(1, i) && self.holds(2, i) && !self.holds(0, i);
            range.filter(is_coupled).map(|index| index as u32).collect::<Vec<_>>()
        };
        let chunks: Vec<Vec<u32>> = (0..first.chunks()).into_par_iter().map(coupled).collect();
        chunks.concat()
    }

    /// Ascending.
    fn positional(&self, cpu: &Cpu) -> Vec<u32> {
        let [first, second] = [1, 2].map(|set| self.by_score(cpu, set));
        let outside = |index: u32| !self.holds(0, index as usize);
        let pairs = first.into_iter().zip(second);
        let mut coupled: Vec<u32> =
            pairs.filter(|&(a, b)| outside(a) && outside(b)).map(|(index, _)| index).collect();
        coupled.sort_unstable();
        coupled
    }

    /// The largest of a tensor by descending score, ties by ascending index.
    fn by_score(&self, cpu: &Cpu, set: usize) -> Vec<u32> {
        let (scores, top) = (&self.scores[set], &self.top[set]);
        let mut list = vec![0; top.len()];
        top.write(cpu, scores, &mut list);
        list.sort_by_key(|&index| std::cmp::Reverse(scores.key(index as usize)));
        list
    }
}
