//! Shapes and strides, independent of where the data lives.

use std::fmt;

use crate::dtype::DType;
use crate::error::{Error, Problem};

/// The most dimensions a tensor can have.
pub const MAX_RANK: usize = 4;

/// Element type, shape and strides of a tensor; all counts are in elements, never bytes.
///
/// A layout says nothing about where the data is, so validation, cost and kernel choice work on it alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    dtype: DType,
    rank: u8,
    shape: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
}

impl Layout {
    /// A row-major layout without gaps.
    ///
    /// # Errors
    /// [`Problem::Shape`] above [`MAX_RANK`] dimensions, [`Problem::Size`] if the byte count overflows `usize`.
    pub fn contiguous(dtype: DType, shape: &[usize]) -> Result<Layout, Error> {
        let mut strides = [1usize; MAX_RANK];
        check_rank(shape.len())?;
        for axis in (0..shape.len().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1]
                .checked_mul(shape[axis + 1].max(1))
                .ok_or_else(|| too_large(shape))?;
        }
        Layout::strided(dtype, shape, &strides[..shape.len()])
    }

    /// A layout with explicit strides, in elements.
    ///
    /// # Errors
    /// [`Problem::Shape`] if `shape` and `strides` differ in length or exceed [`MAX_RANK`],
    /// [`Problem::Size`] if the byte count overflows `isize`.
    pub fn strided(dtype: DType, shape: &[usize], strides: &[usize]) -> Result<Layout, Error> {
        check_rank(shape.len())?;
        if shape.len() != strides.len() {
            return Err(Error::argument(
                "layout",
                "strides",
                Problem::Shape,
                format_args!("{} strides", shape.len()),
                format_args!("{}", strides.len()),
                "one stride for each dimension",
            ));
        }
        let mut layout =
            Layout { dtype, rank: shape.len() as u8, shape: [1; MAX_RANK], strides: [1; MAX_RANK] };
        layout.shape[..shape.len()].copy_from_slice(shape);
        layout.strides[..shape.len()].copy_from_slice(strides);
        let fits = layout
            .checked_span()
            .and_then(|span| span.checked_mul(dtype.size()))
            .is_some_and(|bytes| isize::try_from(bytes).is_ok());
        let elements_fit =
            shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n.max(1))).is_some();
        if fits && elements_fit { Ok(layout) } else { Err(too_large(shape)) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..usize::from(self.rank)]
    }

    /// Distance between neighbours along each dimension, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..usize::from(self.rank)]
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape().iter().product()
    }

    /// Number of elements of storage from the first element to the last, both included.
    pub fn span(&self) -> usize {
        self.checked_span().expect("checked at construction")
    }

    /// Elements between the starts of consecutive rows: the stride of the second-innermost dimension.
    ///
    /// For vectors, the length: a vector is one row.
    pub fn row_stride(&self) -> usize {
        match usize::from(self.rank) {
            0 => 1,
            1 => self.shape[0],
            rank => self.strides[rank - 2],
        }
    }

    /// Length of the innermost dimension.
    pub fn columns(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }

    /// Whether neighbours along the innermost dimension are neighbours in memory.
    pub fn has_unit_inner_stride(&self) -> bool {
        self.columns() <= 1 || self.strides().last() == Some(&1)
    }

    /// Whether the elements fill their span in row-major order, as no elements do.
    pub fn is_contiguous(&self) -> bool {
        if self.shape().contains(&0) {
            return true;
        }
        let mut expected = 1;
        for (&length, &stride) in self.shape().iter().zip(self.strides()).rev() {
            if length > 1 && stride != expected {
                return false;
            }
            expected *= length;
        }
        true
    }

    fn checked_span(&self) -> Option<usize> {
        if self.shape().contains(&0) {
            return Some(0);
        }
        self.shape().iter().zip(self.strides()).try_fold(1usize, |span, (&length, &stride)| {
            span.checked_add((length - 1).checked_mul(stride)?)
        })
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:?}", self.dtype, self.shape())?;
        if !self.is_contiguous() {
            write!(formatter, " strides {:?}", self.strides())?;
        }
        Ok(())
    }
}

/// Anything that has a [`Layout`]: a layout itself, or a tensor on any backend.
pub trait HasLayout {
    /// The layout.
    fn layout(&self) -> Layout;
}

impl HasLayout for Layout {
    fn layout(&self) -> Layout {
        *self
    }
}

impl<T: HasLayout + ?Sized> HasLayout for &T {
    fn layout(&self) -> Layout {
        (**self).layout()
    }
}

fn check_rank(rank: usize) -> Result<(), Error> {
    if rank <= MAX_RANK {
        return Ok(());
    }
    Err(Error::argument(
        "layout",
        "shape",
        Problem::Shape,
        format_args!("at most {MAX_RANK} dimensions"),
        format_args!("of {rank} dimensions"),
        "merge outer dimensions",
    ))
}

fn too_large(shape: &[usize]) -> Error {
    Error::argument(
        "layout",
        "shape",
        Problem::Size,
        "a tensor that fits the address space",
        format_args!("{shape:?}"),
        "",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_strides_are_row_major() {
        let layout = Layout::contiguous(DType::F16, &[2, 3, 5]).unwrap();
        assert_eq!(layout.strides(), [15, 5, 1]);
        assert_eq!((layout.elements(), layout.span(), layout.row_stride()), (30, 30, 5));
        assert!(layout.is_contiguous() && layout.has_unit_inner_stride());
    }

    #[test]
    fn span_ends_at_the_last_element_not_at_the_last_stride() {
        let layout = Layout::strided(DType::F32, &[3, 4], &[10, 1]).unwrap();
        assert_eq!(layout.span(), 24);
        assert!(!layout.is_contiguous());
        assert_eq!(format!("{layout:?}"), "f32 [3, 4] strides [10, 1]");
    }

    #[test]
    fn empty_tensors_span_nothing() {
        for shape in [&[0usize, 4][..], &[4, 0], &[0], &[4, 0, 16]] {
            let layout = Layout::contiguous(DType::F32, shape).unwrap();
            assert_eq!((layout.elements(), layout.span()), (0, 0));
            assert!(layout.is_contiguous());
        }
    }

    #[test]
    fn overflow_and_rank_are_errors() {
        let huge = usize::MAX / 2;
        for result in [
            Layout::contiguous(DType::F32, &[huge, 3]),
            Layout::contiguous(DType::F32, &[huge]),
            Layout::contiguous(DType::F32, &[0, huge, huge]),
            Layout::strided(DType::U8, &[2, 1], &[usize::MAX, 1]),
        ] {
            assert_eq!(result.unwrap_err().problem(), Some(Problem::Size));
        }
        let error = Layout::contiguous(DType::F32, &[1; 5]).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Shape));
        let error = Layout::strided(DType::F32, &[1, 2], &[1]).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Shape));
    }
}
