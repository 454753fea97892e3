//! The dispatches of a selection through wgpu. Scores that exceed a binding are taken in parts.

use super::scratch::{STATE_WORDS, Scratch, digits};
use crate::backend::wgpu::{Bound, Operand, PlanBuilder, Wgpu, WgpuWorkspace, registry};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::HasLayout as _;

pub(crate) use registry::select_count::Parameters;

/// Invocations of a workgroup, fewer than which no WebGPU device allows.
pub(crate) const THREADS: u32 = 128;
/// Elements of a tile.
const TILE: usize = 2_048;
/// Workgroups that count digits.
const MAX_HISTOGRAM_WORKGROUPS: usize = 1_024;

/// Elements that one binding holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub first: usize,
    pub count: usize,
}

/// A tensor of scores.
#[derive(Clone, Copy)]
pub(crate) struct Set<'a> {
    pub scores: Operand<'a>,
    pub k: usize,
    /// Its place among the tensors.
    pub place: usize,
}

/// What is selected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The most indices that there can be.
    pub capacity: usize,
    /// Whether there are lists in the workspace.
    pub lists: bool,
    /// Whether their number is written too.
    pub count: bool,
}

/// What is selected from.
pub(crate) struct Selection<'a> {
    pub dtype: DType,
    pub elements: usize,
    pub capacity: usize,
    pub count: bool,
    scratch: Scratch,
    pub workspace: Bound<'a>,
    contiguous: bool,
    columns: usize,
    parts: Vec<Part>,
}

/// One dispatch: a kernel's generated types, filled from what all of them have in common.
macro_rules! dispatch {
    ($selection:expr, $plan:expr, $kernel:ident, $parameters:expr, $bits:expr, $workgroups:expr,
     { $($binding:ident: $bound:expr),* $(,)? }) => {{
        use $crate::backend::wgpu::registry::$kernel as kernel;
        let constants = kernel::Constants {
            threads: $crate::ops::prune_gather::selection::wgpu::THREADS,
            input: $crate::backend::wgpu::dtype_code($selection.dtype),
            digit_bits: $bits,
            count: $selection.count,
        };
        let parameters: kernel::Parameters = bytemuck::cast($parameters);
        let bindings = kernel::Bindings { $($binding: $bound),* };
        let workgroups: usize = $workgroups;
        $plan.dispatch(&kernel::ONLY, constants.values(), &parameters, bindings.into_array(), workgroups as u64)
    }};
}
pub(crate) use dispatch;

impl<'a> Selection<'a> {
    /// For tensors of one shape and type, at least one element.
    pub fn new(
        wgpu: &Wgpu,
        op: &'static str,
        sets: &[Set<'a>],
        wanted: Wanted,
        workspace: WgpuWorkspace<'a>,
    ) -> Result<Selection<'a>, Error> {
        let layout = sets[0].scores.layout();
        let elements = layout.elements();
        let contiguous = sets.iter().all(|set| set.scores.layout().is_contiguous());
        let entries = if wanted.lists { wanted.capacity } else { 0 };
        let scratch = Scratch::new(layout.dtype(), sets.len(), elements.div_ceil(TILE), entries);
        let words = workspace.tensor(op, 0, &[scratch.words], wgpu.capabilities())?;
        let by_binding =
            sets.iter().map(|set| set.scores.elements_per_binding() / TILE * TILE).min();
        // Rows with gaps are bound whole, or refused.
        let most = by_binding.filter(|_| contiguous).unwrap_or(elements).max(1);
        let parts = (0..elements)
            .step_by(most)
            .map(|first| Part { first, count: most.min(elements - first) })
            .collect();
        Ok(Selection {
            dtype: layout.dtype(),
            elements,
            capacity: wanted.capacity,
            count: wanted.count,
            scratch,
            workspace: words.whole()?,
            contiguous,
            columns: layout.columns(),
            parts,
        })
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The part of a tensor, bound.
    pub fn bind(&self, set: &Set<'a>, part: Part) -> Result<Bound<'a>, Error> {
        if self.contiguous {
            set.scores.elements(part.first, part.count)
        } else {
            set.scores.whole()
        }
    }

    pub fn tiles(part: Part) -> usize {
        part.count.div_ceil(TILE)
    }

    fn word(&self, offset: usize) -> u32 {
        self.workspace.start + offset as u32
    }

    pub fn state(&self, set: &Set<'_>) -> u32 {
        self.word(self.scratch.state + set.place * STATE_WORDS)
    }

    /// What the kernels for one tensor are given, besides where the scores start.
    pub fn parameters(&self, set: &Set<'a>, part: Part) -> Parameters {
        let all_tiles = self.elements.div_ceil(TILE);
        let by_tile = set.place * (all_tiles + 1);
        Parameters {
            elements: part.count as u32,
            first_element: part.first as u32,
            tiles: Self::tiles(part) as u32,
            first_tile: (part.first / TILE) as u32,
            all_tiles: all_tiles as u32,
            columns: if self.contiguous { 0 } else { self.columns as u32 },
            scores_stride: set.scores.stride(),
            state: self.state(set),
            // One after the other, so one is enough for all.
            histogram: self.word(self.scratch.histogram),
            selected: self.word(self.scratch.selected + by_tile),
            equal: self.word(self.scratch.equal + by_tile),
            members: self.word(self.scratch.members),
            lists: self.word(self.scratch.lists),
            k: set.k as u32,
            capacity: self.capacity as u32,
            ..Parameters::default()
        }
    }

    fn all(&self) -> Part {
        Part { first: 0, count: self.elements }
    }

    /// Parameters of kernels that look at no scores.
    pub fn parameters_of_all(&self, set: &Set<'a>) -> Parameters {
        self.parameters(set, self.all())
    }

    /// Finds what is selected in a tensor.
    pub fn threshold(&self, plan: &mut PlanBuilder<'a>, set: &Set<'a>) -> Result<(), Error> {
        let highest = digits(self.dtype)[0].bits;
        let scratch = self.workspace;
        let all = self.parameters_of_all(set);
        let clear = (1usize << highest).div_ceil(THREADS as usize);
        dispatch!(self, plan, select_clear, all, highest, clear, { scratch: scratch })?;
        for (place, digit) in digits(self.dtype).iter().enumerate() {
            let with_digit = |parameters: Parameters| Parameters {
                digit_shift: digit.shift,
                first_digit: u32::from(place == 0),
                ..parameters
            };
            for &part in &self.parts {
                let scores = self.bind(set, part)?;
                let workgroups = Self::tiles(part).min(MAX_HISTOGRAM_WORKGROUPS);
                let parameters = Parameters {
                    scores_start: scores.start,
                    workgroups: workgroups as u32,
                    ..with_digit(self.parameters(set, part))
                };
                dispatch!(self, plan, select_histogram, parameters, digit.bits, workgroups,
                    { scores: scores, scratch: scratch })?;
            }
            let parameters = with_digit(all);
            dispatch!(self, plan, select_digit, parameters, digit.bits, 1, { scratch: scratch })?;
        }
        for &part in &self.parts {
            let scores = self.bind(set, part)?;
            let parameters =
                Parameters { scores_start: scores.start, ..self.parameters(set, part) };
            dispatch!(self, plan, select_count, parameters, highest, Self::tiles(part),
                { scores: scores, scratch: scratch })?;
        }
        dispatch!(self, plan, select_offsets, all, highest, 1, { scratch: scratch })?;
        for &part in &self.parts {
            let scores = self.bind(set, part)?;
            let parameters =
                Parameters { scores_start: scores.start, ..self.parameters(set, part) };
            dispatch!(self, plan, select_cut, parameters, highest, Self::tiles(part),
                { scores: scores, scratch: scratch })?;
        }
        Ok(())
    }

    /// Any of a key's digits, for kernels that do not look at digits.
    pub fn bits(&self) -> u32 {
        digits(self.dtype)[0].bits
    }
}
