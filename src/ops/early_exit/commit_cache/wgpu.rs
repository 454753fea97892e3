//! `commit_cache` through wgpu: a launch that keeps the books, and one that moves rows where there are paths.

use super::{CommitCache, CommitCacheArgs};
use crate::backend::wgpu::registry::{commit_cache, commit_move};
use crate::backend::wgpu::{Bound, Operand, Plan, PlanBuilder, Wgpu, WgpuTensor};
use crate::error::Error;
use crate::layout::{HasLayout as _, Layout};
use crate::operation::Operation as _;
use crate::ops::early_exit::binding::{check_outputs, optional};

type Operands<'a> = CommitCacheArgs<Operand<'a>, Operand<'a>>;

impl Wgpu {
    /// Binds [`CommitCache`] to buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument, [`Error::Unsupported`] the device's limit: a binding must hold a group of
    /// the cache.
    pub fn plan_commit_cache(
        &self,
        op: &CommitCache,
        args: CommitCacheArgs<WgpuTensor<'_>, WgpuTensor<'_>>,
    ) -> Result<Plan, Error> {
        op.validate(&args.layouts())?;
        let groups = args.cache.map(|cache| groups_of(self, cache)).transpose()?;
        let args = args.try_map(
            |info, tensor| Operand::new(CommitCache::NAME, info.name, tensor, self.capabilities()),
            |info, tensor| Operand::new(CommitCache::NAME, info.name, tensor, self.capabilities()),
        )?;
        check_outputs(args)?;
        let mut plan = PlanBuilder::new(self, CommitCache::NAME);
        if args.length.layout().elements() == 0 {
            return plan.finish();
        }
        keep_books(self, &mut plan, op, &args)?;
        if let (Some(cache), Some(groups)) = (args.cache, groups)
            && cache.layout().elements() > 0
        {
            move_paths(self, &mut plan, op, &args, &cache.layout(), &groups)?;
        }
        plan.finish()
    }
}

/// The cache as a matrix of one row a group, which can be bound in parts.
fn groups_of<'a>(wgpu: &Wgpu, cache: WgpuTensor<'a>) -> Result<Operand<'a>, Error> {
    let layout = cache.layout();
    let (groups, stride) = (layout.shape()[0], layout.strides()[0]);
    // The last group has no gap behind it.
    let span =
        layout.span() - groups.saturating_sub(1) * if layout.span() == 0 { 0 } else { stride };
    let matrix = Layout::strided(layout.dtype(), &[groups, span], &[stride, 1])?;
    let tensor = WgpuTensor::new(cache.buffer(), cache.offset(), matrix);
    Operand::new(CommitCache::NAME, "cache", tensor, wgpu.capabilities())
}

/// What both kernels look at, bound.
fn inputs<'a>(args: &Operands<'a>) -> Result<[Bound<'a>; 4], Error> {
    Ok([
        args.length.whole()?,
        args.emitted.whole()?,
        optional(&args.path)?,
        optional(&args.page_table)?,
    ])
}

fn stride(operand: &Option<Operand<'_>>) -> u32 {
    operand.map_or(0, |operand| operand.stride())
}

fn keep_books<'a>(
    wgpu: &Wgpu,
    plan: &mut PlanBuilder<'a>,
    op: &CommitCache,
    args: &Operands<'a>,
) -> Result<(), Error> {
    let [length, emitted, path, page_table] = inputs(args)?;
    let bindings = commit_cache::Bindings {
        length,
        emitted,
        path,
        page_table,
        committed_length: args.committed_length.whole()?,
        status: args.status.whole()?,
        freed_pages: optional(&args.freed_pages)?,
        freed_count: optional(&args.freed_count)?,
    };
    let batch = args.length.layout().elements();
    let cache = args.cache.map(|cache| cache.layout());
    let parameters = commit_cache::Parameters {
        batch: batch as u32,
        capacity: op.capacity() as u32,
        path_length: args.path.map_or(0, |path| path.layout().columns()) as u32,
        table_length: op.table_length() as u32,
        page_size: op.page_size().unwrap_or(1) as u32,
        pages: op.pages(cache.as_ref()) as u32,
        has_path: u32::from(args.path.is_some()),
        length_start: bindings.length.start,
        emitted_start: bindings.emitted.start,
        path_start: bindings.path.start,
        path_stride: stride(&args.path),
        table_start: bindings.page_table.start,
        table_stride: stride(&args.page_table),
        committed_start: bindings.committed_length.start,
        status_start: bindings.status.start,
        freed_start: bindings.freed_pages.start,
        freed_stride: stride(&args.freed_pages),
        freed_count_start: bindings.freed_count.start,
        wants_freed: u32::from(args.freed_pages.is_some()),
        wants_freed_count: u32::from(args.freed_count.is_some()),
        ..Default::default()
    };
    let constants =
        commit_cache::Constants { threads: threads(wgpu), paged: op.page_size().is_some() };
    let bindings = bindings.into_array();
    plan.dispatch(&commit_cache::ONLY, constants.values(), &parameters, bindings, batch as u64)
}

fn threads(wgpu: &Wgpu) -> u32 {
    wgpu.capabilities().invocations.min(64)
}

fn move_paths<'a>(
    wgpu: &Wgpu,
    plan: &mut PlanBuilder<'a>,
    op: &CommitCache,
    args: &Operands<'a>,
    cache: &Layout,
    groups: &Operand<'a>,
) -> Result<(), Error> {
    let batch = args.length.layout().elements();
    let constants = commit_move::Constants {
        threads: threads(wgpu),
        paged: op.page_size().is_some(),
        halves: cache.dtype().size() == 2,
    };
    let most = groups.rows_per_binding()?;
    for first in (0..cache.shape()[0]).step_by(most) {
        let count = most.min(cache.shape()[0] - first);
        let [length, emitted, path, page_table] = inputs(args)?;
        let cache_bound = groups.rows(first, count)?;
        let bindings =
            commit_move::Bindings { length, emitted, path, page_table, cache: cache_bound };
        // Two halves are one invocation's only if they share a word wherever the row lies.
        let is_even = |at: usize| at.is_multiple_of(2);
        let pairs = constants.halves
            && is_even(cache_bound.start as usize)
            && cache.strides()[..3].iter().all(|&stride| is_even(stride));
        let unit = if pairs { 2 } else { 1 };
        let units = cache.columns().div_ceil(unit);
        let parameters = commit_move::Parameters {
            batch: batch as u32,
            capacity: op.capacity() as u32,
            path_length: args.path.map_or(0, |path| path.layout().columns()) as u32,
            table_length: op.table_length() as u32,
            page_size: op.page_size().unwrap_or(1) as u32,
            pages: op.pages(Some(cache)) as u32,
            has_path: u32::from(args.path.is_some()),
            length_start: bindings.length.start,
            emitted_start: bindings.emitted.start,
            path_start: bindings.path.start,
            path_stride: stride(&args.path),
            table_start: bindings.page_table.start,
            table_stride: stride(&args.page_table),
            groups: count as u32,
            unit: unit as u32,
            units: units as u32,
            columns: cache.columns() as u32,
            cache_start: cache_bound.start,
            cache_group_stride: cache.strides()[0] as u32,
            cache_block_stride: cache.strides()[1] as u32,
            cache_row_stride: cache.strides()[2] as u32,
            ..Default::default()
        };
        let workgroups = (batch * count * units.div_ceil(constants.threads as usize)) as u64;
        let (shader, bindings) = (&commit_move::ONLY, bindings.into_array());
        plan.dispatch(shader, constants.values(), &parameters, bindings, workgroups)?;
    }
    Ok(())
}
