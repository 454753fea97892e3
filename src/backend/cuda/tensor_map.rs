//! Tensor maps: matrices as the copy engine of sm_90 sees them.

use std::ffi::{c_int, c_uint, c_void};
use std::fmt;

use cudarc::driver::DriverError;
use cudarc::driver::sys::{CUdeviceptr, CUresult};

use super::driver::{DRIVER_LIBRARIES, device_error, load_first, unavailable};
use crate::dtype::DType;
use crate::error::Error;

/// The driver's `CUtensorMap`, to be passed to kernels by value.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct TensorMap([u64; 16]);

/// A matrix of 16-bit elements, and the box of it that one instruction copies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MappedMatrix {
    /// A multiple of 16.
    pub address: CUdeviceptr,
    pub dtype: DType,
    pub rows: usize,
    pub columns: usize,
    /// In elements; a multiple of 16 bytes where there is more than one row.
    pub row_stride: usize,
    /// At most 256.
    pub box_rows: u32,
    /// At most the 128 bytes of a row of the swizzle.
    pub box_columns: u32,
}

type EncodeTiled = unsafe extern "C" fn(
    *mut TensorMap,
    c_int,
    c_uint,
    *mut c_void,
    *const u64,
    *const u64,
    *const u32,
    *const u32,
    c_int,
    c_int,
    c_int,
    c_int,
) -> CUresult;

/// `cuTensorMapEncodeTiled`, which touches neither the device nor a context.
///
/// Not by cudarc's binding: that exists only for some versions of CUDA, and panics where the driver is too old.
#[derive(Clone, Copy)]
pub(super) struct TensorMapEncoder(Option<EncodeTiled>);

impl TensorMapEncoder {
    /// Looks the function up in the driver, which has it since CUDA 12.0.
    pub fn find() -> TensorMapEncoder {
        let library = load_first(DRIVER_LIBRARIES).ok();
        // SAFETY: the type is that of cuda.h.
        let function = library.as_ref().and_then(|library| unsafe {
            library.get::<EncodeTiled>(b"cuTensorMapEncodeTiled\0").ok().map(|symbol| *symbol)
        });
        // The function is used as long as the process lives.
        std::mem::forget(library);
        TensorMapEncoder(function)
    }

    pub fn is_present(&self) -> bool {
        self.0.is_some()
    }

    /// The map of a matrix in the 128-byte swizzle, with zeros outside.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without the driver's function, [`Error::Device`] if it refuses.
    pub fn encode(&self, matrix: &MappedMatrix) -> Result<TensorMap, Error> {
        const NO_INTERLEAVE: c_int = 0;
        const SWIZZLE_128_BYTES: c_int = 3;
        /// A box's row is half of it, and the next box along the row reads the other half.
        const L2_PROMOTION_256_BYTES: c_int = 3;
        const ZEROS_OUTSIDE: c_int = 0;
        let encode = self.0.ok_or_else(|| {
            unavailable(
                "the driver has no cuTensorMapEncodeTiled".to_owned(),
                "install a driver for CUDA 12.0 or later".to_owned(),
            )
        })?;
        let mut map = TensorMap([0; 16]);
        let extent = [matrix.columns as u64, matrix.rows as u64];
        let row_bytes = matrix.row_bytes();
        let boxes = [matrix.box_columns, matrix.box_rows];
        // SAFETY: the function reads two extents, one stride and two sizes of a box, and writes 128 bytes.
        let result = unsafe {
            encode(
                &mut map,
                matrix.data_type(),
                2,
                matrix.address as *mut c_void,
                extent.as_ptr(),
                &row_bytes,
                boxes.as_ptr(),
                [1, 1].as_ptr(),
                NO_INTERLEAVE,
                SWIZZLE_128_BYTES,
                L2_PROMOTION_256_BYTES,
                ZEROS_OUTSIDE,
            )
        };
        match result {
            CUresult::CUDA_SUCCESS => Ok(map),
            error => {
                Err(device_error(format!("making a tensor map of {matrix:?}"), DriverError(error)))
            }
        }
    }
}

impl fmt::Debug for TensorMapEncoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("TensorMapEncoder").field(&self.is_present()).finish()
    }
}

impl MappedMatrix {
    /// From one row to the next. A single row has no stride that validation has looked at.
    fn row_bytes(&self) -> u64 {
        const MULTIPLE: u64 = 16;
        let stride = if self.rows > 1 { self.row_stride } else { self.columns };
        (stride as u64).saturating_mul(2).next_multiple_of(MULTIPLE)
    }

    /// `CUtensorMapDataType`.
    fn data_type(&self) -> c_int {
        const FLOAT16: c_int = 6;
        const BFLOAT16: c_int = 9;
        if self.dtype == DType::F16 { FLOAT16 } else { BFLOAT16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_what_kernels_take() {
        assert_eq!((size_of::<TensorMap>(), align_of::<TensorMap>()), (128, 64));
    }

    #[test]
    fn a_driver_without_tensor_maps_is_an_error() {
        let matrix = MappedMatrix {
            address: 256,
            dtype: DType::F16,
            rows: 4,
            columns: 20,
            row_stride: 24,
            box_rows: 128,
            box_columns: 64,
        };
        let error = TensorMapEncoder(None).encode(&matrix).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("CUDA 12.0"), "{error}");
        assert_eq!(matrix.row_bytes(), 48);
        let one_row = MappedMatrix { rows: 1, row_stride: 20, ..matrix };
        assert_eq!(one_row.row_bytes(), 48, "of a stride that nobody follows");
    }
}
