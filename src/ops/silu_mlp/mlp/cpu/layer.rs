//! What comes before, between and behind the two products, whatever the kernel: norm, selection, activation,
//! biases, masks, residual and every rounding.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use std::ops::Range;

use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::product::Matrix;
use crate::backend::cpu::rms_norm::{Scale, Squares};
use crate::backend::cpu::silu::silu_mul;
use crate::dtype::DType;
use crate::ops::silu_mlp::Rounding;
use crate::ops::silu_mlp::mlp::config::NormEpsilon;

/// A block's tensors, ready for the kernels.
pub(crate) struct Layer<'a, W> {
    pub rows: usize,
    /// Gate and up, or up alone, or nothing.
    pub first: &'a [Matrix<'a, W>],
    pub down: Matrix<'a, W>,
    pub input: Input<'a>,
    pub hidden: Hidden<'a>,
    pub output: Output<'a>,
}

/// The activations; selected, normalised and masked as they are read.
pub(crate) struct Input<'a> {
    pub x: FloatRows<'a>,
    /// Columns of `n`.
    pub columns: usize,
    /// The features that they are, where they are not all.
    pub indices: Option<&'a [u32]>,
    pub norm: Option<Norm<'a>>,
    pub mask: Option<FloatRows<'a>>,
    pub dtype: DType,
}

/// An RMS norm.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub eps: NormEpsilon,
    pub weight: FloatRows<'a>,
    /// Features of a row of `x`.
    pub features: usize,
    /// Whether only the squares of selected features count.
    pub of_selection: bool,
    pub divisor: usize,
}

impl Input<'_> {
    /// The norm's scale of one row; summed in f64, so that no square overflows.
    #[inline(always)]
    pub fn scale<V: Vectors>(&self, v: V, row: usize) -> Scale {
        let Some(norm) = self.norm else { return Scale::ONE };
        let mut squares = Squares::new();
        if norm.of_selection {
            for column in (0..self.columns).step_by(V::LANES) {
                squares.add(v, self.select(v, &self.x, row, column));
            }
        } else {
            squares.add_row(v, &self.x, row, norm.features);
        }
        Scale::new(squares.sum() / norm.divisor as f64, norm.eps.0)
    }

    /// A vector of `n`, rounded to the activation type; zeros behind the last column.
    #[inline(always)]
    pub fn load<V: Vectors>(&self, v: V, row: usize, column: usize, scale: Scale) -> V::Vector {
        let mut n = self.select(v, &self.x, row, column);
        if let Some(norm) = self.norm {
            n = v.mul(scale.apply(v, n), self.select(v, &norm.weight, 0, column));
        } else if self.mask.is_none() {
            return n;
        }
        if let Some(mask) = self.mask {
            n = v.mul(n, self.select(v, &mask, 0, column));
        }
        v.round_to(self.dtype, n)
    }

    /// The features of a row that the columns from `column` on stand for.
    #[inline(always)]
    fn select<V: Vectors>(
        &self,
        v: V,
        rows: &FloatRows<'_>,
        row: usize,
        column: usize,
    ) -> V::Vector {
        match self.indices {
            None => rows.load(v, row, column),
            Some(indices) => rows.gather(v, row, &indices[column..]),
        }
    }
}

/// From sums of the first product to `h`.
pub(crate) struct Hidden<'a> {
    pub gate_bias: Option<FloatRows<'a>>,
    pub up_bias: Option<FloatRows<'a>>,
    pub mask: Option<FloatRows<'a>>,
    pub rounding: Rounding,
    pub dtype: DType,
}

// Functions, not closures: these the compiler calls with vectors in memory.

#[inline(always)]
fn load_bias<V: Vectors>(v: V, bias: Option<FloatRows<'_>>, neuron: usize) -> V::Vector {
    match bias {
        Some(bias) => bias.load(v, 0, neuron),
        None => v.splat(0.0),
    }
}

#[inline(always)]
fn splat_bias<V: Vectors>(v: V, bias: Option<FloatRows<'_>>, neuron: usize) -> V::Vector {
    v.splat(match bias {
        Some(bias) => bias.get(0, neuron),
        None => 0.0,
    })
}

impl Hidden<'_> {
    /// Biases of the neurons from `neuron` on, in the order of the sums.
    #[inline(always)]
    pub fn biases<V: Vectors>(&self, v: V, neuron: usize, gated: bool) -> [V::Vector; 2] {
        let up = load_bias(v, self.up_bias, neuron);
        [if gated { load_bias(v, self.gate_bias, neuron) } else { up }, up]
    }

    /// As [`Hidden::biases`], those of one neuron in every lane.
    #[inline(always)]
    pub fn splat_biases<V: Vectors>(&self, v: V, neuron: usize, gated: bool) -> [V::Vector; 2] {
        let up = splat_bias(v, self.up_bias, neuron);
        [if gated { splat_bias(v, self.gate_bias, neuron) } else { up }, up]
    }

    /// The masks of the neurons from `neuron` on, squared, since a mask multiplies both branches.
    #[inline(always)]
    pub fn factors<V: Vectors>(&self, v: V, neuron: usize) -> Option<V::Vector> {
        let mask = self.mask?.load(v, 0, neuron);
        Some(v.mul(mask, mask))
    }

    /// As [`Hidden::factors`], that of one neuron in every lane.
    #[inline(always)]
    pub fn splat_factor<V: Vectors>(&self, v: V, neuron: usize) -> Option<V::Vector> {
        let mask = v.splat(self.mask?.get(0, neuron));
        Some(v.mul(mask, mask))
    }

    /// `silu(gate) * up` of two sums, or `silu(up)` of one, times the factors, rounded to the activation type.
    #[inline(always)]
    pub fn activate<V: Vectors>(
        &self,
        v: V,
        sums: &[V::Vector],
        factors: Option<V::Vector>,
    ) -> V::Vector {
        let one = v.splat(1.0);
        let early = |vector| match self.rounding {
            Rounding::KeepF32 => vector,
            Rounding::RoundGateUp => v.round_to(self.dtype, vector),
        };
        let mut h = match (sums, self.rounding) {
            (&[gate, up], Rounding::KeepF32) => silu_mul(v, gate, up),
            (&[gate, up], Rounding::RoundGateUp) => {
                v.mul(early(silu_mul(v, early(gate), one)), early(up))
            }
            (sums, _) => silu_mul(v, early(sums[0]), one),
        };
        if let Some(factors) = factors {
            h = v.mul(h, factors);
        }
        v.round_to(self.dtype, h)
    }
}

/// From sums of the second product to the output.
pub(crate) struct Output<'a> {
    pub bias: Option<FloatRows<'a>>,
    pub mask: Option<FloatRows<'a>>,
    pub residual: Option<FloatRows<'a>>,
    /// The features that the rows of the weight are written to, where they are not all.
    pub indices: Option<&'a [u32]>,
    pub out: FloatRowsMut<'a>,
}

impl Output<'_> {
    /// How many parts of `chunk` rows of the weight there are; one at least where features are left as they
    /// are, for somebody has to copy them.
    pub fn chunks(&self, rows: usize, chunk: usize) -> usize {
        let least = usize::from(self.indices.is_some());
        rows.div_ceil(chunk).max(least)
    }

    /// Copies the residual to the features that belong to some rows of the weight: their own, which
    /// [`Output::finish`] then writes again, and those before them that no row is written to; behind the last
    /// row, the rest. Does nothing where every feature is written.
    ///
    /// # Safety
    /// Nobody else uses these features of the output's row at the same time.
    #[inline(always)]
    pub unsafe fn copy_residual<V: Vectors>(&self, v: V, row: usize, rows: &Range<usize>) {
        let Some(indices) = self.indices else { return };
        let behind = |row: usize| indices[row] as usize + 1;
        let start = if rows.start == 0 { 0 } else { behind(rows.start - 1) };
        let last = rows.end == indices.len();
        let end = if last { self.out.columns() } else { behind(rows.end - 1) };
        for column in (start..end).step_by(V::LANES) {
            let residual = match self.residual {
                Some(residual) => residual.load(v, row, column),
                None => v.splat(0.0),
            };
            // SAFETY: the caller's promise.
            unsafe { self.out.store(v, residual, row, column, end - column) };
        }
    }

    /// Adds bias and residual, masks, rounds and stores the first `count` lanes, at most a vector.
    ///
    /// # Safety
    /// Nobody else uses the features of these rows of the weight in this row of the output at the same time.
    #[inline(always)]
    pub unsafe fn finish<V: Vectors>(
        &self,
        v: V,
        mut sums: V::Vector,
        row: usize,
        column: usize,
        count: usize,
    ) {
        if let Some(mask) = self.mask {
            sums = v.mul(sums, mask.load(v, 0, column));
        }
        if let Some(residual) = self.residual {
            let residual = match self.indices {
                None => residual.load(v, row, column),
                Some(indices) => residual.gather(v, row, &indices[column..]),
            };
            sums = v.add(sums, residual);
        }
        if let Some(bias) = self.bias {
            sums = v.add(sums, bias.load(v, 0, column));
        }
        // SAFETY: the caller's promise.
        unsafe {
            match self.indices {
                None => self.out.store(v, sums, row, column, count),
                Some(indices) => {
                    let count = count.min(V::LANES);
                    self.out.scatter(v, sums, row, &indices[column..column + count]);
                }
            }
        }
    }
}
