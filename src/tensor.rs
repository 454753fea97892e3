//! Tensors in host memory: borrowed views and an owning tensor.

use crate::dtype::{DType, Element, Float, bf16, f16};
use crate::error::{Error, Problem};
use crate::layout::{HasLayout, Layout};

macro_rules! host_data {
    ($($variant:ident($rust:ty)),* $(,)?) => {
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Data<'a> { $($variant(&'a [$rust])),* }

        #[derive(Debug)]
        pub(crate) enum DataMut<'a> { $($variant(&'a mut [$rust])),* }

        #[derive(Clone, Debug, PartialEq)]
        enum Owned { $($variant(Vec<$rust>)),* }

        impl<'a> Data<'a> {
            fn from_bytes(dtype: DType, bytes: &'a [u8]) -> Result<Data<'a>, bytemuck::PodCastError> {
                Ok(match dtype { $(DType::$variant => Data::$variant(bytemuck::try_cast_slice(bytes)?)),* })
            }
            fn len(&self) -> usize {
                match self { $(Data::$variant(data) => data.len()),* }
            }
            fn bytes(&self) -> &'a [u8] {
                match self { $(Data::$variant(data) => bytemuck::cast_slice(data)),* }
            }
        }

        impl<'a> DataMut<'a> {
            fn from_bytes(
                dtype: DType,
                bytes: &'a mut [u8],
            ) -> Result<DataMut<'a>, bytemuck::PodCastError> {
                Ok(match dtype {
                    $(DType::$variant => DataMut::$variant(bytemuck::try_cast_slice_mut(bytes)?)),*
                })
            }
            fn bytes_mut(&mut self) -> &mut [u8] {
                match self { $(DataMut::$variant(data) => bytemuck::cast_slice_mut(data)),* }
            }
            fn reborrow(&mut self) -> DataMut<'_> {
                match self { $(DataMut::$variant(data) => DataMut::$variant(data)),* }
            }
        }

        impl Owned {
            fn zeroed(dtype: DType, length: usize) -> Owned {
                match dtype { $(DType::$variant => Owned::$variant(vec![bytemuck::Zeroable::zeroed(); length])),* }
            }
            fn borrow(&self) -> Data<'_> {
                match self { $(Owned::$variant(data) => Data::$variant(data)),* }
            }
            fn borrow_mut(&mut self) -> DataMut<'_> {
                match self { $(Owned::$variant(data) => DataMut::$variant(data)),* }
            }
            fn bytes_mut(&mut self) -> &mut [u8] {
                match self { $(Owned::$variant(data) => bytemuck::cast_slice_mut(data)),* }
            }
        }
    };
}

host_data!(F32(f32), F16(f16), BF16(bf16), U8(u8), I32(i32), U32(u32));

/// A read-only tensor over a slice that somebody else owns.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    layout: Layout,
    data: Data<'a>,
}

/// A tensor to be written, over a slice that somebody else owns.
///
/// Elements between rows, and behind the last one, are left as they are.
#[derive(Debug)]
pub struct TensorMut<'a> {
    layout: Layout,
    data: DataMut<'a>,
}

/// A tensor that owns its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    layout: Layout,
    data: Owned,
}

impl<'a> TensorRef<'a> {
    /// A row-major view without gaps.
    ///
    /// # Errors
    /// [`Problem::Length`] if `data` is shorter than `shape` needs; the errors of [`Layout::contiguous`].
    pub fn new<T: Element>(data: &'a [T], shape: &[usize]) -> Result<TensorRef<'a>, Error> {
        TensorRef::from_layout(data, Layout::contiguous(T::DTYPE, shape)?)
    }

    /// A view with explicit strides, in elements.
    ///
    /// # Errors
    /// [`Problem::Length`] if `data` is shorter than the view's span; the errors of [`Layout::strided`].
    pub fn strided<T: Element>(
        data: &'a [T],
        shape: &[usize],
        strides: &[usize],
    ) -> Result<TensorRef<'a>, Error> {
        TensorRef::from_layout(data, Layout::strided(T::DTYPE, shape, strides)?)
    }

    /// A view of raw bytes, such as a memory-mapped safetensors file.
    ///
    /// # Errors
    /// [`Problem::Alignment`] if `bytes` does not start on a multiple of the element size or does not
    /// hold whole elements, [`Problem::Length`] if it is too short.
    pub fn from_bytes(bytes: &'a [u8], layout: Layout) -> Result<TensorRef<'a>, Error> {
        let data =
            Data::from_bytes(layout.dtype(), bytes).map_err(|error| misaligned(&layout, error))?;
        check_length(&layout, data.len())?;
        Ok(TensorRef { layout, data })
    }

    fn from_layout<T: Element>(data: &'a [T], layout: Layout) -> Result<TensorRef<'a>, Error> {
        TensorRef::from_bytes(bytemuck::cast_slice(data), layout)
    }

    /// The elements of the whole span, gaps included, if `T` is the tensor's type.
    pub fn as_slice<T: Element>(&self) -> Option<&'a [T]> {
        (T::DTYPE == self.layout.dtype()).then(|| bytemuck::cast_slice(self.span_bytes()))
    }

    /// The bytes of the whole span, gaps included.
    pub fn span_bytes(&self) -> &'a [u8] {
        &self.data.bytes()[..self.layout.span() * self.layout.dtype().size()]
    }

    /// The elements in row-major order, gaps left out, widened to f64.
    pub fn to_f64(&self) -> Vec<f64> {
        let data = self.data;
        offsets(&self.layout)
            .map(|at| match data {
                Data::F32(data) => f64::from(data[at]),
                Data::F16(data) => data[at].to_f64(),
                Data::BF16(data) => data[at].to_f64(),
                Data::U8(data) => f64::from(data[at]),
                Data::I32(data) => f64::from(data[at]),
                Data::U32(data) => f64::from(data[at]),
            })
            .collect()
    }
}

impl<'a> TensorMut<'a> {
    /// A row-major view without gaps.
    ///
    /// # Errors
    /// As [`TensorRef::new`].
    pub fn new<T: Element>(data: &'a mut [T], shape: &[usize]) -> Result<TensorMut<'a>, Error> {
        TensorMut::from_layout(data, Layout::contiguous(T::DTYPE, shape)?)
    }

    /// A view with explicit strides, in elements.
    ///
    /// # Errors
    /// As [`TensorRef::strided`].
    pub fn strided<T: Element>(
        data: &'a mut [T],
        shape: &[usize],
        strides: &[usize],
    ) -> Result<TensorMut<'a>, Error> {
        TensorMut::from_layout(data, Layout::strided(T::DTYPE, shape, strides)?)
    }

    /// A view of raw bytes.
    ///
    /// # Errors
    /// As [`TensorRef::from_bytes`].
    pub fn from_bytes(bytes: &'a mut [u8], layout: Layout) -> Result<TensorMut<'a>, Error> {
        check_length(&layout, bytes.len() / layout.dtype().size())?;
        let data = DataMut::from_bytes(layout.dtype(), bytes)
            .map_err(|error| misaligned(&layout, error))?;
        Ok(TensorMut { layout, data })
    }

    fn from_layout<T: Element>(data: &'a mut [T], layout: Layout) -> Result<TensorMut<'a>, Error> {
        TensorMut::from_bytes(bytemuck::cast_slice_mut(data), layout)
    }

    /// The elements of the whole span, gaps included, if `T` is the tensor's type.
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        if T::DTYPE != self.layout.dtype() {
            return None;
        }
        let span = self.layout.span();
        let slice: &mut [T] = match &mut self.data {
            DataMut::F32(data) => bytemuck::cast_slice_mut(data),
            DataMut::F16(data) => bytemuck::cast_slice_mut(data),
            DataMut::BF16(data) => bytemuck::cast_slice_mut(data),
            DataMut::U8(data) => bytemuck::cast_slice_mut(data),
            DataMut::I32(data) => bytemuck::cast_slice_mut(data),
            DataMut::U32(data) => bytemuck::cast_slice_mut(data),
        };
        Some(&mut slice[..span])
    }

    /// The bytes of the whole span, gaps included.
    pub(crate) fn span_bytes_mut(&mut self) -> &mut [u8] {
        let span = self.layout.span() * self.layout.dtype().size();
        &mut self.data.bytes_mut()[..span]
    }

    /// Writes every element, in row-major order, rounding once; integers are truncated.
    pub(crate) fn write_f64(&mut self, values: impl IntoIterator<Item = f64>) {
        let layout = self.layout;
        for (at, value) in offsets(&layout).zip(values) {
            match &mut self.data {
                DataMut::F32(data) => data[at] = value as f32,
                DataMut::F16(data) => data[at] = Float::from_f64(value),
                DataMut::BF16(data) => data[at] = Float::from_f64(value),
                DataMut::U8(data) => data[at] = value as u8,
                DataMut::I32(data) => data[at] = value as i32,
                DataMut::U32(data) => data[at] = value as u32,
            }
        }
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> TensorMut<'_> {
        TensorMut { layout: self.layout, data: self.data.reborrow() }
    }
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(layout: Layout) -> Tensor {
        Tensor { layout, data: Owned::zeroed(layout.dtype(), layout.span()) }
    }

    /// A copy of `data`.
    ///
    /// # Errors
    /// As [`TensorRef::new`].
    pub fn from_slice<T: Element>(data: &[T], shape: &[usize]) -> Result<Tensor, Error> {
        Ok(Tensor::copy_of(TensorRef::new(data, shape)?))
    }

    /// A copy with the same strides.
    pub fn copy_of(view: TensorRef<'_>) -> Tensor {
        let mut tensor = Tensor::zeros(view.layout);
        tensor.span_bytes_mut().copy_from_slice(view.span_bytes());
        tensor
    }

    /// Rounds each value once to `layout`'s type; the values come in row-major order, gaps left out.
    pub fn from_f64(layout: Layout, values: impl IntoIterator<Item = f64>) -> Tensor {
        let mut tensor = Tensor::zeros(layout);
        tensor.view_mut().write_f64(values);
        tensor
    }

    /// Read-only view.
    pub fn view(&self) -> TensorRef<'_> {
        TensorRef { layout: self.layout, data: self.data.borrow() }
    }

    /// View to write through.
    pub fn view_mut(&mut self) -> TensorMut<'_> {
        TensorMut { layout: self.layout, data: self.data.borrow_mut() }
    }

    /// The bytes of the whole span, gaps included.
    pub fn span_bytes_mut(&mut self) -> &mut [u8] {
        self.data.bytes_mut()
    }
}

impl HasLayout for TensorRef<'_> {
    fn layout(&self) -> Layout {
        self.layout
    }
}

impl HasLayout for TensorMut<'_> {
    fn layout(&self) -> Layout {
        self.layout
    }
}

impl HasLayout for Tensor {
    fn layout(&self) -> Layout {
        self.layout
    }
}

/// Runs `$body` with `$element` standing for the floating-point type of `$dtype`.
///
/// Only for dtypes that validation has shown to be floating-point.
macro_rules! with_float {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $element = f32;
                $body
            }
            $crate::DType::F16 => {
                type $element = $crate::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $element = $crate::bf16;
                $body
            }
            other => unreachable!("validated as floating-point, yet {other}"),
        }
    };
}
pub(crate) use with_float;

/// Positions of the elements in the span, in row-major order.
fn offsets(layout: &Layout) -> impl Iterator<Item = usize> + use<> {
    let layout = *layout;
    (0..layout.elements()).map(move |index| {
        let mut rest = index;
        let mut at = 0;
        for (&length, &stride) in layout.shape().iter().zip(layout.strides()).rev() {
            at += rest % length * stride;
            rest /= length;
        }
        at
    })
}

fn misaligned(layout: &Layout, error: bytemuck::PodCastError) -> Error {
    let dtype = layout.dtype();
    Error::argument(
        "tensor",
        "bytes",
        Problem::Alignment,
        format_args!("whole elements of {dtype}, aligned to {} bytes", dtype.size()),
        error,
        "copy the bytes into an aligned buffer",
    )
}

fn check_length(layout: &Layout, length: usize) -> Result<(), Error> {
    if length >= layout.span() {
        return Ok(());
    }
    Err(Error::argument(
        "tensor",
        "data",
        Problem::Length,
        format_args!("at least {} elements for {layout:?}", layout.span()),
        format_args!("of {length} elements"),
        "",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_views_skip_the_gaps() {
        let data = [0.0f32, 1.0, 9.0, 2.0, 3.0];
        let view = TensorRef::strided(&data, &[2, 2], &[3, 1]).unwrap();
        assert_eq!(view.to_f64(), [0.0, 1.0, 2.0, 3.0]);
        let mut data = [bf16::ONE; 5];
        let mut view = TensorMut::strided(&mut data, &[2, 2], &[3, 1]).unwrap();
        view.write_f64([5.0, 6.0, 7.0, 8.0]);
        assert_eq!(data.map(|value| value.to_f32()), [5.0, 6.0, 1.0, 7.0, 8.0]);
    }

    #[test]
    fn short_or_misaligned_storage_is_refused() {
        let error = TensorRef::new(&[0u32; 5], &[2, 3]).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Length));
        let error = TensorMut::strided(&mut [0f32; 9], &[2, 2], &[9, 1]).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Length));
        let words = [0u32; 4];
        let bytes = &bytemuck::cast_slice::<u32, u8>(&words)[1..9];
        let layout = Layout::contiguous(DType::F32, &[2]).unwrap();
        let error = TensorRef::from_bytes(bytes, layout).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Alignment));
    }

    #[test]
    fn slices_come_only_in_their_own_type() {
        let tensor = Tensor::from_slice(&[1.0f32, 2.0], &[2]).unwrap();
        assert_eq!(tensor.view().as_slice::<f32>(), Some(&[1.0, 2.0][..]));
        assert_eq!(tensor.view().as_slice::<u32>(), None);
    }
}
