//! The scalar oracle of `exit_gate`.

use super::{ExitGate, ExitGateArgs, Require};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

pub(super) fn exit_gate(
    op: &ExitGate,
    mut args: ExitGateArgs<TensorRef<'_>, TensorMut<'_>>,
) -> Result<(), Error> {
    op.validate(&args.layouts())?;
    let rows = args.go_on.layout().elements();
    // Without a tensor there is no threshold that looks at it.
    let values = |tensor: Option<TensorRef<'_>>| {
        tensor.map_or_else(|| vec![f64::NAN; rows], |tensor| tensor.to_f64())
    };
    let (max, second) = (values(args.max_logit), values(args.second_logit));
    let log_sum = values(args.log_sum_exp);
    let (entropy, classifier) = (values(args.entropy), values(args.classifier));
    let cosine = match (args.hidden, args.previous_hidden) {
        (Some(hidden), Some(previous)) => cosines(hidden, previous),
        _ => vec![f64::NAN; rows],
    };
    let thresholds = op.thresholds();
    let exits = |row: usize| {
        let has_logits = max[row].is_finite() && log_sum[row].is_finite();
        let prob = |logit: f64| {
            if has_logits { (logit - log_sum[row]).exp() } else { f64::NAN }
        };
        let at_least = |value: f64, threshold: Option<f32>| {
            threshold.map(|threshold| value.is_finite() && value >= f64::from(threshold))
        };
        let reached = [
            at_least(prob(max[row]), thresholds.max_prob),
            at_least(prob(max[row]) - prob(second[row]), thresholds.margin),
            at_least(-entropy[row], thresholds.entropy.map(|entropy| -entropy)),
            at_least(cosine[row], thresholds.cosine),
            at_least(classifier[row], thresholds.classifier),
        ];
        let mut reached = reached.into_iter().flatten();
        match op.require() {
            Require::All => reached.all(|reached| reached),
            Require::Any => reached.any(|reached| reached),
        }
    };
    let (exiting, going): (Vec<usize>, Vec<usize>) = (0..rows).partition(|&row| exits(row));
    let is_going = |row| f64::from(u8::from(going.contains(&row)));
    args.go_on.write_f64((0..rows).map(is_going));
    args.permutation.write_f64(going.iter().chain(&exiting).map(|&row| row as f64));
    args.go_on_count.write_f64([going.len() as f64]);
    Ok(())
}

fn cosines(hidden: TensorRef<'_>, previous: TensorRef<'_>) -> Vec<f64> {
    let layout = hidden.layout();
    let (hidden, previous) = (hidden.to_f64(), previous.to_f64());
    let row = |row: usize| {
        let columns = row * layout.columns()..(row + 1) * layout.columns();
        let (a, b) = (&hidden[columns.clone()], &previous[columns]);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
    };
    (0..layout.shape()[0]).map(row).collect()
}
