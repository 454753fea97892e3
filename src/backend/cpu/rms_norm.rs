//! The statistics of an RMS norm.

use super::float_rows::FloatRows;
use super::instructions::{MAX_LANES, Vectors};

/// `1 / rms(x)` of a row in two factors, so that neither is denormal however large the row.
#[derive(Clone, Copy)]
pub(crate) struct Scale(f32, f32);

impl Scale {
    pub const ONE: Scale = Scale(1.0, 1.0);

    /// For a row of this mean square.
    pub fn new(mean_square: f64, eps: f32) -> Scale {
        const SHIFT: f64 = (1u64 << 40) as f64;
        let scale = 1.0 / (mean_square + f64::from(eps)).sqrt();
        if scale < 1e-30 {
            Scale((1.0 / SHIFT) as f32, (scale * SHIFT) as f32)
        } else {
            Scale(1.0, scale as f32)
        }
    }

    /// `x / rms(x)`.
    #[inline(always)]
    pub fn apply<V: Vectors>(self, v: V, x: V::Vector) -> V::Vector {
        v.mul(v.mul(x, v.splat(self.0)), v.splat(self.1))
    }
}

/// Sums squares in f64, so that none overflows.
#[derive(Clone, Copy)]
pub(crate) struct Squares {
    sums: [f64; MAX_LANES],
}

impl Squares {
    pub fn new() -> Squares {
        Squares { sums: [0.0; MAX_LANES] }
    }

    #[inline(always)]
    pub fn add<V: Vectors>(&mut self, v: V, x: V::Vector) {
        let mut lanes = [0f32; MAX_LANES];
        v.store_slice(x, &mut lanes[..V::LANES]);
        // By index: of a constant number of lanes, the compiler makes vectors.
        #[allow(clippy::needless_range_loop, reason = "iterators over two arrays stay scalar")]
        for lane in 0..V::LANES {
            self.sums[lane] += f64::from(lanes[lane]) * f64::from(lanes[lane]);
        }
    }

    /// Adds the first `columns` elements of a row.
    #[inline(always)]
    pub fn add_row<V: Vectors>(&mut self, v: V, x: &FloatRows<'_>, row: usize, columns: usize) {
        for column in (0..columns).step_by(V::LANES) {
            self.add(v, x.load(v, row, column));
        }
    }

    pub fn sum(&self) -> f64 {
        self.sums.iter().sum()
    }
}
