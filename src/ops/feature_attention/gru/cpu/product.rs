//! The input's share of every gate, for all tokens at once.
#![allow(unsafe_code, reason = "tiles read and write through pointers")]

use super::panels::Groups;
use super::tile::{Operands, Sums, Tile, accumulate, run_groups};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::{Shared, chunk};
use crate::backend::cpu::pieces::ChunkWork;

/// Tokens of a chunk: of 300 features, 75 KB, which stay in the second-level cache beside a panel.
const CHUNK_TOKENS: usize = 64;
/// Columns that are multiplied before the next tile's turn: the rows of a tile then stay in the first-level cache.
const BLOCK_COLUMNS: usize = 512;
/// Groups likewise.
const BLOCK_GROUPS: usize = 8;

/// `gates[direction][token] = bias[direction] + weight[direction] input[token]`.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub groups: Groups,
    /// `[tokens, columns]`.
    pub input: &'a [f32],
    pub columns: usize,
    pub tokens: usize,
    /// Both directions' panels.
    pub panels: &'a [f32],
    /// Both directions' biases.
    pub bias: &'a [f32],
    /// Both directions' gates, `[tokens, row]`.
    pub gates: Shared<'a, f32>,
}

impl Product<'_> {
    pub fn chunks(&self) -> usize {
        self.tokens.div_ceil(CHUNK_TOKENS)
    }
}

impl ChunkWork for Product<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, index: usize) {
        let Product { groups, columns, .. } = *self;
        let tokens = chunk(self.tokens, CHUNK_TOKENS, index);
        for direction in 0..2 {
            let row = groups.row();
            let start = (direction * self.tokens + tokens.start) * row;
            // SAFETY: no other chunk has these tokens.
            let gates = unsafe { self.gates.slice(start..start + tokens.len() * row) };
            let size = groups.panels(columns);
            let panels = &self.panels[direction * size..][..size];
            let bias = &self.bias[direction * row..][..row];
            for first in (0..columns).step_by(BLOCK_COLUMNS) {
                let count = BLOCK_COLUMNS.min(columns - first);
                for group in (0..groups.count()).step_by(BLOCK_GROUPS) {
                    let block = group..groups.count().min(group + BLOCK_GROUPS);
                    for token in (0..tokens.len()).step_by(groups.tile_rows()) {
                        let rows = groups.tile_rows().min(tokens.len() - token);
                        let input = &self.input[(tokens.start + token) * columns + first..];
                        assert!(input.len() >= (rows - 1) * columns + count);
                        let tile = ProductTile {
                            input: input.as_ptr(),
                            columns,
                            first,
                            count,
                            panels: panels.as_ptr(),
                            bias,
                            gates: gates[token * row..][..rows * row].as_mut_ptr(),
                            row,
                        };
                        // SAFETY: `rows` rows of input by the assertion and of gates by the slice; the panels hold
                        // every group, `first + count` columns at least.
                        unsafe { run_groups(v, &tile, rows, block.clone()) };
                    }
                }
            }
        }
    }
}

struct ProductTile<'a> {
    input: *const f32,
    columns: usize,
    first: usize,
    count: usize,
    panels: *const f32,
    bias: &'a [f32],
    gates: *mut f32,
    row: usize,
}

impl Tile for ProductTile<'_> {
    #[inline(always)]
    unsafe fn run<V: Vectors, const ROWS: usize, const GROUPS: usize>(&self, v: V, group: usize) {
        let width = 3 * V::LANES;
        let mut sums: Sums<V, ROWS, GROUPS> = [[[v.splat(0.0); 3]; GROUPS]; ROWS];
        // SAFETY: the caller's promise: these rows and groups are there.
        unsafe {
            for (row, sums) in sums.iter_mut().enumerate() {
                let gates = self.gates.add(row * self.row + group * width).cast_const();
                let start =
                    if self.first == 0 { self.bias[group * width..].as_ptr() } else { gates };
                for (index, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                    *sum = v.load_f32(start.add(index * V::LANES));
                }
            }
            let panel_stride = self.columns * width;
            let operands = Operands {
                rows: self.input,
                row_stride: self.columns,
                panels: self.panels.add(group * panel_stride + self.first * width),
                panel_stride,
                columns: self.count,
            };
            accumulate::<V, ROWS, GROUPS>(v, &operands, &mut sums);
            for (row, sums) in sums.iter().enumerate() {
                let gates = self.gates.add(row * self.row + group * width);
                for (index, sum) in sums.as_flattened().iter().enumerate() {
                    v.store_f32(*sum, gates.add(index * V::LANES));
                }
            }
        }
    }
}
