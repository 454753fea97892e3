//! What comes before, between and behind the two products, whatever the kernel: norm, activation, biases,
//! residual and every rounding.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::product::Matrix;
use crate::backend::cpu::rms_norm::{Scale, Squares};
use crate::backend::cpu::silu::silu_mul;
use crate::dtype::DType;
use crate::ops::silu_mlp::Rounding;
use crate::ops::silu_mlp::mlp::config::NormEpsilon;

/// An MLP's tensors, ready for the kernels.
pub(super) struct Layer<'a, W> {
    pub rows: usize,
    /// Gate and up, or up alone.
    pub first: &'a [Matrix<'a, W>],
    pub down: Matrix<'a, W>,
    pub input: Input<'a>,
    pub hidden: Hidden<'a>,
    pub output: Output<'a>,
}

/// The activations, normalised as they are read.
pub(super) struct Input<'a> {
    pub x: FloatRows<'a>,
    pub norm: Option<(NormEpsilon, FloatRows<'a>)>,
    pub dtype: DType,
}

impl Input<'_> {
    /// The norm's scale of one row of `columns` elements; summed in f64, so that no square overflows.
    #[inline(always)]
    pub fn scale<V: Vectors>(&self, v: V, row: usize, columns: usize) -> Scale {
        let Some((eps, _)) = self.norm else { return Scale::ONE };
        let mut squares = Squares::new();
        squares.add_row(v, &self.x, row, columns);
        Scale::new(squares.sum() / columns as f64, eps.0)
    }

    /// A vector of `n`, rounded to the activation type; zeros behind the last column.
    #[inline(always)]
    pub fn load<V: Vectors>(&self, v: V, row: usize, column: usize, scale: Scale) -> V::Vector {
        let x = self.x.load(v, row, column);
        let Some((_, weight)) = self.norm else { return x };
        v.round_to(self.dtype, v.mul(scale.apply(v, x), weight.load(v, 0, column)))
    }
}

/// From sums of the first product to `h`.
pub(super) struct Hidden<'a> {
    pub gate_bias: Option<FloatRows<'a>>,
    pub up_bias: Option<FloatRows<'a>>,
    pub rounding: Rounding,
    pub dtype: DType,
}

impl Hidden<'_> {
    /// Biases of the neurons from `neuron` on, in the order of the sums.
    #[inline(always)]
    pub fn biases<V: Vectors>(&self, v: V, neuron: usize, gated: bool) -> [V::Vector; 2] {
        let load = |bias: Option<FloatRows<'_>>| match bias {
            Some(bias) => bias.load(v, 0, neuron),
            None => v.splat(0.0),
        };
        if gated { [load(self.gate_bias), load(self.up_bias)] } else { [load(self.up_bias); 2] }
    }

    /// As [`Hidden::biases`], those of one neuron in every lane.
    #[inline(always)]
    pub fn splat_biases<V: Vectors>(&self, v: V, neuron: usize, gated: bool) -> [V::Vector; 2] {
        let splat =
            |bias: Option<FloatRows<'_>>| v.splat(bias.map_or(0.0, |bias| bias.get(0, neuron)));
        if gated { [splat(self.gate_bias), splat(self.up_bias)] } else { [splat(self.up_bias); 2] }
    }

    /// `silu(gate) * up` of two sums, or `silu(up)` of one, rounded to the activation type.
    #[inline(always)]
    pub fn activate<V: Vectors>(&self, v: V, sums: &[V::Vector]) -> V::Vector {
        let one = v.splat(1.0);
        let early = |vector| match self.rounding {
            Rounding::KeepF32 => vector,
            Rounding::RoundGateUp => v.round_to(self.dtype, vector),
        };
        let h = match (sums, self.rounding) {
            (&[gate, up], Rounding::KeepF32) => silu_mul(v, gate, up),
            (&[gate, up], Rounding::RoundGateUp) => {
                v.mul(early(silu_mul(v, early(gate), one)), early(up))
            }
            (sums, _) => silu_mul(v, early(sums[0]), one),
        };
        v.round_to(self.dtype, h)
    }
}

/// From sums of the second product to the output.
pub(super) struct Output<'a> {
    pub bias: Option<FloatRows<'a>>,
    pub residual: Option<FloatRows<'a>>,
    pub out: FloatRowsMut<'a>,
}

impl Output<'_> {
    /// Adds bias and residual, rounds and stores the first `count` lanes, at most a vector.
    ///
    /// # Safety
    /// Nobody else uses these elements of the output at the same time.
    #[inline(always)]
    pub unsafe fn finish<V: Vectors>(
        &self,
        v: V,
        mut sums: V::Vector,
        row: usize,
        column: usize,
        count: usize,
    ) {
        if let Some(residual) = self.residual {
            sums = v.add(sums, residual.load(v, row, column));
        }
        if let Some(bias) = self.bias {
            sums = v.add(sums, bias.load(v, 0, column));
        }
        // SAFETY: the caller's promise.
        unsafe { self.out.store(v, sums, row, column, count) };
    }
}
