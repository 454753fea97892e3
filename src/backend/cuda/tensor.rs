//! Tensors in device memory that somebody else owns.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};

use crate::dtype::Element;
use crate::error::{Error, Problem};
use crate::layout::{HasLayout, Layout};

macro_rules! device_data {
    ($($variant:ident($rust:ty)),* $(,)?) => {
        #[derive(Clone, Copy)]
        enum Source<'a> {
            $($variant(&'a dyn DevicePtr<$rust>),)*
            Raw(CUdeviceptr),
        }

        enum SourceMut<'a> {
            $($variant(&'a mut dyn DevicePtrMut<$rust>),)*
            Raw(CUdeviceptr),
        }

        impl Source<'_> {
            fn stream(&self) -> Option<&Arc<CudaStream>> {
                match self {
                    $(Source::$variant(data) => Some(data.stream()),)*
                    Source::Raw(_) => None,
                }
            }
            fn pointer<'a>(&'a self, stream: &'a CudaStream) -> (CUdeviceptr, Option<SyncOnDrop<'a>>) {
                match self {
                    $(Source::$variant(data) => guarded(data.device_ptr(stream)),)*
                    Source::Raw(pointer) => (*pointer, None),
                }
            }
        }

        impl SourceMut<'_> {
            fn stream(&self) -> Option<&Arc<CudaStream>> {
                match self {
                    $(SourceMut::$variant(data) => Some(data.stream()),)*
                    SourceMut::Raw(_) => None,
                }
            }
            fn pointer<'a>(
                &'a mut self,
                stream: &'a CudaStream,
            ) -> (CUdeviceptr, Option<SyncOnDrop<'a>>) {
                match self {
                    $(SourceMut::$variant(data) => guarded(data.device_ptr_mut(stream)),)*
                    SourceMut::Raw(pointer) => (*pointer, None),
                }
            }
        }

        $(
            impl DeviceElement for $rust {}
            impl sealed::Erase for $rust {
                fn erase(data: &dyn DevicePtr<$rust>) -> Erased<'_> {
                    Erased(Source::$variant(data))
                }
                fn erase_mut(data: &mut dyn DevicePtrMut<$rust>) -> ErasedMut<'_> {
                    ErasedMut(SourceMut::$variant(data))
                }
            }
        )*
    };
}

device_data!(F32(f32), F16(crate::f16), BF16(crate::bf16), U8(u8), I32(i32), U32(u32),);

/// A Rust type that a tensor in device memory can hold. Sealed.
pub trait DeviceElement: Element + sealed::Erase {}

mod sealed {
    use super::*;

    pub trait Erase: Sized {
        fn erase(data: &dyn DevicePtr<Self>) -> Erased<'_>;
        fn erase_mut(data: &mut dyn DevicePtrMut<Self>) -> ErasedMut<'_>;
    }
}

/// A slice without its element type.
pub struct Erased<'a>(Source<'a>);
/// A slice to be written, without its element type.
pub struct ErasedMut<'a>(SourceMut<'a>);

fn guarded(
    (pointer, guard): (CUdeviceptr, SyncOnDrop<'_>),
) -> (CUdeviceptr, Option<SyncOnDrop<'_>>) {
    (pointer, Some(guard))
}

/// A tensor to be read, over a `CudaSlice`, `CudaView` or `CudaViewMut`, or a raw pointer.
///
/// Uses on several streams are ordered by the slice's own events, as in cudarc's launches.
#[derive(Clone, Copy)]
pub struct CudaTensor<'a> {
    layout: Layout,
    source: Source<'a>,
}

/// A tensor to be written, over a `CudaSlice` or `CudaViewMut`, or a raw pointer.
///
/// Elements between rows, and behind the last one, are left as they are.
pub struct CudaTensorMut<'a> {
    layout: Layout,
    source: SourceMut<'a>,
}

/// Scratch memory; its contents before and after a call mean nothing.
///
/// Calls in flight on different streams need different workspaces.
pub struct CudaWorkspace<'a> {
    bytes: usize,
    source: SourceMut<'a>,
}

impl<'a> CudaTensor<'a> {
    /// A row-major tensor without gaps, at the start of `data`.
    ///
    /// # Errors
    /// [`Problem::Length`] if `data` is shorter than `shape` needs; the errors of [`Layout::contiguous`].
    pub fn new<T: DeviceElement>(
        data: &'a impl DevicePtr<T>,
        shape: &[usize],
    ) -> Result<CudaTensor<'a>, Error> {
        CudaTensor::with_layout(data, Layout::contiguous(T::DTYPE, shape)?)
    }

    /// A tensor with explicit strides, in elements.
    ///
    /// # Errors
    /// [`Problem::Length`] if `data` is shorter than the tensor's span; the errors of [`Layout::strided`].
    pub fn strided<T: DeviceElement>(
        data: &'a impl DevicePtr<T>,
        shape: &[usize],
        strides: &[usize],
    ) -> Result<CudaTensor<'a>, Error> {
        CudaTensor::with_layout(data, Layout::strided(T::DTYPE, shape, strides)?)
    }

    /// A tensor over memory that cudarc does not know: of PyTorch, an arena, another crate.
    ///
    /// # Safety
    /// Until the work enqueued with it is done, `pointer` must be the address, in the context of the stream, of memory
    /// that holds `layout.span()` elements of `layout.dtype()`, aligned to one element, and that nobody
    /// writes. Ordering against work on other streams is the caller's.
    pub unsafe fn from_raw(pointer: CUdeviceptr, layout: Layout) -> CudaTensor<'a> {
        CudaTensor { layout, source: Source::Raw(pointer) }
    }

    fn with_layout<T: DeviceElement>(
        data: &'a impl DevicePtr<T>,
        layout: Layout,
    ) -> Result<CudaTensor<'a>, Error> {
        check_length(&layout, data.len())?;
        Ok(CudaTensor { layout, source: T::erase(data).0 })
    }

    pub(super) fn stream(&self) -> Option<&Arc<CudaStream>> {
        self.source.stream()
    }

    pub(super) fn pointer<'b>(
        &'b self,
        stream: &'b CudaStream,
    ) -> (CUdeviceptr, Option<SyncOnDrop<'b>>) {
        self.source.pointer(stream)
    }
}

impl<'a> CudaTensorMut<'a> {
    /// A row-major tensor without gaps, at the start of `data`.
    ///
    /// # Errors
    /// As [`CudaTensor::new`].
    pub fn new<T: DeviceElement>(
        data: &'a mut impl DevicePtrMut<T>,
        shape: &[usize],
    ) -> Result<CudaTensorMut<'a>, Error> {
        CudaTensorMut::with_layout(data, Layout::contiguous(T::DTYPE, shape)?)
    }

    /// A tensor with explicit strides, in elements.
    ///
    /// # Errors
    /// As [`CudaTensor::strided`].
    pub fn strided<T: DeviceElement>(
        data: &'a mut impl DevicePtrMut<T>,
        shape: &[usize],
        strides: &[usize],
    ) -> Result<CudaTensorMut<'a>, Error> {
        CudaTensorMut::with_layout(data, Layout::strided(T::DTYPE, shape, strides)?)
    }

    /// A tensor over memory that cudarc does not know.
    ///
    /// # Safety
    /// As [`CudaTensor::from_raw`]; and nobody else reads or writes the tensor's elements meanwhile.
    pub unsafe fn from_raw(pointer: CUdeviceptr, layout: Layout) -> CudaTensorMut<'a> {
        CudaTensorMut { layout, source: SourceMut::Raw(pointer) }
    }

    fn with_layout<T: DeviceElement>(
        data: &'a mut impl DevicePtrMut<T>,
        layout: Layout,
    ) -> Result<CudaTensorMut<'a>, Error> {
        check_length(&layout, data.len())?;
        Ok(CudaTensorMut { layout, source: T::erase_mut(data).0 })
    }

    pub(super) fn stream(&self) -> Option<&Arc<CudaStream>> {
        self.source.stream()
    }

    pub(super) fn pointer<'b>(
        &'b mut self,
        stream: &'b CudaStream,
    ) -> (CUdeviceptr, Option<SyncOnDrop<'b>>) {
        self.source.pointer(stream)
    }
}

impl<'a> CudaWorkspace<'a> {
    /// All of `data`.
    pub fn new<T: DeviceElement>(data: &'a mut impl DevicePtrMut<T>) -> CudaWorkspace<'a> {
        CudaWorkspace { bytes: data.num_bytes(), source: T::erase_mut(data).0 }
    }

    /// No memory, for operations and shapes that need none.
    pub fn empty() -> CudaWorkspace<'a> {
        CudaWorkspace { bytes: 0, source: SourceMut::Raw(0) }
    }

    /// Memory that cudarc does not know.
    ///
    /// # Safety
    /// As [`CudaTensorMut::from_raw`], for `bytes` bytes.
    pub unsafe fn from_raw(pointer: CUdeviceptr, bytes: usize) -> CudaWorkspace<'a> {
        CudaWorkspace { bytes, source: SourceMut::Raw(pointer) }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn stream(&self) -> Option<&Arc<CudaStream>> {
        self.source.stream()
    }

    pub(super) fn pointer<'b>(
        &'b mut self,
        stream: &'b CudaStream,
    ) -> (CUdeviceptr, Option<SyncOnDrop<'b>>) {
        self.source.pointer(stream)
    }
}

impl HasLayout for CudaTensor<'_> {
    fn layout(&self) -> Layout {
        self.layout
    }
}

impl HasLayout for CudaTensorMut<'_> {
    fn layout(&self) -> Layout {
        self.layout
    }
}

impl fmt::Debug for CudaTensor<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CudaTensor({:?})", self.layout)
    }
}

impl fmt::Debug for CudaTensorMut<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CudaTensorMut({:?})", self.layout)
    }
}

impl fmt::Debug for CudaWorkspace<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CudaWorkspace({} bytes)", self.bytes)
    }
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
