//! What [`CompactRows`](super::CompactRows) and [`ScatterRows`](super::ScatterRows) have in common: rows on their way
//! between a tensor with all of them and a tensor with those that a permutation lists.

#[cfg(feature = "cuda")]
pub(super) mod cuda;
#[cfg(feature = "wgpu")]
pub(super) mod wgpu;

use crate::dtype::DType;
use crate::error::Error;
use crate::layout::Layout;
use crate::tensor::TensorRef;
use crate::validate::Validator;

const ALL: &str = "`D` features a row";
const LISTED: &str = "one row of `D` features for each entry of permutation";
const PERMUTATION: &str = "one entry a listed row";
const COUNT: &str = "one count";

/// The descriptor of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MovedRows {
    pub op: &'static str,
    pub features: usize,
    pub dtype: DType,
}

impl MovedRows {
    pub fn new(op: &'static str, features: usize, dtype: DType) -> Result<MovedRows, Error> {
        let check = Validator::new(op);
        check.dimension("features", features, 0)?;
        check.float("dtype", dtype)?;
        Ok(MovedRows { op, features, dtype })
    }

    /// `all` and `listed` with their names.
    pub fn validate(
        &self,
        all: (&'static str, &Layout),
        listed: (&'static str, &Layout),
        permutation: &Layout,
        count: &Option<Layout>,
    ) -> Result<(), Error> {
        let check = Validator::new(self.op);
        let rows = check.rows(all.0, all.1, self.features, ALL)?;
        check.tensor(all.0, all.1, self.dtype, &[rows, self.features], ALL)?;
        let entries = permutation.elements();
        check.dimension("entries", entries, 0)?;
        check.tensor("permutation", permutation, DType::I32, &[entries], PERMUTATION)?;
        check.tensor(listed.0, listed.1, self.dtype, &[entries, self.features], LISTED)?;
        check.optional_tensor("count", count, DType::I32, &[1], COUNT)
    }
}

/// Tensors of either: rows come `from` and go `to`.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(super) struct Tensors<In, Out> {
    pub names: [&'static str; 2],
    pub from: In,
    pub permutation: In,
    pub count: Option<In>,
    pub to: Out,
}

/// Which way rows move.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Compact,
    Scatter,
}

/// The entries of a validated permutation that count.
pub(super) fn moved_entries<'a>(
    permutation: TensorRef<'a>,
    count: Option<TensorRef<'_>>,
) -> &'a [i32] {
    let entries: &[i32] = permutation.as_slice().unwrap_or_default();
    let count = count.and_then(|count| count.as_slice::<i32>()?.first().copied());
    match count {
        Some(count) => &entries[..usize::try_from(count).unwrap_or(0).min(entries.len())],
        None => entries,
    }
}

/// The row of `rows` rows that an entry names, if it names one.
pub(super) fn row_of(entry: i32, rows: usize) -> Option<usize> {
    usize::try_from(entry).ok().filter(|&row| row < rows)
}

/// Bytes that move at most, in one direction.
pub(super) fn moved_bytes(listed: &Layout) -> u64 {
    (listed.elements() * listed.dtype().size()) as u64
}

/// Bytes of the tensors that say what moves.
pub(super) fn list_bytes(permutation: &Layout, count: &Option<Layout>) -> u64 {
    let entries = permutation.elements() + usize::from(count.is_some());
    (entries * DType::I32.size()) as u64
}

/// The first entry that counts and names the row of an earlier one.
pub(super) fn first_repeated(entries: &[i32], rows: usize) -> Option<usize> {
    let mut is_named = vec![false; rows];
    entries.iter().position(|&entry| {
        row_of(entry, rows).is_some_and(|row| std::mem::replace(&mut is_named[row], true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_within_the_list() {
        let entries = [4, 5, 6];
        let permutation = TensorRef::new(&entries, &[3]).unwrap();
        for (count, length) in [(-1, 0), (0, 0), (2, 2), (3, 3), (9, 3), (i32::MIN, 0)] {
            let count = [count];
            let count = TensorRef::new(&count, &[1]).unwrap();
            assert_eq!(moved_entries(permutation, Some(count)).len(), length);
        }
        assert_eq!(moved_entries(permutation, None), entries);
    }

    #[test]
    fn only_rows_that_exist_can_repeat() {
        assert_eq!(first_repeated(&[3, -1, 4, -1, 4, 0, 3], 4), Some(6));
        assert_eq!(first_repeated(&[2, 0, 1], 3), None);
        assert_eq!(row_of(3, 3), None);
    }
}
