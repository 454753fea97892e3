//! Finding the driver, and its words.

use std::error::Error as _;
use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, sys};

use crate::error::{Backend, Error};

#[cfg(windows)]
pub(super) const DRIVER_LIBRARIES: &[&str] = &["nvcuda.dll"];
#[cfg(not(windows))]
pub(super) const DRIVER_LIBRARIES: &[&str] = &["libcuda.so", "libcuda.so.1"];

/// `cuLaunchKernelEx` and cubins of this crate's compilers need this: CUDA 11.8.
const OLDEST_DRIVER: u32 = 11_080;

/// Opens a device's primary context: the one that the CUDA runtime, and so PyTorch and candle, use too.
///
/// Prefer it to [`CudaContext::new`], which panics on a machine without a driver.
///
/// # Errors
/// [`Error::Unavailable`] if there is no driver, it is older than CUDA 11.8, or there is no such device.
pub fn open_context(ordinal: usize) -> Result<Arc<CudaContext>, Error> {
    probe(DRIVER_LIBRARIES)?;
    let version = driver_version()?;
    if version < OLDEST_DRIVER {
        return Err(unavailable(
            format!("the driver supports CUDA {}", version_text(version)),
            format!("install a driver for CUDA {} or later", version_text(OLDEST_DRIVER)),
        ));
    }
    let devices = CudaContext::device_count().map_err(|error| {
        unavailable(format!("cuInit failed: {}", words(error)), "check nvidia-smi".to_owned())
    })?;
    if i32::try_from(ordinal).map_or(true, |ordinal| ordinal >= devices) {
        return Err(unavailable(
            format!("device {ordinal} does not exist; there are {devices}"),
            "check CUDA_VISIBLE_DEVICES".to_owned(),
        ));
    }
    CudaContext::new(ordinal).map_err(|error| device_error("opening the device", error))
}

/// Whether one of these libraries can be loaded.
///
/// cudarc tries these names (and others) itself, but panics if there is none.
fn probe(names: &[&str]) -> Result<(), Error> {
    load_first(names).map(std::mem::forget).map_err(|tried| {
        unavailable(
            format!("the driver's library could not be loaded (tried: {tried})"),
            "install the NVIDIA driver or build without the feature `cuda`".to_owned(),
        )
    })
}

/// The first of the libraries that loads, or all names with the loader's words.
pub(crate) fn load_first<N: AsRef<std::ffi::OsStr>>(
    names: &[N],
) -> Result<libloading::Library, String> {
    let mut tried = Vec::new();
    for name in names {
        // SAFETY: the names are those of NVIDIA's driver and compiler, or a path of the caller's choice;
        // their initialisers have no preconditions.
        match unsafe { libloading::Library::new(name.as_ref()) } {
            Ok(library) => return Ok(library),
            Err(error) => {
                // The system's words are behind libloading's; some name the file, some do not.
                let words = error.source().map_or(error.to_string(), ToString::to_string);
                let name = name.as_ref().to_string_lossy();
                tried.push(if words.contains(&*name) { words } else { format!("{name}: {words}") });
            }
        }
    }
    Err(tried.join("; "))
}

/// The CUDA version that the driver supports, as `1000 * major + 10 * minor`.
pub(crate) fn driver_version() -> Result<u32, Error> {
    let mut version = 0;
    // SAFETY: writes one integer; may be called before `cuInit`.
    let result = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    result.map_err(|error| device_error("asking for the driver's version", error))?;
    Ok(version.unsigned_abs())
}

/// `12080` as `12.8`.
pub(crate) fn version_text(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Name and description of a driver's error.
pub(crate) fn words(error: DriverError) -> String {
    let text = |words: Result<&std::ffi::CStr, DriverError>| {
        words.map_or_else(|_| String::new(), |words| words.to_string_lossy().into_owned())
    };
    match (text(error.error_name()), text(error.error_string())) {
        (name, description) if name.is_empty() => format!("{:?} {description}", error.0),
        (name, description) => format!("{name}, {description}"),
    }
}

pub(crate) fn device_error(action: impl Into<String>, error: DriverError) -> Error {
    Error::Device { backend: Backend::Cuda, action: action.into(), message: words(error) }
}

pub(crate) fn unavailable(reason: String, remedy: String) -> Error {
    Error::Unavailable { backend: Backend::Cuda, reason, remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_driver_is_an_error_that_names_what_was_tried() {
        let error = probe(&["libno_such_driver.so", "libnor_this_one.so.1"]).unwrap_err();
        assert!(matches!(error, Error::Unavailable { backend: Backend::Cuda, .. }));
        let message = error.to_string();
        for name in ["libno_such_driver.so", "libnor_this_one.so.1", "install the NVIDIA driver"] {
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(version_text(12_080), "12.8");
        assert_eq!(version_text(13_000), "13.0");
    }
}
