//! `verify_sampled` on the CPU: rows side by side, then sequences.
//!
//! Weights are integers of [`MASS_BITS`](row::MASS_BITS) bits and their sums 64 bits wide, as on every device: what a row
//! keeps and which token a number draws do not depend on the order of additions.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

mod row;
mod walk;

use bytemuck::{Pod, Zeroable};

use self::row::{Filters, Profile, RowJob};
use self::walk::WalkJob;
use super::{SampledMode, VerifySampled, VerifySampledArgs};
use crate::backend::cpu::instructions::Vectors;
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::pieces::ChunkWork;
use crate::backend::cpu::{Cpu, Workspace};
use crate::layout::HasLayout as _;
use crate::ops::early_exit::verification::common;
use crate::ops::early_exit::verification::host::{Walk, verify_chains};
use crate::tensor::{TensorMut, TensorRef, with_float};

/// `args` are valid.
pub(super) fn verify(
    cpu: &Cpu,
    op: &VerifySampled,
    args: VerifySampledArgs<TensorRef<'_>, TensorMut<'_>>,
    workspace: &mut Workspace,
) {
    let rows = Rows::new(op, &args.inputs());
    let sequences = rows.offsets.len() - 1;
    let profiles = rows.count();
    let scratch = cpu.threads() * 2 * op.valid_vocab;
    let mut arena = workspace.reserve(
        Workspace::bytes_for::<Profile>(profiles)
            + Workspace::bytes_for::<Found>(sequences)
            + Workspace::bytes_for::<u32>(scratch),
    );
    let profiles = arena.take::<Profile>(profiles);
    let found = arena.take::<Found>(sequences);
    let scratch = Shared::new(arena.take::<u32>(scratch));
    let count = profiles.len();
    cpu.run_chunks(count, ProfileRows { rows: &rows, profiles: Shared::new(profiles), scratch });
    let work = WalkSequences { rows: &rows, profiles, found: Shared::new(found), scratch };
    cpu.run_chunks(sequences, work);
    // The operation's dimensions were checked when it was validated.
    if let Ok(batch) = op.batch(&args.draft.layout(), &args.offsets.layout()) {
        verify_chains(&batch, common!(args), |sequence| {
            let found = found[rows.owner(sequence.first_row).0];
            let correction = Some(found.correction).filter(|&token| token >= 0);
            Walk { accepted: found.accepted as usize, correction }
        });
    }
}

/// A walk's result; no correction is -1.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Found {
    accepted: i32,
    correction: i32,
}

/// The inputs, and which row is whose.
struct Rows<'a> {
    op: &'a VerifySampled,
    target: TensorRef<'a>,
    draft_distribution: Option<TensorRef<'a>>,
    draft: &'a [i32],
    offsets: &'a [u32],
    temperature: Option<&'a [f32]>,
    top_k: Option<&'a [i32]>,
    top_p: Option<&'a [f32]>,
    min_p: Option<&'a [f32]>,
    uniforms: Option<(&'a [f32], usize)>,
    positions: Option<&'a [i32]>,
    seeds: Option<(&'a [u32], usize)>,
}

impl<'a> Rows<'a> {
    fn new<Out>(op: &'a VerifySampled, args: &VerifySampledArgs<TensorRef<'a>, Out>) -> Rows<'a> {
        fn slice<'a, T: crate::dtype::Element>(tensor: TensorRef<'a>) -> &'a [T] {
            tensor.as_slice().unwrap_or_default()
        }
        fn matrix<'a, T: crate::dtype::Element>(tensor: TensorRef<'a>) -> (&'a [T], usize) {
            (slice(tensor), tensor.layout().row_stride())
        }
        Rows {
            op,
            target: args.target,
            draft_distribution: args.draft_distribution,
            draft: slice(args.draft),
            offsets: slice(args.offsets),
            temperature: args.temperature.map(slice),
            top_k: args.top_k.map(slice),
            top_p: args.top_p.map(slice),
            min_p: args.min_p.map(slice),
            uniforms: args.uniforms.map(matrix),
            positions: args.positions.map(slice),
            seeds: args.seeds.map(matrix),
        }
    }

    /// Of the target, then of the drafts' distributions.
    fn count(&self) -> usize {
        let of_drafts = if self.draft_distribution.is_some() { self.draft.len() } else { 0 };
        self.target_rows() + of_drafts
    }

    fn target_rows(&self) -> usize {
        self.draft.len() + self.offsets.len() - 1
    }

    /// The sequence of a row, and which of its rows it is.
    fn owner(&self, row: usize) -> (usize, usize) {
        let is_draft = row >= self.target_rows();
        let row = if is_draft { row - self.target_rows() } else { row };
        // A sequence has one row of target more than drafts.
        let first = |index: usize| self.offsets[index] as usize + if is_draft { 0 } else { index };
        let sequences = self.offsets.len() - 1;
        let (mut low, mut high) = (0, sequences);
        // The last sequence that starts at this row or before: empty ones of drafts are passed over.
        while high - low > 1 {
            let middle = low.midpoint(high);
            if first(middle) <= row { low = middle } else { high = middle }
        }
        (low, row - first(low))
    }

    /// The elements of a row that are not masked.
    fn elements<T: crate::dtype::Element>(&self, row: usize) -> &'a [T] {
        let (tensor, row) = match (self.draft_distribution, row.checked_sub(self.target_rows())) {
            (Some(tensor), Some(row)) => (tensor, row),
            _ => (self.target, row),
        };
        let all: &[T] = tensor.as_slice().unwrap_or_default();
        &all[row * tensor.layout().row_stride()..][..self.op.valid_vocab]
    }

    fn filters(&self, sequence: usize, row: usize) -> Filters {
        let of = |values: Option<&[f32]>, default| values.map_or(default, |all| all[sequence]);
        Filters {
            op: *self.op,
            is_draft: row >= self.target_rows(),
            temperature: of(self.temperature, 1.0),
            top_k: self.top_k.map_or(0, |all| all[sequence] as usize),
            top_p: of(self.top_p, 1.0),
            min_p: of(self.min_p, 0.0),
        }
    }

    fn seed(&self, sequence: usize) -> u64 {
        let Some((seeds, stride)) = self.seeds else { return self.op.seed };
        u64::from(seeds[sequence * stride]) | u64::from(seeds[sequence * stride + 1]) << 32
    }

    fn position(&self, sequence: usize, i: usize) -> i32 {
        self.positions.map_or(0, |all| all[sequence]).wrapping_add(i as i32)
    }
}

#[derive(Clone, Copy)]
struct ProfileRows<'a> {
    rows: &'a Rows<'a>,
    profiles: Shared<'a, Profile>,
    scratch: Shared<'a, u32>,
}

impl ChunkWork for ProfileRows<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, slot: usize, row: usize) {
        let rows = self.rows;
        let (sequence, i) = rows.owner(row);
        let ids = rows.op.valid_vocab;
        // SAFETY: a slot's scratch memory and a row's profile are this call's alone.
        let (scratch, profile) = unsafe {
            (
                self.scratch.slice(slot * 2 * ids..(slot + 1) * 2 * ids),
                self.profiles.slice(row..row + 1),
            )
        };
        let (masses, keys) = scratch.split_at_mut(ids);
        let drafted = rows.draft.get(rows.offsets[sequence] as usize + i).copied();
        let is_last = rows.offsets[sequence] as usize + i >= rows.offsets[sequence + 1] as usize;
        let noise = (rows.op.mode == SampledMode::Match)
            .then(|| (rows.seed(sequence), rows.position(sequence, i)));
        with_float!(rows.op.dtype, T => {
            let job = RowJob {
                values: rows.elements::<T>(row),
                filters: rows.filters(sequence, row),
                drafted: if is_last { None } else { drafted },
                noise,
            };
            profile[0] = job.profile(v, masses, keys);
        });
    }
}

#[derive(Clone, Copy)]
struct WalkSequences<'a> {
    rows: &'a Rows<'a>,
    profiles: &'a [Profile],
    found: Shared<'a, Found>,
    scratch: Shared<'a, u32>,
}

impl ChunkWork for WalkSequences<'_> {
    #[inline(always)]
    fn run<V: Vectors>(&self, v: V, slot: usize, sequence: usize) {
        let ids = self.rows.op.valid_vocab;
        // SAFETY: a slot's scratch memory and a sequence's result are this call's alone.
        let (scratch, found) = unsafe {
            (
                self.scratch.slice(slot * 2 * ids..(slot + 1) * 2 * ids),
                self.found.slice(sequence..sequence + 1),
            )
        };
        let first = self.rows.offsets[sequence] as usize;
        let mut job = WalkJob {
            rows: self.rows,
            profiles: self.profiles,
            sequence,
            first,
            drafts: &self.rows.draft[first..self.rows.offsets[sequence + 1] as usize],
            scratch,
        };
        found[0] = job.walk(v);
    }
}
