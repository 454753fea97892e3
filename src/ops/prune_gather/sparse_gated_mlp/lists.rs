//! The tokens' lists of neurons, in host memory.

use super::{SparseGatedMlp, SparseGatedMlpArgs};
use crate::error::{Error, Problem};
use crate::operation::Operation as _;
use crate::ops::prune_gather::index_set::index_values;
use crate::tensor::TensorRef;

/// Lists in the form of compressed sparse rows.
#[derive(Clone, Copy)]
pub(super) struct NeuronLists<'a> {
    neurons: &'a [u32],
    offsets: &'a [u32],
}

impl<'a> NeuronLists<'a> {
    /// Of valid tensors; `None` where a threshold selects.
    pub fn new<Out>(args: &SparseGatedMlpArgs<TensorRef<'a>, Out>) -> Option<NeuronLists<'a>> {
        let (neurons, offsets) = (index_values(args.neurons?), index_values(args.neuron_offsets?));
        Some(NeuronLists { neurons, offsets })
    }

    /// The neurons of one token; of lists that [`NeuronLists::check`] has accepted.
    pub fn of(&self, row: usize) -> &'a [u32] {
        &self.neurons[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// That lists follow each other from 0 to the end, each strictly ascending and below `ffn`.
    pub fn check(&self, ffn: usize) -> Result<(), Error> {
        let mistake = |name, expected: String, got, position: usize| {
            let got = format!("{got} at position {position}");
            let remedy = match name {
                "neurons" => "a token's neurons are strictly ascending and below `ffn`",
                _ => "lists follow each other from 0 to the end of `neurons`",
            };
            Err(Error::argument(SparseGatedMlp::NAME, name, Problem::Value, expected, got, remedy))
        };
        let total = self.neurons.len();
        let mut start = 0;
        for (position, &offset) in self.offsets.iter().enumerate() {
            let (least, most) = match position {
                _ if position + 1 == self.offsets.len() => (total, total),
                0 => (0, 0),
                _ => (start, total),
            };
            if (offset as usize) < least || offset as usize > most {
                let expected = match least == most {
                    true => format!("{least}"),
                    false => format!("{least} to {most}"),
                };
                return mistake("neuron_offsets", expected, offset, position);
            }
            let list = start..offset as usize;
            start = offset as usize;
            for position in list.clone() {
                let neuron = self.neurons[position];
                if neuron as usize >= ffn {
                    let expected = format!("an index below {ffn}");
                    return mistake("neurons", expected, neuron, position);
                }
                if position > list.start && neuron <= self.neurons[position - 1] {
                    let expected = format!("an index above {}", self.neurons[position - 1]);
                    return mistake("neurons", expected, neuron, position);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(neurons: &[u32], offsets: &[u32]) -> Result<(), String> {
        NeuronLists { neurons, offsets }.check(10).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_that_follow_each_other_are_accepted() {
        for (neurons, offsets) in [
            (&[][..], &[0][..]),
            (&[], &[0, 0, 0]),
            (&[3, 9, 3, 9, 0], &[0, 2, 4, 4, 5]),
            (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[0, 10]),
        ] {
            assert_eq!(check(neurons, offsets), Ok(()));
        }
    }

    #[test]
    fn the_first_offending_position_is_named() {
        for (neurons, offsets, words) in [
            (&[1, 2][..], &[1, 2][..], "neuron_offsets has value 1 at position 0, expected 0 ("),
            (&[1, 2], &[0, 3, 2], "neuron_offsets has value 3 at position 1, expected 0 to 2"),
            (&[1, 2], &[0, 2, 1, 2], "neuron_offsets has value 1 at position 2, expected 2"),
            (&[1, 2], &[0, 1], "neuron_offsets has value 1 at position 1, expected 2"),
            (&[1], &[0], "neuron_offsets has value 0 at position 0"),
            (&[1, 10], &[0, 2], "neurons has value 10 at position 1, expected an index below 10"),
            (&[1, 1], &[0, 2], "neurons has value 1 at position 1, expected an index above 1"),
            (
                &[4, 5, 3],
                &[0, 1, 3],
                "neurons has value 3 at position 2, expected an index above 5",
            ),
        ] {
            let message = check(neurons, offsets).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
