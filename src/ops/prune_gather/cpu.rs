//! Gathers and scatters of rows on the CPU, shared by the operations of the family.
#![allow(unsafe_code, reason = "threads write disjoint parts of the output")]

use std::ops::Range;

use bytemuck::Pod;

use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::{MAX_LANES, Vectors};
use crate::backend::cpu::rms_norm::{Scale, Squares};
use crate::dtype::DType;
use crate::ops::prune_gather::NormScope;
use crate::ops::prune_gather::norm::Norm;

/// Columns of a row that are scattered at a time: their addends stay in the first-level cache.
pub(super) const BLOCK: usize = 512;

/// The bits of a row's elements.
#[derive(Clone, Copy)]
enum Bits<'a> {
    Narrow(DType, &'a [u16]),
    Wide(&'a [u32]),
}

impl<'a> Bits<'a> {
    #[inline(always)]
    fn new(from: &FloatRows<'a>, row: usize) -> Bits<'a> {
        match from.dtype() {
            DType::F32 => Bits::Wide(from.bits(row)),
            dtype => Bits::Narrow(dtype, from.bits(row)),
        }
    }

    /// The elements at `positions`, one after the other; at most a vector, zeros behind.
    #[inline(always)]
    fn gather<V: Vectors>(&self, v: V, positions: &[u32]) -> V::Vector {
        match *self {
            Bits::Narrow(dtype, elements) => gather_bits(v, dtype, elements, positions),
            Bits::Wide(elements) => gather_bits(v, DType::F32, elements, positions),
        }
    }
}

#[inline(always)]
fn gather_bits<V: Vectors, E: Pod>(
    v: V,
    dtype: DType,
    elements: &[E],
    positions: &[u32],
) -> V::Vector {
    let mut gathered = [E::zeroed(); MAX_LANES];
    if positions.len() == V::LANES {
        // A constant number of lanes is unrolled.
        #[allow(clippy::needless_range_loop, reason = "a constant number of lanes")]
        for lane in 0..V::LANES {
            gathered[lane] = elements[positions[lane] as usize];
        }
    } else {
        for (element, &position) in gathered.iter_mut().zip(positions) {
            *element = elements[position as usize];
        }
    }
    v.load_bits(dtype, &gathered)
}

/// The selected features of a row, normalised if there is a norm, to part of a row of the output.
#[derive(Clone, Copy)]
pub(super) struct Gather<'a> {
    pub norm: Option<(Norm, FloatRows<'a>)>,
    pub indices: &'a [u32],
    pub features: usize,
    /// What `x` is rounded to before it is used.
    pub dtype: DType,
    pub out: FloatRowsMut<'a>,
}

impl Gather<'_> {
    /// The scale of a row, given the squares of all its elements where the norm is over those.
    #[inline(always)]
    pub fn scale<V: Vectors>(
        &self,
        v: V,
        x: &FloatRows<'_>,
        row: usize,
        all: impl FnOnce() -> Squares,
    ) -> Scale {
        let Some((norm, _)) = self.norm else { return Scale::ONE };
        let squares = match norm.scope {
            NormScope::Full => all(),
            NormScope::Selected | NormScope::SelectedSumOverD => {
                let (mut squares, bits) = (Squares::new(), Bits::new(x, row));
                for positions in self.indices.chunks(V::LANES) {
                    squares.add(v, self.load(v, x, bits, positions));
                }
                squares
            }
        };
        let divisor = norm.divisor(self.features, self.indices.len());
        Scale::new(squares.sum() / divisor as f64, norm.eps())
    }

    #[inline(always)]
    fn load<V: Vectors>(
        &self,
        v: V,
        x: &FloatRows<'_>,
        bits: Bits<'_>,
        positions: &[u32],
    ) -> V::Vector {
        let value = bits.gather(v, positions);
        if x.dtype() == self.dtype { value } else { v.round_to(self.dtype, value) }
    }

    /// Writes columns of row `to` from row `row` of `x`.
    ///
    /// # Safety
    /// Nobody else uses these elements of the output at the same time.
    #[inline(always)]
    pub unsafe fn run<V: Vectors>(
        &self,
        v: V,
        x: &FloatRows<'_>,
        [row, to]: [usize; 2],
        columns: Range<usize>,
        scale: Scale,
    ) {
        if columns.is_empty() {
            return;
        }
        let bits = Bits::new(x, row);
        let weight = self.norm.as_ref().map(|(_, weight)| Bits::new(weight, 0));
        for column in columns.clone().step_by(V::LANES) {
            let count = V::LANES.min(columns.end - column);
            let positions = &self.indices[column..column + count];
            let mut value = self.load(v, x, bits, positions);
            if let Some(weight) = &weight {
                value = v.mul(scale.apply(v, value), weight.gather(v, positions));
            }
            // SAFETY: the caller's promise.
            unsafe { self.out.store(v, value, to, column, count) };
        }
    }
}

/// `residual + scatter(y)`.
#[derive(Clone, Copy)]
pub(super) struct Scatter<'a> {
    pub residual: FloatRows<'a>,
    pub y: FloatRows<'a>,
    pub indices: &'a [u32],
}

/// What is added to [`BLOCK`] columns: members have fixed places, all others keep their residual.
pub(super) struct Addends([f32; BLOCK]);

impl Addends {
    /// Minus zero: the only number that changes no number when it is added.
    pub fn new() -> Addends {
        Addends([-0.0; BLOCK])
    }
}

impl Scatter<'_> {
    /// The places in `indices` of the members among these columns.
    pub fn members(&self, columns: &Range<usize>) -> Range<usize> {
        let below = |end: usize| self.indices.partition_point(|&index| (index as usize) < end);
        below(columns.start)..below(columns.end)
    }

    /// Spreads the members' values of a row over their columns, which start at `first`.
    #[inline(always)]
    pub fn spread<V: Vectors>(
        &self,
        v: V,
        row: usize,
        members: Range<usize>,
        first: usize,
        addends: &mut Addends,
    ) {
        let mut lanes = [0f32; MAX_LANES];
        for place in members.clone().step_by(V::LANES) {
            let end = members.end.min(place + V::LANES);
            v.store_slice(self.y.load(v, row, place), &mut lanes[..V::LANES]);
            for (&index, &lane) in self.indices[place..end].iter().zip(&lanes) {
                addends.0[index as usize - first] = lane;
            }
        }
    }

    /// A vector of the sum; zeros behind the last column.
    #[inline(always)]
    pub fn sum<V: Vectors>(
        &self,
        v: V,
        row: usize,
        column: usize,
        first: usize,
        addends: &Addends,
    ) -> V::Vector {
        let addend = v.load_slice(&addends.0[column - first..]);
        v.add(self.residual.load(v, row, column), addend)
    }
}
