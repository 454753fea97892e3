//! Heads on the CPU: the weight is streamed once past all rows, and of each tile only its state is kept.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

mod tile;

use std::ops::Range;

use tile::{Row, Tile};

use super::{ExitHeadArgs, ExitHeadStatesArgs};
use crate::backend::cpu::float_rows::{FloatRows, FloatRowsMut};
use crate::backend::cpu::instructions::{Leaf, Vectors};
use crate::backend::cpu::packed_weight::WeightForm;
use crate::backend::cpu::parallel::{Shared, chunk, for_each_chunk};
use crate::backend::cpu::product::Matrix;
use crate::backend::cpu::product::activations::{
    Activations, ActivationsMut, Arrangement, batches_sums_stride,
};
use crate::backend::cpu::product::stream::SumRows;
use crate::backend::cpu::products::{self, ProductJob, Products};
use crate::backend::cpu::rms_norm::{Scale, Squares};
use crate::backend::cpu::{Cpu, Workspace};
use crate::dtype::{Element, Float, bf16};
use crate::error::Error;
use crate::layout::HasLayout;
use crate::ops::early_exit::config::HeadConfig;
use crate::ops::early_exit::verification::host::integer_values;
use crate::ops::early_exit::{VOCABULARY_TILE, merge_exit_states, state};
use crate::tensor::{TensorMut, TensorRef};

/// Pieces for each thread, so that one that is held up does not hold up all.
const CHUNKS_PER_THREAD: usize = 8;
/// Streams are cut no shorter than this, since the start of each is a miss.
const MIN_STREAM_BYTES: usize = 64 << 10;
/// Sums that stay in the second-level cache beside the rows: 128 KiB.
const MAX_SUMS: usize = 1 << 15;
/// Rows of activations that meet a row of weights at once.
const BATCH_ROWS: usize = 8;
/// Activations that stay in the first-level cache while weights pass by.
const BLOCK_BYTES: usize = 36 << 10;
const MAX_BLOCK_ROWS: usize = 64;
/// Weights that stay in the second-level cache while blocks of activations pass by.
const CACHED_BYTES: usize = 512 << 10;

/// `args` are valid.
pub(super) fn head(
    cpu: &Cpu,
    op: &HeadConfig,
    form: WeightForm,
    mut args: ExitHeadArgs<TensorRef<'_>, TensorMut<'_>>,
    workspace: &mut Workspace,
) -> Result<(), Error> {
    let rows =
        op.output_rows(&args.hidden.layout(), args.rows.map(|rows| rows.layout()).as_ref())?;
    if rows == 0 {
        return Ok(());
    }
    let [values, tokens] = state::layouts(op.tiles(), rows, op.top_k)?;
    let strategy = Strategy::new(cpu, op, form, rows);
    let prepared = strategy.workspace_bytes(op, rows);
    let states = Workspace::bytes_for::<f32>(values.elements())
        + Workspace::bytes_for::<i32>(tokens.elements());
    let mut arena = workspace.reserve(prepared + states);
    let state_values = arena.take::<f32>(values.elements());
    let state_tokens = arena.take::<i32>(tokens.elements());
    let logits = args.logits.take();
    let states = args.states(
        TensorMut::new(&mut *state_values, values.shape())?,
        TensorMut::new(&mut *state_tokens, tokens.shape())?,
        logits,
    );
    run(cpu, op, strategy, states, arena.take(prepared));
    let states = (
        TensorRef::new(&*state_values, values.shape())?,
        TensorRef::new(&*state_tokens, tokens.shape())?,
    );
    merge_exit_states::cpu::merge(op.top_k, args.into_merge(states.0, states.1));
    Ok(())
}

/// `args` are valid.
pub(super) fn states(
    cpu: &Cpu,
    op: &HeadConfig,
    form: WeightForm,
    args: ExitHeadStatesArgs<TensorRef<'_>, TensorMut<'_>>,
    workspace: &mut Workspace,
) {
    let rows = args.state_values.layout().shape()[1];
    if rows > 0 {
        let strategy = Strategy::new(cpu, op, form, rows);
        let bytes = strategy.workspace_bytes(op, rows);
        run(cpu, op, strategy, args, workspace.reserve(bytes).take(bytes));
    }
}

/// How activations lie, and which products read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// Row by row, past rows of weights.
    Rows,
    /// For the registers that hold tiles.
    Tiles,
    /// In batches, past packed weights.
    Panels,
}

/// How the work is spread; a function of shape, threads and instructions. Results do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Strategy {
    kernel: Kernel,
    threads: usize,
    /// Rows of the weight that a thread takes at a time, whole tiles.
    chunk: usize,
    /// Rows of activations that meet them at once.
    block: usize,
}

impl Strategy {
    fn new(cpu: &Cpu, op: &HeadConfig, form: WeightForm, rows: usize) -> Strategy {
        let (activation, weight) = (op.activation_dtype, op.weight_dtype);
        let kernel = match form {
            WeightForm::Packed => Kernel::Panels,
            _ if products::has_tiles(cpu.instructions(), activation, weight) => Kernel::Tiles,
            _ => Kernel::Rows,
        };
        let threads = cpu.threads_for((op.vocabulary * op.hidden).saturating_mul(rows));
        let operand_bytes = op.hidden * op.activation_dtype.size();
        let fitting = BLOCK_BYTES / operand_bytes / BATCH_ROWS * BATCH_ROWS;
        let fitting = match kernel {
            Kernel::Rows => fitting,
            // Tiles come from the second-level cache, and batches meet blocks of a panel.
            Kernel::Tiles | Kernel::Panels => MAX_BLOCK_ROWS,
        };
        let block = rows.min(fitting.clamp(BATCH_ROWS, MAX_BLOCK_ROWS));
        let even = op.vocabulary.div_ceil(threads * CHUNKS_PER_THREAD);
        let row_bytes = op.hidden * op.weight_dtype.size();
        // The next block of rows finds the weights in the second-level cache.
        let most = if rows > block { CACHED_BYTES / row_bytes } else { usize::MAX };
        let chunk = even.max(MIN_STREAM_BYTES.div_ceil(row_bytes)).min(MAX_SUMS / block).min(most);
        // An odd number of tiles: rows of sums that are a power of two apart would fall on few sets of the cache.
        let tiles = chunk.div_ceil(VOCABULARY_TILE).max(1);
        let chunk = (tiles - usize::from(tiles.is_multiple_of(2))) * VOCABULARY_TILE;
        Strategy { kernel, threads, chunk, block }
    }

    /// Scratch memory besides the states: operands at their widest, and sums.
    fn workspace_bytes(&self, op: &HeadConfig, rows: usize) -> usize {
        let operands = match self.kernel {
            Kernel::Tiles => {
                Workspace::bytes_for::<bf16>(Arrangement::tile_operands(rows, op.hidden))
            }
            // Batches need less.
            Kernel::Rows | Kernel::Panels => {
                Workspace::bytes_for::<f32>(Arrangement::rows(rows, op.hidden).operands())
            }
        };
        operands + Workspace::bytes_for::<f32>(self.threads * self.sums())
    }

    /// Sums of a thread.
    fn sums(&self) -> usize {
        let stride = match self.kernel {
            Kernel::Rows | Kernel::Tiles => self.chunk,
            Kernel::Panels => batches_sums_stride(self.chunk),
        };
        self.block * stride
    }

    /// How the activations of a block lie.
    fn arrange<V: Vectors, P: Products<V>>(
        &self,
        p: P,
        rows: usize,
        columns: usize,
    ) -> Arrangement {
        match self.kernel {
            Kernel::Panels => Arrangement::batches::<V>(rows, columns),
            Kernel::Rows | Kernel::Tiles => Arrangement::tiles::<V, P>(p, rows, columns),
        }
    }
}

fn run(
    cpu: &Cpu,
    op: &HeadConfig,
    strategy: Strategy,
    args: ExitHeadStatesArgs<TensorRef<'_>, TensorMut<'_>>,
    scratch: &mut [u8],
) {
    let rows = args.state_values.layout().shape()[1];
    let job = HeadJob { op, rows, args, scratch, strategy };
    let (instructions, weight) = (cpu.instructions(), op.weight_dtype);
    let dispatch = || match strategy.kernel {
        Kernel::Panels => products::dispatch_widened(instructions, weight, job),
        _ => products::dispatch(instructions, op.activation_dtype, weight, job),
    };
    if strategy.threads > 1 { cpu.enter(dispatch) } else { dispatch() }
}

struct HeadJob<'a> {
    op: &'a HeadConfig,
    rows: usize,
    args: ExitHeadStatesArgs<TensorRef<'a>, TensorMut<'a>>,
    scratch: &'a mut [u8],
    strategy: Strategy,
}

impl ProductJob for HeadJob<'_> {
    type Output = ();

    fn run<V: Vectors, P: Products<V>>(self, v: V, p: P) {
        let HeadJob { op, rows, mut args, scratch, strategy } = self;
        let arrange = |rows| strategy.arrange::<V, P>(p, rows, op.hidden);
        // Blocks of rows lie one behind the other, whatever the arrangement.
        let length = arrange(rows).operands();
        let (operands, sums) = scratch.split_at_mut(Workspace::bytes_for::<P::Operand>(length));
        let operands: &mut [P::Operand] = &mut bytemuck::cast_slice_mut(operands)[..length];
        let head = HeadRows {
            op,
            x: FloatRows::new(args.hidden),
            x_rows: args.hidden.layout().shape()[0],
            norm_weight: args.norm_weight.map(FloatRows::new),
            rows: args.rows.map(integer_values),
            positions: args.positions.map(integer_values),
            seeds: args.seeds.map(Seeds::new),
            gather_tokens: args.gather_tokens.map(integer_values),
        };
        for first in (0..rows).step_by(strategy.block) {
            let count = strategy.block.min(rows - first);
            let operands = &mut operands[arrange(first).operands()..];
            let operands = ActivationsMut::new(operands, arrange(count));
            for_each_chunk(strategy.threads, count, &|_, place| {
                p.enter(v, Prepare { v, head: &head, row: first + place, place, operands });
            });
        }
        let product = Product {
            tokens: (v, p),
            strategy,
            head: &head,
            weight: Matrix::packable(args.head_weight, [op.vocabulary, op.hidden]),
            operands,
            rows,
        };
        let tile = Tile {
            op,
            bias: args.head_bias.map(FloatRows::new),
            logits: args.logits.as_mut().map(FloatRowsMut::new),
            values: StatesMut::new(&mut args.state_values),
            tokens: StatesMut::new(&mut args.state_tokens),
        };
        let slot_sums = strategy.sums();
        let sums = Shared::new(bytemuck::cast_slice_mut(sums));
        let chunks = op.vocabulary.div_ceil(strategy.chunk);
        for_each_chunk(strategy.threads, chunks, &|slot, index| {
            // SAFETY: a slot's chunks run one after another, and nobody else uses its sums.
            let sums = unsafe { sums.slice(slot * slot_sums..(slot + 1) * slot_sums) };
            let ids = chunk(op.vocabulary, strategy.chunk, index);
            product.summarise(&tile, ids, sums);
        });
    }
}

/// The weight and what it is multiplied with.
struct Product<'a, V: Vectors, P: Products<V>> {
    tokens: (V, P),
    strategy: Strategy,
    head: &'a HeadRows<'a>,
    weight: Matrix<'a, P::Weight>,
    operands: &'a [P::Operand],
    rows: usize,
}

impl<V: Vectors, P: Products<V>> Product<'_, V, P> {
    /// States of the tiles that `ids`, rows of the weight, are made of, a block of rows of activations at a time.
    fn summarise(&self, tile: &Tile<'_>, ids: Range<usize>, sums: &mut [f32]) {
        let (v, p) = self.tokens;
        let arrange = |rows| self.strategy.arrange::<V, P>(p, rows, self.head.op.hidden);
        for first in (0..self.rows).step_by(self.strategy.block) {
            let count = self.strategy.block.min(self.rows - first);
            let operands = &self.operands[arrange(first).operands()..];
            let stride = arrange(count).sums_stride(ids.len());
            let leaf = SumRows {
                tokens: self.tokens,
                matrices: &[self.weight],
                rows: ids.clone(),
                activations: Activations::new(operands, arrange(count)),
                sums: &mut *sums,
            };
            p.enter(v, leaf);
            for at in 0..count {
                let sums = &sums[at * stride..][..ids.len()];
                let row = self.head.row(first + at);
                p.enter(v, tile::Summarise { v, tile, row, ids: ids.clone(), sums });
            }
        }
    }
}

/// Seeds by row.
#[derive(Clone, Copy)]
struct Seeds<'a> {
    words: &'a [u32],
    stride: usize,
}

impl<'a> Seeds<'a> {
    fn new(tensor: TensorRef<'a>) -> Seeds<'a> {
        let words = tensor.as_slice().unwrap_or_else(|| unreachable!("validated to be of u32"));
        Seeds { words, stride: tensor.layout().row_stride() }
    }

    fn of(&self, row: usize) -> u64 {
        let [low, high] = [0, 1].map(|word| u64::from(self.words[row * self.stride + word]));
        low | high << 32
    }
}

/// The rows that are multiplied with the weight.
struct HeadRows<'a> {
    op: &'a HeadConfig,
    x: FloatRows<'a>,
    x_rows: usize,
    norm_weight: Option<FloatRows<'a>>,
    rows: Option<&'a [i32]>,
    positions: Option<&'a [i32]>,
    seeds: Option<Seeds<'a>>,
    gather_tokens: Option<&'a [i32]>,
}

impl HeadRows<'_> {
    fn row(&self, row: usize) -> Row {
        Row {
            index: row,
            is_selected: self.source(row).is_some(),
            position: self.positions.map(|positions| positions[row]),
            seed: self.seeds.map_or(self.op.seed, |seeds| seeds.of(row)),
            gather: self.gather_tokens.map(|tokens| tokens[row]),
        }
    }

    /// The row of `hidden` that is meant, if there is one.
    fn source(&self, row: usize) -> Option<usize> {
        let source = match self.rows {
            None => row,
            Some(rows) => usize::try_from(rows[row]).ok()?,
        };
        (source < self.x_rows).then_some(source)
    }
}

/// Selects, normalises and converts a row.
struct Prepare<'a, V, T> {
    v: V,
    head: &'a HeadRows<'a>,
    row: usize,
    /// Among the operands.
    place: usize,
    operands: ActivationsMut<'a, T>,
}

impl<V: Vectors, T: Float> Leaf for Prepare<'_, V, T> {
    #[inline(always)]
    fn run(self) {
        let Prepare { v, head, row, place, operands } = self;
        let columns = head.op.hidden;
        let Some(source) = head.source(row) else {
            for column in (0..columns).step_by(V::LANES) {
                // SAFETY: each row is prepared once.
                unsafe { operands.store(v, v.splat(0.0), place, column) };
            }
            return;
        };
        let norm = head.op.norm.zip(head.norm_weight);
        let scale = match norm {
            None => Scale::ONE,
            Some((eps, _)) => {
                let mut squares = Squares::new();
                squares.add_row(v, &head.x, source, columns);
                Scale::new(squares.sum() / columns as f64, eps.0)
            }
        };
        for column in (0..columns).step_by(V::LANES) {
            let mut n = head.x.load(v, source, column);
            if let Some((_, weight)) = norm {
                n = v.mul(scale.apply(v, n), weight.load(v, 0, column));
                n = v.round_to(head.op.activation_dtype, n);
            }
            // SAFETY: each row is prepared once.
            unsafe { operands.store(v, n, place, column) };
        }
    }
}

/// States that several threads write, each its own.
#[derive(Clone, Copy)]
struct StatesMut<'a, T> {
    elements: Shared<'a, T>,
    strides: [usize; 2],
    columns: usize,
}

impl<'a, T: Element> StatesMut<'a, T> {
    fn new(tensor: &'a mut TensorMut<'_>) -> StatesMut<'a, T> {
        let layout = tensor.layout();
        let strides = [layout.strides()[0], layout.strides()[1]];
        let elements =
            tensor.as_mut_slice().unwrap_or_else(|| unreachable!("validated to be of it"));
        StatesMut { elements: Shared::new(elements), strides, columns: layout.columns() }
    }

    /// # Safety
    /// Nobody else uses this state meanwhile.
    #[allow(clippy::mut_from_ref, reason = "exclusive by the caller's promise")]
    unsafe fn row(&self, tile: usize, row: usize) -> &'a mut [T] {
        let start = tile * self.strides[0] + row * self.strides[1];
        // SAFETY: the caller's promise.
        unsafe { self.elements.slice(start..start + self.columns) }
    }
}
