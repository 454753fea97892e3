//! Weights, packed for the tiles.
//!
//! A panel holds three vectors side by side for each column of a weight. Of a GRU's weights, these are of the reset, the
//! update and the new gate of a vector of hidden units, a *group*: a tile then has all that a state needs in its registers.
//! Of any other weight, they are of rows that follow each other. Lanes without a row hold zeros.
#![allow(unsafe_code, reason = "blocks are transposed through pointers")]

use crate::backend::cpu::float_rows::FloatRows;
use crate::backend::cpu::instructions::{MAX_LANES, Vectors};
use crate::tensor::TensorRef;

/// What panels are made for: the vectors of an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiling {
    pub lanes: usize,
    /// Sums that a tile keeps in registers.
    accumulators: usize,
}

impl Tiling {
    pub fn of<V: Vectors>() -> Tiling {
        Tiling { lanes: V::LANES, accumulators: V::ACCUMULATORS }
    }

    /// Rows of a tile: three sums a row.
    pub fn tile_rows(&self) -> usize {
        self.accumulators / 3
    }

    /// Panels for `outputs` rows of a weight.
    pub fn panels(&self, outputs: usize) -> usize {
        outputs.div_ceil(3 * self.lanes)
    }
}

/// The hidden units of a GRU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    pub hidden: usize,
    pub tiling: Tiling,
}

impl Groups {
    pub fn count(&self) -> usize {
        self.hidden.div_ceil(self.tiling.lanes)
    }

    /// The gates of one token or text, in one direction.
    pub fn row(&self) -> usize {
        3 * self.state()
    }

    /// A state, up to whole vectors.
    pub fn state(&self) -> usize {
        self.count() * self.tiling.lanes
    }

    /// Units of a group.
    pub fn units(&self, group: usize) -> usize {
        self.tiling.lanes.min(self.hidden - group * self.tiling.lanes)
    }
}

/// Which rows of a weight a panel's vectors are made of.
#[derive(Clone, Copy)]
pub(super) enum Rows {
    /// Gates of groups of so many hidden units.
    Gates { hidden: usize },
    /// One after the other, of so many.
    Plain { outputs: usize },
}

impl Rows {
    /// The row in a lane of a vector of a panel, if there is one.
    #[inline(always)]
    fn row<V: Vectors>(self, panel: usize, vector: usize, lane: usize) -> Option<usize> {
        match self {
            Rows::Gates { hidden } => {
                let unit = panel * V::LANES + lane;
                (unit < hidden).then(|| vector * hidden + unit)
            }
            Rows::Plain { outputs } => {
                let row = (3 * panel + vector) * V::LANES + lane;
                (row < outputs).then_some(row)
            }
        }
    }
}

/// Packs a panel of a weight.
#[inline(always)]
pub(super) fn pack<V: Vectors>(
    v: V,
    rows: Rows,
    weight: TensorRef<'_>,
    columns: usize,
    index: usize,
    panel: &mut [f32],
) {
    let row = 3 * V::LANES;
    let weight = FloatRows::new(weight);
    let mut block = [[0f32; MAX_LANES * MAX_LANES]; 3];
    for first in (0..columns).step_by(V::LANES) {
        let count = V::LANES.min(columns - first);
        for (vector, block) in block.iter_mut().enumerate() {
            for (lane, values) in block.chunks_exact_mut(V::LANES).take(V::LANES).enumerate() {
                if let Some(from) = rows.row::<V>(index, vector, lane) {
                    v.store_slice(weight.load(v, from, first), values);
                }
            }
        }
        let panel = &mut panel[first * row..][..count * row];
        for (vector, block) in block.iter().enumerate() {
            if count == V::LANES {
                // SAFETY: a block of whole rows, and as many columns of the panel.
                unsafe {
                    v.transpose(block.as_ptr(), panel[vector * V::LANES..].as_mut_ptr(), row)
                };
                continue;
            }
            for (column, panel) in panel.chunks_exact_mut(row).enumerate() {
                for (lane, to) in panel[vector * V::LANES..][..V::LANES].iter_mut().enumerate() {
                    *to = block[lane * V::LANES + column];
                }
            }
        }
    }
}

/// Biases as the tiles take them: for each gate what is added to the input's share, and for the new gate what is added
/// to the state's share, which the reset gate is multiplied with.
#[inline(always)]
pub(super) fn pack_bias(
    groups: &Groups,
    [from_input, from_state]: [Option<TensorRef<'_>>; 2],
    gates: &mut [f32],
    new: &mut [f32],
) {
    let get = |bias: &Option<FloatRows<'_>>, at| bias.map_or(0.0, |bias| bias.get(0, at));
    let [from_input, from_state] = [from_input, from_state].map(|bias| bias.map(FloatRows::new));
    gates.fill(0.0);
    new.fill(0.0);
    for (unit, new) in new[..groups.hidden].iter_mut().enumerate() {
        let lanes = groups.tiling.lanes;
        let (group, lane) = (unit / lanes, unit % lanes);
        for gate in 0..3 {
            let at = gate * groups.hidden + unit;
            let state = if gate < 2 { get(&from_state, at) } else { 0.0 };
            gates[(3 * group + gate) * lanes + lane] = get(&from_input, at) + state;
        }
        *new = get(&from_state, 2 * groups.hidden + unit);
    }
}
