//! `exit_gate` on the CPU.
#![allow(unsafe_code, reason = "threads write disjoint parts of the mask")]

use std::ops::Range;

use super::{ExitGate, ExitGateArgs, Require};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::float_rows::FloatRows;
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::pieces::{PieceWork, Pieces};
use crate::error::Error;
use crate::layout::HasLayout as _;
use crate::operation::Operation as _;
use crate::tensor::{TensorMut, TensorRef};

impl Cpu {
    /// [`ExitGate`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument; the outputs are then untouched.
    pub fn exit_gate(
        &self,
        op: &ExitGate,
        mut args: ExitGateArgs<TensorRef<'_>, TensorMut<'_>>,
    ) -> Result<(), Error> {
        op.validate(&args.layouts())?;
        let rows = args.go_on.layout().elements();
        let statistics = Statistics::new(op, &args);
        // Of other types they would have been refused.
        let go_on: &mut [u8] = args.go_on.as_mut_slice().unwrap_or_default();
        let permutation: &mut [i32] = args.permutation.as_mut_slice().unwrap_or_default();
        if let (Some(hidden), Some(previous), Some(threshold)) =
            (args.hidden, args.previous_hidden, op.thresholds().cosine)
        {
            let columns = hidden.layout().columns();
            let work = Saturation {
                now: FloatRows::new(hidden),
                before: FloatRows::new(previous),
                threshold,
                columns,
                saturated: Shared::new(go_on),
            };
            // A row without features is one to look at, too.
            self.run_pieces(Pieces::of_rows(rows, columns.max(1)), work);
        }
        for (row, go_on) in go_on.iter_mut().enumerate() {
            *go_on = u8::from(!statistics.exits(row, *go_on != 0));
        }
        let going = go_on.iter().filter(|&&goes| goes != 0).count();
        let (mut next_going, mut next_exiting) = (0, going);
        for (row, &goes) in go_on.iter().enumerate() {
            let next = if goes != 0 { &mut next_going } else { &mut next_exiting };
            permutation[*next] = row as i32;
            *next += 1;
        }
        if let Some([count]) = args.go_on_count.as_mut_slice::<i32>() {
            *count = going as i32;
        }
        Ok(())
    }
}

/// What is known of each sequence, and what it must reach.
struct Statistics<'a> {
    op: &'a ExitGate,
    log_max_prob: f32,
    max_logit: &'a [f32],
    second_logit: &'a [f32],
    log_sum_exp: &'a [f32],
    entropy: &'a [f32],
    classifier: &'a [f32],
}

impl<'a> Statistics<'a> {
    fn new(op: &'a ExitGate, args: &ExitGateArgs<TensorRef<'a>, TensorMut<'_>>) -> Self {
        let values = |tensor: Option<TensorRef<'a>>| {
            tensor.and_then(|tensor| tensor.as_slice()).unwrap_or_default()
        };
        Statistics {
            op,
            log_max_prob: op.thresholds().log_max_prob(),
            max_logit: values(args.max_logit),
            second_logit: values(args.second_logit),
            log_sum_exp: values(args.log_sum_exp),
            entropy: values(args.entropy),
            classifier: values(args.classifier),
        }
    }

    fn exits(&self, row: usize, is_saturated: bool) -> bool {
        let thresholds = self.op.thresholds();
        let reached = [
            thresholds.max_prob.map(|_| self.log_prob(row) >= self.log_max_prob),
            thresholds.margin.map(|threshold| is_at_least(self.margin(row), threshold)),
            thresholds
                .entropy
                .map(|most| self.entropy[row].is_finite() && self.entropy[row] <= most),
            thresholds.cosine.map(|_| is_saturated),
            thresholds.classifier.map(|threshold| is_at_least(self.classifier[row], threshold)),
        ];
        let mut reached = reached.into_iter().flatten();
        match self.op.require() {
            Require::All => reached.all(|reached| reached),
            Require::Any => reached.any(|reached| reached),
        }
    }

    /// Of the best token; NaN if there is none.
    fn log_prob(&self, row: usize) -> f32 {
        let (max, log_sum) = (self.max_logit[row], self.log_sum_exp[row]);
        if max.is_finite() && log_sum.is_finite() { max - log_sum } else { f32::NAN }
    }

    fn margin(&self, row: usize) -> f32 {
        // exp(-inf) is 0.
        self.log_prob(row).exp() - (self.second_logit[row] - self.log_sum_exp[row]).exp()
    }
}

fn is_at_least(value: f32, threshold: f32) -> bool {
    value.is_finite() && value >= threshold
}

/// Leaves in a mask whose hidden state has not turned.
#[derive(Clone, Copy)]
struct Saturation<'a> {
    now: FloatRows<'a>,
    before: FloatRows<'a>,
    threshold: f32,
    columns: usize,
    saturated: Shared<'a, u8>,
}

impl PieceWork for Saturation<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, rows: Range<usize>, _columns: Range<usize>) {
        // SAFETY: this piece is nobody else's.
        let saturated = unsafe { self.saturated.slice(rows.clone()) };
        for (row, saturated) in rows.zip(saturated) {
            let zero = v.splat(0.0);
            let mut sums = [zero; 4];
            for column in (0..self.columns).step_by(V::LANES) {
                let (a, b) = (self.now.load(v, row, column), self.before.load(v, row, column));
                sums[0] = v.mul_add(a, b, sums[0]);
                sums[1] = v.mul_add(a, a, sums[1]);
                sums[2] = v.mul_add(b, b, sums[2]);
            }
            let [dot, now, before, _] = v.sum_lanes(sums);
            let norms = now.sqrt() * before.sqrt();
            let is_saturated = norms.is_finite() && is_at_least(dot / norms, self.threshold);
            *saturated = u8::from(is_saturated);
        }
    }
}
