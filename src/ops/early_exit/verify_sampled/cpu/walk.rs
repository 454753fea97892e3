//! From a sequence's rows to how many drafts are accepted, and the token behind them.

use super::super::SampledMode;
use super::row::{Profile, RowJob};
use super::{Found, Rows};
use crate::backend::cpu::instructions::Vectors;
use crate::ops::early_exit::philox::{Purpose, token_bits};
use crate::tensor::with_float;

/// A sequence.
pub(super) struct WalkJob<'a> {
    pub rows: &'a Rows<'a>,
    pub profiles: &'a [Profile],
    pub sequence: usize,
    /// Its first draft's place among all.
    pub first: usize,
    pub drafts: &'a [i32],
    /// Room for the masses of two rows.
    pub scratch: &'a mut [u32],
}

/// Where a walk ended.
enum Ended {
    /// In front of a row without a distribution.
    Invalid(usize),
    /// Behind all drafts.
    Bonus,
    /// In front of a draft; the residual is `relu(ratio p - q)`.
    Rejected { accepted: usize, ratio: f64 },
}

impl WalkJob<'_> {
    #[inline(always)]
    pub fn walk<V: Vectors>(&mut self, v: V) -> Found {
        let count = self.drafts.len();
        let ended = match self.rows.op.mode {
            SampledMode::Match => return self.matched(),
            SampledMode::OneHot | SampledMode::Full => self.one_by_one(),
            SampledMode::Block => self.block(v),
        };
        match ended {
            Ended::Bonus if self.target(count).is_valid() => {
                self.masses(v, self.target_row(count), true);
                Found { accepted: count as i32, correction: self.draw(count, None) }
            }
            Ended::Bonus => Found { accepted: count as i32, correction: -1 },
            Ended::Invalid(accepted) => Found { accepted: accepted as i32, correction: -1 },
            Ended::Rejected { accepted, ratio } => {
                self.masses(v, self.target_row(accepted), true);
                let correction = self.draw_residual(v, accepted, ratio);
                Found { accepted: accepted as i32, correction }
            }
        }
    }

    fn target_row(&self, i: usize) -> usize {
        self.first + self.sequence + i
    }

    fn draft_row(&self, i: usize) -> usize {
        self.rows.target_rows() + self.first + i
    }

    fn target(&self, i: usize) -> &Profile {
        &self.profiles[self.target_row(i)]
    }

    fn has_q(&self) -> bool {
        self.rows.draft_distribution.is_some()
    }

    /// Whether draft i can be judged.
    fn is_valid(&self, i: usize) -> bool {
        let has_q = self.has_q();
        self.target(i).is_valid() && (!has_q || self.profiles[self.draft_row(i)].is_valid())
    }

    fn matched(&self) -> Found {
        for (i, &draft) in self.drafts.iter().enumerate() {
            let row = self.target(i);
            if !row.is_valid() || row.token != draft {
                let correction = if row.is_valid() { row.token } else { -1 };
                return Found { accepted: i as i32, correction };
            }
        }
        let row = self.target(self.drafts.len());
        let correction = if row.is_valid() { row.token } else { -1 };
        Found { accepted: self.drafts.len() as i32, correction }
    }

    fn one_by_one(&self) -> Ended {
        for i in 0..self.drafts.len() {
            if !self.is_valid(i) {
                return Ended::Invalid(i);
            }
            if self.coin(i) * self.q(i) >= self.p(i) {
                return Ended::Rejected { accepted: i, ratio: 1.0 };
            }
        }
        Ended::Bonus
    }

    #[inline(always)]
    fn block<V: Vectors>(&mut self, v: V) -> Ended {
        let count = self.drafts.len();
        let judged = (0..count).find(|&i| !self.is_valid(i)).unwrap_or(count);
        for i in (0..=judged).rev() {
            let ratio = self.ratio(i);
            if i > 0 {
                let threshold = if i == judged { ratio } else { self.threshold(v, i, ratio) };
                if self.coin(i - 1) >= threshold {
                    continue;
                }
            }
            return match i {
                _ if i == count => Ended::Bonus,
                _ if i == judged => Ended::Invalid(i),
                _ => Ended::Rejected { accepted: i, ratio },
            };
        }
        Ended::Invalid(0)
    }

    /// The algorithm's p_i.
    fn ratio(&self, i: usize) -> f64 {
        (0..i).fold(1.0, |ratio, i| {
            let product: f64 = ratio * self.p(i);
            if product == 0.0 { 0.0 } else { (product / self.q(i)).min(1.0) }
        })
    }

    /// The algorithm's h_i.
    #[inline(always)]
    fn threshold<V: Vectors>(&mut self, v: V, i: usize, ratio: f64) -> f64 {
        self.masses(v, self.target_row(i), true);
        let mass = self.subtract_q(v, i, ratio);
        let excess = mass as f64 / self.target(i).total as f64;
        let rest = 1.0 - ratio;
        if excess + rest == 0.0 { 1.0 } else { excess / (excess + rest) }
    }

    /// The target's probability of draft i.
    fn p(&self, i: usize) -> f64 {
        let row = self.target(i);
        f64::from(row.drafted) / row.total as f64
    }

    /// The draft's.
    fn q(&self, i: usize) -> f64 {
        if !self.has_q() {
            return 1.0;
        }
        let row = &self.profiles[self.draft_row(i)];
        f64::from(row.drafted) / row.total as f64
    }

    /// Fills the first or second half of the scratch memory.
    #[inline(always)]
    fn masses<V: Vectors>(&mut self, v: V, row: usize, first: bool) {
        let (p, q) = self.scratch.split_at_mut(self.rows.op.valid_vocab);
        let masses = if first { p } else { q };
        with_float!(self.rows.op.dtype, T => {
            let job = RowJob {
                values: self.rows.elements::<T>(row),
                filters: self.rows.filters(self.sequence, row),
                drafted: None,
                noise: None,
            };
            job.kept_masses(v, &self.profiles[row], masses);
        });
    }

    /// Leaves `relu(ratio p - q)` where p was; returns its mass.
    #[inline(always)]
    fn subtract_q<V: Vectors>(&mut self, v: V, i: usize, ratio: f64) -> u64 {
        self.masses(v, self.draft_row(i), false);
        let q_total = self.profiles[self.draft_row(i)].total;
        let unit = self.target(i).total as f64 / q_total as f64;
        let (p, q) = self.scratch.split_at_mut(self.rows.op.valid_vocab);
        let mut total = 0;
        for (p, &q) in p.iter_mut().zip(&*q) {
            // Rounds, and what is negative becomes 0.
            *p = (ratio * f64::from(*p) - unit * f64::from(q) + 0.5) as u32;
            total += u64::from(*p);
        }
        total
    }

    /// The token in place of draft i; its row's masses are there.
    #[inline(always)]
    fn draw_residual<V: Vectors>(&mut self, v: V, i: usize, ratio: f64) -> i32 {
        if self.has_q() {
            if self.subtract_q(v, i, ratio) > 0 {
                return self.draw(i, None);
            }
            self.masses(v, self.target_row(i), true);
        }
        self.draw(i, Some(self.drafts[i]))
    }

    /// A token by the masses that are there, `without` aside; the likeliest if there is nothing else.
    fn draw(&mut self, i: usize, without: Option<i32>) -> i32 {
        let (masses, _) = self.scratch.split_at_mut(self.rows.op.valid_vocab);
        if let Some(mass) = without.and_then(|id| masses.get_mut(usize::try_from(id).ok()?)) {
            *mass = 0;
        }
        let total: u64 = masses.iter().map(|&mass| u64::from(mass)).sum();
        let bits = self.bits(i, Purpose::Residual);
        let wanted = ((u128::from(bits) * u128::from(total)) >> 32) as u64;
        let mut passed = 0;
        let (masses, _) = self.scratch.split_at(self.rows.op.valid_vocab);
        let drawn = masses.iter().position(|&mass| {
            passed += u64::from(mass);
            passed > wanted
        });
        drawn.map_or(self.target(i).token, |id| id as i32)
    }

    /// In units of `2^-32`.
    fn bits(&self, i: usize, purpose: Purpose) -> u32 {
        let rows = self.rows;
        if let Some((uniforms, stride)) = rows.uniforms {
            let column = usize::from(purpose == Purpose::Residual);
            // Exact, and below 2^32 as the number is below 1.
            return (f64::from(uniforms[self.target_row(i) * stride + column]) * 2f64.powi(32))
                as u32;
        }
        let position = rows.position(self.sequence, i);
        token_bits(rows.seed(self.sequence), position, 0, purpose)[0]
    }

    fn coin(&self, i: usize) -> f64 {
        f64::from(self.bits(i, Purpose::Coin)) / 2f64.powi(32)
    }
}
