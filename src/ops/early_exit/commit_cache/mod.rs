//! `commit_cache`: what a verification leaves of a cache of keys and values.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod operation;
mod reference;
#[cfg(feature = "wgpu")]
mod wgpu;

use crate::arguments::arguments;
use crate::dtype::DType;
use crate::error::{Error, Problem};
use crate::layout::Layout;
use crate::operation::Operation as _;
use crate::validate::Validator;

arguments! {
    /// Tensors of [`CommitCache`]; `B` sequences, `S` drafts at most, `P` pages a sequence at most, `G` groups (layers, and
    /// their keys and values) of rows of `W` elements.
    pub struct CommitCacheArgs {
        /// `[B]`: committed tokens in the cache.
        input length: integer,
        /// `[B]`: tokens that the verification emitted.
        input emitted: integer,
        /// `[B, S]`: for trees, the drafts that are emitted, strictly ascending; looked at as far as rows are kept.
        optional_input path: integer,
        /// `[B, P]`: the page of each `page_size` positions, -1 where there is none; with pages.
        optional_input page_table: integer,
        /// `[G, B, capacity, W]`, or `[G, pages, page_size, W]` with pages, f32, f16 or bf16; for trees.
        optional_update cache,
        /// `[B]`: committed tokens from now on.
        output committed_length: integer,
        /// `[B]`: what became of each sequence, as [`CommitStatus`].
        output status: integer,
        /// `[B, P]`: the pages wholly behind the new length, in order, then -1; with pages.
        optional_output freed_pages: integer,
        /// `[B]`: how many these are; with pages.
        optional_output freed_count: integer,
    }
}

/// Commits what a verification emitted: lengths grow, accepted rows of trees move to the front, pages behind are freed.
///
/// A verification appends rows to the cache at position `length`: first the pending token's, then one a draft. Of a chain
/// the accepted rows lie where they belong, and a rollback is a length, `committed_length = length + emitted`. Of a tree
/// the row of draft `path[i]` moves from position `length + 1 + path[i]` to `length + 1 + i`, for `i < emitted - 1`: the
/// last token emitted is the next pending one, and has no row yet. No other row changes.
///
/// A sequence that cannot be committed says so in `status`, keeps its length, and nothing of it moves or is freed; the
/// others do not mind. That is so on every backend, since only the device knows the values. `page_table` itself is the
/// engine's. With pages, those that a tree's rows move between must be the sequence's own.
///
/// Source: LayerSkip (arXiv 2404.16710), section 4.3; SpecInfer (arXiv 2305.09781), section 4; pages as in PagedAttention
/// (arXiv 2309.06180).
///
/// ```
/// use siluette::{CommitCache, CommitCacheArgs, Cpu, TensorMut, TensorRef};
/// // One sequence of six positions, of which the pending token's is 1 and those of four drafts follow; drafts 1 and 3 are
/// // accepted, and one token more is emitted.
/// let mut cache = [0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0];
/// let (mut length, mut status) = ([0], [0]);
/// let args = CommitCacheArgs::new(
///     TensorRef::new(&[1], &[1])?,
///     TensorRef::new(&[3], &[1])?,
///     TensorMut::new(&mut length, &[1])?,
///     TensorMut::new(&mut status, &[1])?,
/// )
/// .path(TensorRef::new(&[1, 3, -1, -1], &[1, 4])?)
/// .cache(TensorMut::new(&mut cache, &[1, 1, 6, 1])?);
/// Cpu::new().commit_cache(&CommitCache::new(6)?, args)?;
/// assert_eq!((length, cache), ([4], [0.0, 1.0, 3.0, 5.0, 4.0, 5.0]));
/// # Ok::<(), siluette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitCache {
    capacity: usize,
    page_size: Option<usize>,
}

/// What became of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum CommitStatus {
    /// It is committed.
    Fine = 0,
    /// The new length, or a row that should move, is beyond the capacity.
    Full = 1,
    /// A page that the new tokens or the moved rows lie in is not there.
    NoPage = 2,
    /// A negative length or number of tokens, or a path that is too short or not strictly ascending from 0 on.
    Malformed = 3,
}

const BY_SEQUENCE: &str = "one number a sequence";
const PATH: &str = "[B, S]";
const TABLE: &str = "[B, P] with P * page_size = capacity";
const TREES: &str = "path and cache go together: rows move only in trees";
const PAGES: &str = "only a cache with pages has it";
const CACHE: &str = "[G, B, capacity, W], or [G, pages, page_size, W] with pages";

impl CommitCache {
    /// A cache with `capacity` positions a sequence, which lie one behind the other.
    ///
    /// # Errors
    /// [`Problem::Size`] above 2^31 - 1.
    pub fn new(capacity: usize) -> Result<CommitCache, Error> {
        Validator::new(Self::NAME).dimension("capacity", capacity, 0)?;
        Ok(CommitCache { capacity, page_size: None })
    }

    /// A cache of pages of `page_size` positions.
    ///
    /// # Errors
    /// [`Problem::Value`] for 0, or where the capacity is not whole pages.
    pub fn with_pages(self, page_size: usize) -> Result<CommitCache, Error> {
        Validator::new(Self::NAME).dimension("page_size", page_size, 1)?;
        if !self.capacity.is_multiple_of(page_size) {
            let expected = format!("a divisor of the capacity, {}", self.capacity);
            let problem = Problem::Value;
            return Err(Error::argument(Self::NAME, "page_size", problem, expected, page_size, ""));
        }
        Ok(CommitCache { page_size: Some(page_size), ..self })
    }

    /// Positions of a sequence.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Positions of a page, if there are pages.
    pub fn page_size(&self) -> Option<usize> {
        self.page_size
    }

    /// Entries of a row of `page_table`.
    fn table_length(&self) -> usize {
        self.page_size.map_or(0, |page_size| self.capacity / page_size)
    }

    /// What an entry of `page_table` is below; without a cache, any page may be there.
    fn pages(&self, cache: Option<&Layout>) -> usize {
        cache.map_or(i32::MAX as usize, |cache| cache.shape()[1])
    }

    fn check(&self, args: &CommitCacheArgs<Layout, Layout>) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let batch = args.length.elements();
        check.dimension("sequences", batch, 0)?;
        let by_sequence = [
            ("length", &args.length),
            ("emitted", &args.emitted),
            ("committed_length", &args.committed_length),
            ("status", &args.status),
        ];
        for (name, layout) in by_sequence {
            check.tensor(name, layout, DType::I32, &[batch], BY_SEQUENCE)?;
        }
        check.presence("path", args.path.is_some(), args.cache.is_some(), TREES)?;
        if let Some(path) = &args.path {
            check.dimension("drafts", path.columns(), 0)?;
            check.tensor("path", path, DType::I32, &[batch, path.columns()], PATH)?;
        }
        let is_paged = self.page_size.is_some();
        check.presence("page_table", args.page_table.is_some(), is_paged, PAGES)?;
        if !is_paged {
            check.presence("freed_pages", args.freed_pages.is_some(), false, PAGES)?;
            check.presence("freed_count", args.freed_count.is_some(), false, PAGES)?;
        }
        let table = [batch, self.table_length()];
        for (name, layout) in [("page_table", &args.page_table), ("freed_pages", &args.freed_pages)]
        {
            check.optional_tensor(name, layout, DType::I32, &table, TABLE)?;
        }
        check.optional_tensor(
            "freed_count",
            &args.freed_count,
            DType::I32,
            &[batch],
            BY_SEQUENCE,
        )?;
        args.cache.as_ref().map_or(Ok(()), |cache| self.check_cache(cache, batch))
    }

    fn check_cache(&self, cache: &Layout, batch: usize) -> Result<(), Error> {
        let check = Validator::new(Self::NAME);
        let &[groups, blocks, _, columns] = cache.shape() else {
            let got = format!("{:?}", cache.shape());
            return Err(Error::argument(Self::NAME, "cache", Problem::Shape, CACHE, got, ""));
        };
        for extent in [groups, blocks, columns] {
            check.dimension("cache", extent, 0)?;
        }
        check.float("cache", cache.dtype())?;
        let shape = match self.page_size {
            Some(page_size) => [groups, blocks, page_size, columns],
            None => [groups, batch, self.capacity, columns],
        };
        check.tensor("cache", cache, cache.dtype(), &shape, CACHE)
    }
}
