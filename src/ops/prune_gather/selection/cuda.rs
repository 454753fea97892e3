//! The launches of a selection on CUDA, by the contract in `kernels/prune_gather/select_top.cu`.
#![allow(unsafe_code, reason = "kernel launches")]

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::scratch::{Digit, Scratch, digits};
use crate::backend::cuda::binder::Pointer;
use crate::backend::cuda::launch::{CudaPlan, Kernel, Launch};
use crate::backend::cuda::parameters::{ReadPointer, WritePointer};
use crate::backend::cuda::{Cuda, CudaCapabilities};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::ops::prune_gather::selection_parameters::SelectionParams;

/// Elements of a tile.
const TILE: usize = 4_096;
const THREADS: u32 = 256;
/// Threads of the one block that walks over counts of tiles.
const OFFSETS_THREADS: u32 = 1_024;
/// Blocks that count digits of one tensor: enough to fill a device, few enough to add up.
const MAX_HISTOGRAM_BLOCKS: usize = 2_048;
/// Is given the number of bins in place of the capacity.
const CLEAR: &str = "select_clear";
const SELECT: &str = "prune_gather/select_top";
const COUPLED: &str = "prune_gather/coupled_neurons";

/// What is selected from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection<'a> {
    pub op: &'static str,
    pub dtype: DType,
    pub elements: usize,
    /// Tensors of scores.
    pub sets: usize,
    /// The most indices that there can be.
    pub capacity: usize,
    pub device: &'a CudaCapabilities,
}

/// A launch, with the digit that it looks at if that matters.
#[derive(Clone, Copy, Debug)]
struct Step {
    launch: Launch,
    digit: Digit,
    first_digit: bool,
}

/// The launches of one call, in order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    steps: [Option<Step>; CudaPlan::MAX_LAUNCHES],
    length: usize,
}

impl Steps {
    fn push(&mut self, launch: Launch, digit: Digit, first_digit: bool) {
        self.steps[self.length] = Some(Step { launch, digit, first_digit });
        self.length += 1;
    }

    fn iter(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    pub fn plan(&self) -> CudaPlan {
        let mut plan = CudaPlan::default();
        self.iter().for_each(|step| plan.push(step.launch));
        plan
    }
}

/// A tensor of scores, bound.
pub(crate) struct BoundScores<'p, 's> {
    pub pointer: &'p Pointer<'s>,
    pub layout: Layout,
    pub k: usize,
}

impl Selection<'_> {
    fn tiles(&self) -> usize {
        self.elements.div_ceil(TILE)
    }

    pub fn scratch(&self, lists: bool) -> Scratch {
        let entries = if lists { self.capacity } else { 0 };
        Scratch::new(self.dtype, self.sets, self.tiles(), entries)
    }

    /// The launches that find what is selected in each tensor; at least one element.
    pub fn thresholds(&self) -> Result<Steps, Error> {
        let (tiles, sets) = (self.tiles(), self.sets);
        let mut steps = Steps::default();
        let highest = digits(self.dtype)[0];
        let bins = sets << highest.bits;
        let clear = [bins.div_ceil(THREADS as usize), 1, 1];
        steps.push(self.words(SELECT, CLEAR, clear, THREADS)?, highest, true);
        for (place, &digit) in digits(self.dtype).iter().enumerate() {
            let grid = [tiles.min(MAX_HISTOGRAM_BLOCKS), sets, 1];
            let histogram = self.scores(SELECT, "select_histogram", grid)?;
            steps.push(histogram, digit, place == 0);
            let next = self.words(SELECT, "select_digit", [sets, 1, 1], THREADS)?;
            steps.push(next, digit, place == 0);
        }
        steps.push(self.scores(SELECT, "select_count", [tiles, sets, 1])?, highest, false);
        let offsets = self.words(SELECT, "select_offsets", [sets, 1, 1], OFFSETS_THREADS)?;
        steps.push(offsets, highest, false);
        steps.push(self.scores(SELECT, "select_cut", [tiles, sets, 1])?, highest, false);
        Ok(steps)
    }

    /// The launch that says that nothing is coupled.
    pub fn nothing(&self) -> Result<Steps, Error> {
        let mut steps = Steps::default();
        let launch = self.words(COUPLED, "coupled_offsets", [1, 1, 1], OFFSETS_THREADS)?;
        self.push(&mut steps, launch);
        Ok(steps)
    }

    /// The indices of what is selected in the only tensor.
    pub fn top(&self, steps: &mut Steps) -> Result<(), Error> {
        let launch = self.scores(SELECT, "select_top", [self.tiles(), 1, 1])?;
        self.push(steps, launch);
        Ok(())
    }

    /// The entries of the intersection.
    pub fn intersect(&self, steps: &mut Steps) -> Result<(), Error> {
        let tiles = [self.tiles(), 1, 1];
        self.push(steps, self.scores(COUPLED, "coupled_count", tiles)?);
        let offsets = self.words(COUPLED, "coupled_offsets", [1, 1, 1], OFFSETS_THREADS)?;
        self.push(steps, offsets);
        self.push(steps, self.scores(COUPLED, "coupled_neurons", tiles)?);
        Ok(())
    }

    /// The entries that the released code takes.
    pub fn positional(&self, steps: &mut Steps) -> Result<(), Error> {
        self.push(steps, self.scores(COUPLED, "positional_list", [self.tiles(), 2, 1])?);
        let blocks = self.capacity.div_ceil(THREADS as usize);
        self.push(steps, self.words(COUPLED, "positional_rank", [blocks, 2, 1], THREADS)?);
        self.push(steps, self.words(COUPLED, "positional_select", [1, 1, 1], THREADS)?);
        Ok(())
    }

    fn push(&self, steps: &mut Steps, launch: Launch) {
        steps.push(launch, digits(self.dtype)[0], false);
    }

    /// A kernel that reads scores.
    fn scores(
        &self,
        source: &'static str,
        name: &'static str,
        grid: [usize; 3],
    ) -> Result<Launch, Error> {
        let kernel = Kernel { source, name, activation: self.dtype, weight: self.dtype };
        Launch::new(self.op, kernel, grid, THREADS, 0, self.device)
    }

    /// A kernel that reads the workspace only.
    fn words(
        &self,
        source: &'static str,
        name: &'static str,
        grid: [usize; 3],
        threads: u32,
    ) -> Result<Launch, Error> {
        let kernel = Kernel { source, name, activation: DType::U32, weight: DType::U32 };
        Launch::new(self.op, kernel, grid, threads, 0, self.device)
    }

    /// What all launches are given, for tensors of one shape; `count` may be 0 for none.
    pub fn parameters(
        &self,
        scores: [Option<BoundScores<'_, '_>>; 3],
        workspace: u64,
        lists: bool,
        indices: u64,
        count: u64,
    ) -> SelectionParams {
        let scratch = self.scratch(lists);
        let word = |offset: usize| WritePointer(workspace + (offset * size_of::<u32>()) as u64);
        let contiguous = scores.iter().flatten().all(|scores| scores.layout.is_contiguous());
        let columns = match &scores[0] {
            Some(scores) if !contiguous => scores.layout.columns(),
            _ => 0,
        };
        let [first, second, third] = scores.map(|scores| match scores {
            Some(scores) => {
                let address = ReadPointer(scores.pointer.address());
                (address, scores.pointer.row_stride(), scores.k as i32)
            }
            None => (ReadPointer(0), 0, 0),
        });
        SelectionParams {
            scores_0: first.0,
            scores_1: second.0,
            scores_2: third.0,
            state: word(scratch.state),
            histogram: word(scratch.histogram),
            selected: word(scratch.selected),
            equal: word(scratch.equal),
            members: word(scratch.members),
            lists: word(scratch.lists),
            indices: WritePointer(indices),
            count: WritePointer(count),
            row_stride_0: first.1,
            row_stride_1: second.1,
            row_stride_2: third.1,
            // Validation keeps all of these below 2^31.
            elements: self.elements as i32,
            columns: columns as i32,
            tiles: self.tiles() as i32,
            k_0: first.2,
            k_1: second.2,
            k_2: third.2,
            digit_bits: 0,
            digit_shift: 0,
            first_digit: 0,
            capacity: self.capacity as i32,
        }
    }
}

/// Enqueues the launches.
///
/// # Safety
/// `parameters` must be those of the selection that the steps are of, made from bound tensors.
pub(crate) unsafe fn enqueue(
    cuda: &Cuda,
    selection: &Selection<'_>,
    stream: &Arc<CudaStream>,
    steps: &Steps,
    parameters: &SelectionParams,
) -> Result<(), Error> {
    // All of them before the first one runs: a kernel that cannot be loaded leaves nothing half-done.
    for step in steps.iter() {
        cuda.function(selection.op, stream, &step.launch)?;
    }
    for step in steps.iter() {
        let function = cuda.function(selection.op, stream, &step.launch)?;
        let mut parameters = *parameters;
        parameters.digit_bits = step.digit.bits as i32;
        parameters.digit_shift = step.digit.shift as i32;
        parameters.first_digit = i32::from(step.first_digit);
        if step.launch.kernel.name == CLEAR {
            parameters.capacity = (selection.sets << step.digit.bits) as i32;
        }
        // SAFETY: by the caller's promise; each launch follows its kernel's contract.
        unsafe { cuda.launch(stream, &function, &step.launch, &parameters, false) }?;
    }
    Ok(())
}
