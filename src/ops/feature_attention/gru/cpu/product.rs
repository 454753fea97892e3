//! Products of all tokens at once, for one weight or for both directions of a GRU.
#![allow(unsafe_code, reason = "tiles read and write through pointers")]

use super::panels::Tiling;
use super::tile::{Operands, Sums, Tile, accumulate, run_groups};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::{Shared, chunk};
use crate::backend::cpu::pieces::ChunkWork;

/// Tokens of a chunk: of 300 features, 75 KB, which stay in the second-level cache beside a panel.
const CHUNK_TOKENS: usize = 64;
/// Columns that are multiplied before the next tile's turn: the rows of a tile then stay in the first-level cache.
const BLOCK_COLUMNS: usize = 512;
/// Panels likewise.
const BLOCK_PANELS: usize = 8;

/// `output[matrix][token] = bias[matrix] + weight[matrix] input[token]`.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub tiling: Tiling,
    pub matrices: usize,
    /// `[tokens, columns]`, and elements between tokens.
    pub input: &'a [f32],
    pub input_stride: usize,
    pub columns: usize,
    pub tokens: usize,
    /// Panels of every matrix, and how many each has.
    pub panels: &'a [f32],
    pub count: usize,
    /// A row for every matrix.
    pub bias: &'a [f32],
    /// For every matrix `[tokens, row]`.
    pub output: Shared<'a, f32>,
}

impl Product<'_> {
    /// Elements of a row of output: whole panels.
    fn row(&self) -> usize {
        3 * self.count * self.tiling.lanes
    }

    pub fn chunks(&self) -> usize {
        self.tokens.div_ceil(CHUNK_TOKENS)
    }
}

impl ChunkWork for Product<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, _slot: usize, index: usize) {
        let Product { columns, input_stride, count, .. } = *self;
        let (tokens, row) = (chunk(self.tokens, CHUNK_TOKENS, index), self.row());
        for matrix in 0..self.matrices {
            let start = (matrix * self.tokens + tokens.start) * row;
            // SAFETY: no other chunk has these tokens.
            let output = unsafe { self.output.slice(start..start + tokens.len() * row) };
            let panels = &self.panels[matrix * row * columns..][..row * columns];
            let bias = &self.bias[matrix * row..][..row];
            for first in (0..columns).step_by(BLOCK_COLUMNS) {
                let depth = BLOCK_COLUMNS.min(columns - first);
                for panel in (0..count).step_by(BLOCK_PANELS) {
                    let block = panel..count.min(panel + BLOCK_PANELS);
                    for token in (0..tokens.len()).step_by(self.tiling.tile_rows()) {
                        let rows = self.tiling.tile_rows().min(tokens.len() - token);
                        let input = &self.input[(tokens.start + token) * input_stride + first..];
                        assert!(input.len() >= (rows - 1) * input_stride + depth);
                        let tile = ProductTile {
                            input: input.as_ptr(),
                            input_stride,
                            columns,
                            first,
                            depth,
                            panels: panels.as_ptr(),
                            bias,
                            output: output[token * row..][..rows * row].as_mut_ptr(),
                            row,
                        };
                        // SAFETY: `rows` rows of input by the assertion and of output by the slice; the panels hold
                        // `count` of them, `first + depth` columns at least.
                        unsafe { run_groups(v, &tile, rows, block.clone()) };
                    }
                }
            }
        }
    }
}

struct ProductTile<'a> {
    input: *const f32,
    input_stride: usize,
    columns: usize,
    first: usize,
    depth: usize,
    panels: *const f32,
    bias: &'a [f32],
    output: *mut f32,
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
                let output = self.output.add(row * self.row + group * width).cast_const();
                let start =
                    if self.first == 0 { self.bias[group * width..].as_ptr() } else { output };
                for (index, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                    *sum = v.load_f32(start.add(index * V::LANES));
                }
            }
            let panel_stride = self.columns * width;
            let operands = Operands {
                rows: self.input,
                row_stride: self.input_stride,
                panels: self.panels.add(group * panel_stride + self.first * width),
                panel_stride,
                columns: self.depth,
            };
            accumulate::<V, ROWS, GROUPS>(v, &operands, &mut sums);
            for (row, sums) in sums.iter().enumerate() {
                let output = self.output.add(row * self.row + group * width);
                for (index, sum) in sums.as_flattened().iter().enumerate() {
                    v.store_f32(*sum, output.add(index * V::LANES));
                }
            }
        }
    }
}
