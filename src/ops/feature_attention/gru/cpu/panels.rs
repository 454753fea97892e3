//! Weights of three gates, packed for the tiles.
//!
//! Hidden units are taken a vector at a time, a *group*. A group's panel holds, for each column of the weight, three
//! vectors side by side: of the reset, the update and the new gate of the group's units. A tile then has all that a state
//! needs in its registers. Lanes without a unit hold zeros.

use crate::backend::cpu::float_rows::FloatRows;
use crate::backend::cpu::instructions::Vectors;
use crate::tensor::TensorRef;

/// Shapes of panels, by the vectors of an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    pub hidden: usize,
    pub lanes: usize,
    /// Sums that a tile keeps in registers.
    pub accumulators: usize,
}

impl Groups {
    pub fn of<V: Vectors>(hidden: usize) -> Groups {
        Groups { hidden, lanes: V::LANES, accumulators: V::ACCUMULATORS }
    }

    pub fn count(&self) -> usize {
        self.hidden.div_ceil(self.lanes)
    }

    /// The gates of one token or text, in one direction.
    pub fn row(&self) -> usize {
        3 * self.count() * self.lanes
    }

    /// A state, up to whole vectors.
    pub fn state(&self) -> usize {
        self.count() * self.lanes
    }

    /// The panels of a weight with this many columns.
    pub fn panels(&self, columns: usize) -> usize {
        self.row() * columns
    }

    /// Rows of a tile: three sums a row.
    pub fn tile_rows(&self) -> usize {
        self.accumulators / 3
    }

    /// Units of a group.
    pub fn units(&self, group: usize) -> usize {
        self.lanes.min(self.hidden - group * self.lanes)
    }
}

/// Packs a group of a weight `[3h, columns]`.
#[inline(always)]
pub(super) fn pack<V: Vectors>(
    v: V,
    groups: &Groups,
    weight: TensorRef<'_>,
    columns: usize,
    group: usize,
    panel: &mut [f32],
) {
    let (row, units) = (3 * V::LANES, groups.units(group));
    let weight = FloatRows::new(weight);
    panel.fill(0.0);
    // A block of columns at a time, so that what is written stays in the first-level cache.
    for first in (0..columns).step_by(V::LANES) {
        let count = V::LANES.min(columns - first);
        let block = &mut panel[first * row..][..count * row];
        for (gate, unit) in (0..3).flat_map(|gate| (0..units).map(move |unit| (gate, unit))) {
            let mut lanes = [0f32; crate::backend::cpu::instructions::MAX_LANES];
            let from = gate * groups.hidden + group * V::LANES + unit;
            v.store_slice(weight.load(v, from, first), &mut lanes[..V::LANES]);
            for (column, value) in block.chunks_exact_mut(row).zip(lanes) {
                column[gate * V::LANES + unit] = value;
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
    for unit in 0..groups.hidden {
        let (group, lane) = (unit / groups.lanes, unit % groups.lanes);
        for gate in 0..3 {
            let at = gate * groups.hidden + unit;
            let state = if gate < 2 { get(&from_state, at) } else { 0.0 };
            gates[(3 * group + gate) * groups.lanes + lane] = get(&from_input, at) + state;
        }
        new[unit] = get(&from_state, 2 * groups.hidden + unit);
    }
}
