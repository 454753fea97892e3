//! The scalar oracle of `coupled_neurons`.

use super::{CoupledNeurons, CoupledNeuronsArgs, DeanMode};
use crate::error::Error;
use crate::operation::Operation as _;
use crate::ops::prune_gather::select_top::descending;
use crate::ops::prune_gather::selection::NO_INDEX;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn coupled_neurons(
    op: &CoupledNeurons,
    mut args: CoupledNeuronsArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    op.validate_values(&args.inputs())?;
    let top = |scores: TensorRef<'_>, k: usize| {
        let mut top = descending(&scores.to_f64());
        top.truncate(k);
        top
    };
    let general = members(&top(args.general, op.general_k), op.elements);
    let (first, second) = (top(args.first, op.task_k), top(args.second, op.task_k));
    let mut coupled: Vec<usize> = match op.mode {
        DeanMode::Intersect => {
            let in_second = members(&second, op.elements);
            first.into_iter().filter(|&index| in_second[index] && !general[index]).collect()
        }
        DeanMode::PositionalCompat => {
            let outside_both = |&(&a, &b): &(&usize, &usize)| !general[a] && !general[b];
            first.iter().zip(&second).filter(outside_both).map(|(&index, _)| index).collect()
        }
    };
    coupled.sort_unstable();
    if let Some(count) = &mut args.count {
        count.write_f64([coupled.len() as f64]);
    }
    let mut indices: Vec<f64> = coupled.into_iter().map(|index| index as f64).collect();
    indices.resize(op.capacity(), f64::from(NO_INDEX));
    args.indices.write_f64(indices);
    Ok(())
}

/// For each element whether it is in the list.
fn members(list: &[usize], elements: usize) -> Vec<bool> {
    let mut members = vec![false; elements];
    list.iter().for_each(|&index| members[index] = true);
    members
}
