//! Candle's storage as this crate's views, and new storage for results.

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, Storage, Tensor};

use super::not_on_host;
use crate::dtype::{DType, bf16, f16};
use crate::error::{Error, Problem};
use crate::layout::{HasLayout as _, Layout};
use crate::tensor::{TensorMut, TensorRef};

impl TryFrom<candle_core::DType> for DType {
    type Error = Error;

    fn try_from(dtype: candle_core::DType) -> Result<DType, Error> {
        Ok(match dtype {
            candle_core::DType::F32 => DType::F32,
            candle_core::DType::F16 => DType::F16,
            candle_core::DType::BF16 => DType::BF16,
            candle_core::DType::U8 => DType::U8,
            candle_core::DType::I32 => DType::I32,
            candle_core::DType::U32 => DType::U32,
            other => return Err(unknown(other)),
        })
    }
}

impl From<DType> for candle_core::DType {
    fn from(dtype: DType) -> candle_core::DType {
        match dtype {
            DType::F32 => candle_core::DType::F32,
            DType::F16 => candle_core::DType::F16,
            DType::BF16 => candle_core::DType::BF16,
            DType::U8 => candle_core::DType::U8,
            DType::I32 => candle_core::DType::I32,
            DType::U32 => candle_core::DType::U32,
        }
    }
}

pub(super) fn unknown(dtype: candle_core::DType) -> Error {
    Error::argument(
        "candle",
        "tensor",
        Problem::DType,
        "f32, f16, bf16, u8, i32 or u32",
        dtype.as_str(),
        "convert it with `to_dtype`",
    )
}

/// Type, shape and strides; the offset is left to [`view`].
pub(super) fn layout_of(tensor: &Tensor) -> Result<Layout, Error> {
    Layout::strided(tensor.dtype().try_into()?, tensor.dims(), tensor.stride())
}

/// A tensor where candle has it.
pub(super) fn view<'a>(
    op: &'static str,
    argument: &str,
    storage: &'a Storage,
    layout: &candle_core::Layout,
) -> Result<TensorRef<'a>, Error> {
    let Storage::Cpu(data) = storage else {
        return Err(not_on_host(op, argument, &storage.device()));
    };
    let (shape, strides) = (layout.dims(), layout.stride());
    // An empty tensor may start behind the last element.
    let start = layout.start_offset();
    macro_rules! strided {
        ($data:expr) => {
            TensorRef::strided($data.get(start..).unwrap_or_default(), shape, strides)
        };
    }
    match data {
        CpuStorage::F32(data) => strided!(data),
        CpuStorage::F16(data) => strided!(data),
        CpuStorage::BF16(data) => strided!(data),
        CpuStorage::U8(data) => strided!(data),
        CpuStorage::I32(data) => strided!(data),
        CpuStorage::U32(data) => strided!(data),
        other => Err(unknown(dtype_of(other))),
    }
}

fn dtype_of(storage: &CpuStorage) -> candle_core::DType {
    use candle_core::backend::BackendStorage as _;
    storage.dtype()
}

/// A result on its way to a candle tensor.
pub(super) struct NewStorage {
    storage: CpuStorage,
    layout: Layout,
}

impl NewStorage {
    /// Of a layout without gaps.
    pub fn zeros(layout: Layout) -> NewStorage {
        let elements = layout.elements();
        let storage = match layout.dtype() {
            DType::F32 => CpuStorage::F32(vec![0.0; elements]),
            DType::F16 => CpuStorage::F16(vec![f16::ZERO; elements]),
            DType::BF16 => CpuStorage::BF16(vec![bf16::ZERO; elements]),
            DType::U8 => CpuStorage::U8(vec![0; elements]),
            DType::I32 => CpuStorage::I32(vec![0; elements]),
            DType::U32 => CpuStorage::U32(vec![0; elements]),
        };
        NewStorage { storage, layout }
    }

    pub fn view_mut(&mut self) -> Result<TensorMut<'_>, Error> {
        let shape = self.layout.shape();
        match &mut self.storage {
            CpuStorage::F32(data) => TensorMut::new(data, shape),
            CpuStorage::F16(data) => TensorMut::new(data, shape),
            CpuStorage::BF16(data) => TensorMut::new(data, shape),
            CpuStorage::U8(data) => TensorMut::new(data, shape),
            CpuStorage::I32(data) => TensorMut::new(data, shape),
            CpuStorage::U32(data) => TensorMut::new(data, shape),
            other => Err(unknown(dtype_of(other))),
        }
    }

    /// From a tensor of the same type and shape, without gaps.
    pub fn copy_from(&mut self, source: &TensorRef<'_>) -> Result<(), Error> {
        debug_assert!(source.layout().is_contiguous());
        self.view_mut()?.span_bytes_mut().copy_from_slice(source.span_bytes());
        Ok(())
    }

    pub fn into_tensor(self) -> Tensor {
        let shape = self.layout.shape();
        Tensor::from_storage(Storage::Cpu(self.storage), shape, BackpropOp::none(), false)
    }
}
