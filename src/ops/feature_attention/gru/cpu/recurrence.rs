//! The recurrence: every step of some texts in one direction, on one thread.
#![allow(unsafe_code, reason = "tiles read and write through pointers")]

use super::panels::Groups;
use super::texts::{Text, running};
use super::tile::{Operands, Sums, Tile, accumulate, run_groups};
use crate::backend::cpu::activation::{sigmoids, tanh};
use crate::backend::cpu::float_rows::{FloatMatrices, FloatMatricesMut, FloatRowsMut};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::{Shared, chunk};
use crate::backend::cpu::pieces::ChunkWork;

/// Rows of the widest tile.
const MAX_ROWS: usize = 8;
/// Tiles that take a step together, so that a panel that one tile has fetched serves the others too.
const MAX_TILES: usize = 4;
/// Groups that a tile takes before it is the next one's turn.
const BLOCK_GROUPS: usize = 4;

/// Where the states of tokens go.
#[derive(Clone, Copy)]
pub(crate) enum Output<'a> {
    /// `[B, L, 2h]`.
    Texts(FloatMatricesMut<'a>),
    /// `[tokens, 2h]`: the valid tokens of all texts.
    Tokens(FloatRowsMut<'a>),
}

#[derive(Clone, Copy)]
pub(super) struct Recurrence<'a> {
    pub groups: Groups,
    /// Those that have tokens, longest first.
    pub texts: &'a [Text],
    /// Valid tokens of all texts.
    pub tokens: usize,
    /// Tiles of a chunk.
    pub tiles: usize,
    /// Both directions' panels of `weight_hh`.
    pub panels: &'a [f32],
    /// Both directions' biases of the new gate.
    pub new_bias: &'a [f32],
    /// Both directions' input shares.
    pub gates: &'a [f32],
    /// Both directions' states, before and behind a step.
    pub states: Shared<'a, f32>,
    pub output: Output<'a>,
    /// Layer by layer forward, then reverse.
    pub initial: Option<FloatMatrices<'a>>,
    pub last: Option<FloatMatricesMut<'a>>,
    pub layer: usize,
}

impl Recurrence<'_> {
    /// How many tiles go together: enough chunks for every thread, if there are as many tiles.
    pub fn tiles(groups: &Groups, texts: usize, threads: usize) -> usize {
        (2 * texts.div_ceil(groups.tiling.tile_rows()) / threads).clamp(1, MAX_TILES)
    }

    /// Elements of [`Recurrence::states`]: the last chunk may have fewer texts than room.
    pub fn states(groups: &Groups, texts: usize) -> usize {
        2 * 2 * (texts + MAX_ROWS * MAX_TILES) * groups.state()
    }

    /// One for each direction and so many tiles.
    pub fn chunks(&self) -> usize {
        2 * self.texts.len().div_ceil(self.tiles * self.groups.tiling.tile_rows())
    }

    /// Loads the states to start from.
    #[inline(always)]
    fn start<V: Vectors>(&self, v: V, texts: &[Text], direction: usize, states: &mut [f32]) {
        for (text, state) in texts.iter().zip(states.chunks_exact_mut(self.groups.state())) {
            for (group, part) in state.chunks_exact_mut(V::LANES).enumerate() {
                let start = match &self.initial {
                    Some(initial) => {
                        let initial = initial.matrix(2 * self.layer + direction);
                        initial.load(v, text.index, group * V::LANES)
                    }
                    None => v.splat(0.0),
                };
                v.store_slice(start, part);
            }
        }
    }

    /// Stores the last states of texts.
    #[inline(always)]
    fn finish<V: Vectors>(&self, v: V, texts: &[Text], direction: usize, states: &[f32]) {
        let Some(last) = &self.last else { return };
        let last = last.matrix(2 * self.layer + direction);
        for (text, state) in texts.iter().zip(states.chunks_exact(self.groups.state())) {
            for (group, part) in state.chunks_exact(V::LANES).enumerate() {
                let (column, units) = (group * V::LANES, self.groups.units(group));
                // SAFETY: no other chunk has this text in this direction.
                unsafe { last.store(v, v.load_slice(part), text.index, column, units) };
            }
        }
    }

    /// One step of a tile's texts, all of which have a token for it.
    #[inline(always)]
    fn tile<'t>(
        &'t self,
        texts: &[Text],
        direction: usize,
        step: usize,
        [before, behind]: [&'t mut [f32]; 2],
    ) -> StateTile<'t> {
        let groups = &self.groups;
        let (panels, row) = (groups.row() * groups.hidden, groups.row());
        let mut tile = StateTile {
            groups,
            panels: &self.panels[direction * panels..][..panels],
            new_bias: &self.new_bias[direction * groups.state()..][..groups.state()],
            before: before.as_ptr(),
            behind: behind.as_mut_ptr(),
            gates: [std::ptr::null(); MAX_ROWS],
            output: [None; MAX_ROWS],
            first_column: direction * groups.hidden,
        };
        for (index, text) in texts.iter().enumerate() {
            let token = if direction == 0 { step } else { text.length - 1 - step };
            let at = (direction * self.tokens + text.first + token) * row;
            tile.gates[index] = self.gates[at..][..row].as_ptr();
            tile.output[index] = Some(match self.output {
                Output::Texts(output) => (output.matrix(text.index), token),
                Output::Tokens(output) => (output, text.first + token),
            });
        }
        tile
    }
}

impl ChunkWork for Recurrence<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, index: usize) {
        let groups = &self.groups;
        let (direction, rows) = (index % 2, self.tiles * groups.tiling.tile_rows());
        let texts = &self.texts[chunk(self.texts.len(), rows, index / 2)];
        let (state, size) = (groups.state(), rows * groups.state());
        // SAFETY: each chunk has its own.
        let states = unsafe { self.states.slice(2 * index * size..2 * (index + 1) * size) };
        let (mut before, mut behind) = states.split_at_mut(size);
        self.start(v, texts, direction, before);
        for step in 0..texts.first().map_or(0, |text| text.length) {
            let active = running(texts, step);
            for group in (0..groups.count()).step_by(BLOCK_GROUPS) {
                let block = group..groups.count().min(group + BLOCK_GROUPS);
                for first in (0..active).step_by(groups.tiling.tile_rows()) {
                    let texts = &texts[first..active.min(first + groups.tiling.tile_rows())];
                    let part = first * state..(first + texts.len()) * state;
                    let tile = self.tile(
                        texts,
                        direction,
                        step,
                        [&mut before[part.clone()], &mut behind[part]],
                    );
                    // SAFETY: both states hold these rows, and `tile` has found gates and outputs for each.
                    unsafe { run_groups(v, &tile, texts.len(), block.clone()) };
                }
            }
            std::mem::swap(&mut before, &mut behind);
            let left = running(texts, step + 1);
            self.finish(v, &texts[left..active], direction, &before[left * state..]);
        }
    }
}

struct StateTile<'a> {
    groups: &'a Groups,
    panels: &'a [f32],
    new_bias: &'a [f32],
    before: *const f32,
    behind: *mut f32,
    /// The input's share for each row.
    gates: [*const f32; MAX_ROWS],
    /// Where each row's state goes.
    output: [Option<(FloatRowsMut<'a>, usize)>; MAX_ROWS],
    first_column: usize,
}

impl Tile for StateTile<'_> {
    #[inline(always)]
    unsafe fn run<V: Vectors, const ROWS: usize, const GROUPS: usize>(&self, v: V, group: usize) {
        let groups = self.groups;
        let panel_stride = 3 * V::LANES * groups.hidden;
        let mut sums: Sums<V, ROWS, GROUPS> = [[[v.splat(0.0); 3]; GROUPS]; ROWS];
        let operands = Operands {
            rows: self.before,
            row_stride: groups.state(),
            panels: self.panels[group * panel_stride..].as_ptr(),
            panel_stride,
            columns: groups.hidden,
        };
        // SAFETY: the caller's promise: these rows and groups are there, in states, gates and panels.
        unsafe {
            accumulate::<V, ROWS, GROUPS>(v, &operands, &mut sums);
            for (row, sums) in sums.into_iter().enumerate() {
                for (index, [reset, update, new]) in sums.into_iter().enumerate() {
                    let group = group + index;
                    let gate = |gate: usize| {
                        v.load_f32(self.gates[row].add((3 * group + gate) * V::LANES))
                    };
                    let at = row * groups.state() + group * V::LANES;
                    let before = v.load_f32(self.before.add(at));
                    let gates = [v.add(gate(0), reset), v.add(gate(1), update)];
                    let [reset, update] = sigmoids(v, gates);
                    let new = v.add(new, v.load_slice(&self.new_bias[group * V::LANES..]));
                    let new = tanh(v, v.mul_add(reset, new, gate(2)));
                    // (1 - z) n + z h
                    let state = v.mul_add(update, v.sub(before, new), new);
                    v.store_f32(state, self.behind.add(at));
                    if let Some((output, token)) = self.output[row] {
                        let column = self.first_column + group * V::LANES;
                        output.store(v, state, token, column, groups.units(group));
                    }
                }
            }
        }
    }
}
