//! NVRTC, NVIDIA's run-time compiler.

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null;

use super::architecture::Architecture;
use super::driver::{load_first, unavailable};
use super::sources::{self, Source};
use crate::error::{Backend, Error, Problem};

/// The kernels are ordinary C++17; nothing else is left to the compiler's defaults that changes results.
const OPTIONS: &[&str] = &["--std=c++17", "--ptxas-options=-v"];
const SUCCESS: c_int = 0;

type Program = *mut c_void;

/// NVRTC: compiles this crate's kernels, on a machine with or without a GPU.
///
/// [`Cuda`](super::Cuda) uses it by itself. It is public for those who want to compile ahead of time, or to see what
/// the compiler says about registers and spills.
#[derive(Debug)]
pub struct Compiler {
    functions: Functions,
    version: (u32, u32),
    architectures: Option<Vec<u32>>,
    // Last, so that it is unloaded after everything that points into it.
    _library: libloading::Library,
}

/// A kernel source compiled for one architecture.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Image {
    /// A cubin, or PTX for a virtual architecture.
    pub bytes: Vec<u8>,
    /// What the compiler said: registers, shared memory and spills of each kernel.
    pub log: String,
}

#[derive(Clone, Copy, Debug)]
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    log: Getter,
    cubin: Getter,
    ptx: Getter,
    /// Since NVRTC 11.2.
    architectures: Option<(
        unsafe extern "C" fn(*mut c_int) -> c_int,
        unsafe extern "C" fn(*mut c_int) -> c_int,
    )>,
}

/// A pair of functions: the length of something, and the thing.
#[derive(Clone, Copy, Debug)]
struct Getter {
    size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    bytes: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
}

/// The names of the kernel sources: `family/file`.
pub fn source_names() -> impl Iterator<Item = &'static str> {
    sources::SOURCES.iter().map(|source| source.name)
}

impl Compiler {
    /// Loads NVRTC from this file, or from where the system finds it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] names the libraries that were tried.
    pub fn open(library: Option<&Path>) -> Result<Compiler, Error> {
        let names: Vec<OsString> = match library {
            Some(path) => vec![path.into()],
            None => default_names(),
        };
        Compiler::open_first(&names)
    }

    fn open_first<N: AsRef<OsStr>>(names: &[N]) -> Result<Compiler, Error> {
        let library = load_first(names).map_err(|tried| {
            unavailable(
                format!("NVRTC could not be loaded (tried: {tried})"),
                "install the CUDA toolkit or the Python package nvidia-cuda-nvrtc, name its library in \
                 CudaOptions::nvrtc_library, or build with SILUETTE_CUDA_ARCHS"
                    .to_owned(),
            )
        })?;
        let functions = Functions::load(&library)?;
        let version = functions.version()?;
        let architectures = functions.architectures();
        Ok(Compiler { functions, version, architectures, _library: library })
    }

    /// NVRTC's version, major and minor.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The best architecture that this compiler knows for a device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it knows neither the device nor an earlier one.
    pub fn best_architecture(&self, device: (u32, u32)) -> Result<Architecture, Error> {
        Architecture::best(device, self.architectures.as_deref()).ok_or_else(|| {
            let ((major, minor), (nvrtc_major, nvrtc_minor)) = (device, self.version);
            unavailable(
                format!("NVRTC {nvrtc_major}.{nvrtc_minor} does not compile for sm_{major}{minor}"),
                "install another version of NVRTC".to_owned(),
            )
        })
    }

    /// Compiles one of [`source_names`].
    ///
    /// # Errors
    /// [`Problem::Value`] for a name that does not exist, [`Error::Device`] with NVRTC's log if it refuses.
    pub fn compile(&self, source: &str, architecture: Architecture) -> Result<Image, Error> {
        let source = sources::find(source).ok_or_else(|| {
            let expected = source_names().collect::<Vec<_>>().join(", ");
            Error::argument("cuda", "source", Problem::Value, expected, source, "")
        })?;
        self.compile_source(source, architecture)
    }

    /// The options that a source is compiled with.
    pub(crate) fn options(architecture: Architecture) -> Vec<String> {
        let architecture = format!("--gpu-architecture={architecture}");
        OPTIONS.iter().map(|option| (*option).to_owned()).chain([architecture]).collect()
    }

    pub(crate) fn compile_source(
        &self,
        source: &Source,
        architecture: Architecture,
    ) -> Result<Image, Error> {
        let action = || format!("compiling {} for {architecture} with NVRTC", source.name);
        let program = OpenProgram::new(&self.functions, source)
            .map_err(|error| self.functions.error(action(), error, String::new()))?;
        let options = Compiler::options(architecture);
        let compiled = program.compile(&options);
        let log = program.get(self.functions.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        let getter =
            if architecture.is_virtual() { self.functions.ptx } else { self.functions.cubin };
        match compiled.and_then(|()| program.get(getter)) {
            Ok(bytes) => Ok(Image { bytes, log }),
            Err(error) => Err(self.functions.error(action(), error, log)),
        }
    }
}

/// The names that cudarc tries, those of versions that it knows.
fn default_names() -> Vec<OsString> {
    let versions = [13, 12, 11];
    let names: Vec<String> = if cfg!(windows) {
        let version =
            |major: u32| [format!("nvrtc64_{major}0_0.dll"), format!("nvrtc64_{major}.dll")];
        versions.into_iter().flat_map(version).chain(["nvrtc.dll".to_owned()]).collect()
    } else {
        let version = |major: u32| format!("libnvrtc.so.{major}");
        ["libnvrtc.so".to_owned()].into_iter().chain(versions.into_iter().map(version)).collect()
    };
    names.into_iter().map(OsString::from).collect()
}

impl Functions {
    fn load(library: &libloading::Library) -> Result<Functions, Error> {
        // SAFETY: the types are those of nvrtc.h; the pointers are used while `Compiler` keeps the library.
        unsafe {
            Ok(Functions {
                version: symbol(library, "nvrtcVersion")?,
                error_string: symbol(library, "nvrtcGetErrorString")?,
                create: symbol(library, "nvrtcCreateProgram")?,
                compile: symbol(library, "nvrtcCompileProgram")?,
                destroy: symbol(library, "nvrtcDestroyProgram")?,
                log: getter(library, "ProgramLog")?,
                cubin: getter(library, "CUBIN")?,
                ptx: getter(library, "PTX")?,
                architectures: symbol(library, "nvrtcGetNumSupportedArchs")
                    .and_then(|count| Ok((count, symbol(library, "nvrtcGetSupportedArchs")?)))
                    .ok(),
            })
        }
    }

    fn version(&self) -> Result<(u32, u32), Error> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: writes two integers.
        let result = unsafe { (self.version)(&mut major, &mut minor) };
        match result {
            SUCCESS => Ok((major.unsigned_abs(), minor.unsigned_abs())),
            error => Err(self.error("asking for NVRTC's version".to_owned(), error, String::new())),
        }
    }

    fn architectures(&self) -> Option<Vec<u32>> {
        let (count, list) = self.architectures?;
        let mut length = 0;
        // SAFETY: writes one integer.
        if unsafe { count(&mut length) } != SUCCESS {
            return None;
        }
        let mut numbers = vec![0; usize::try_from(length).ok()?];
        // SAFETY: writes as many integers as it has just announced.
        let result = unsafe { list(numbers.as_mut_ptr()) };
        (result == SUCCESS).then(|| numbers.into_iter().map(c_int::unsigned_abs).collect())
    }

    fn error(&self, action: String, error: c_int, log: String) -> Error {
        // SAFETY: returns a static string for every integer.
        let words = unsafe { CStr::from_ptr((self.error_string)(error)) }.to_string_lossy();
        let message = if log.is_empty() { words.into_owned() } else { format!("{words}\n{log}") };
        Error::Device { backend: Backend::Cuda, action, message }
    }
}

/// # Safety
/// `T` must be the type of the function of this name.
unsafe fn symbol<T: Copy>(library: &libloading::Library, name: &str) -> Result<T, Error> {
    // SAFETY: the caller vouches for the type.
    let symbol = unsafe { library.get::<T>(name) };
    symbol.map(|symbol| *symbol).map_err(|error| {
        unavailable(
            format!("NVRTC has no function {name}: {error}"),
            "install NVRTC 11.8 or later".to_owned(),
        )
    })
}

/// # Safety
/// `name` must be one of the things that NVRTC gives out by length and bytes.
unsafe fn getter(library: &libloading::Library, name: &str) -> Result<Getter, Error> {
    // SAFETY: all these pairs have the same two types.
    unsafe {
        Ok(Getter {
            size: symbol(library, &format!("nvrtcGet{name}Size"))?,
            bytes: symbol(library, &format!("nvrtcGet{name}"))?,
        })
    }
}

/// A program, destroyed when dropped.
struct OpenProgram<'a> {
    functions: &'a Functions,
    program: Program,
}

impl<'a> OpenProgram<'a> {
    fn new(functions: &'a Functions, source: &Source) -> Result<OpenProgram<'a>, c_int> {
        let text = c_string(source.text);
        let name = c_string(&format!("{}.cu", source.name));
        let headers: Vec<CString> = source.headers.iter().map(|(_, text)| c_string(text)).collect();
        let names: Vec<CString> = source.headers.iter().map(|(name, _)| c_string(name)).collect();
        let (headers, names) = (pointers(&headers), pointers(&names));
        let mut program = std::ptr::null_mut();
        // SAFETY: all strings end in NUL and outlive the call; there are as many names as headers.
        let result = unsafe {
            (functions.create)(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                pointer_or_null(&headers),
                pointer_or_null(&names),
            )
        };
        if result == SUCCESS { Ok(OpenProgram { functions, program }) } else { Err(result) }
    }

    fn compile(&self, options: &[String]) -> Result<(), c_int> {
        let options: Vec<CString> = options.iter().map(|option| c_string(option)).collect();
        let options = pointers(&options);
        // SAFETY: the program is open; the options end in NUL and outlive the call.
        match unsafe {
            (self.functions.compile)(self.program, options.len() as c_int, options.as_ptr())
        } {
            SUCCESS => Ok(()),
            error => Err(error),
        }
    }

    fn get(&self, getter: Getter) -> Result<Vec<u8>, c_int> {
        let mut size = 0;
        // SAFETY: the program is open; writes one integer.
        match unsafe { (getter.size)(self.program, &mut size) } {
            SUCCESS => {}
            error => return Err(error),
        }
        let mut bytes = vec![0u8; size];
        // SAFETY: writes as many bytes as it has just announced.
        match unsafe { (getter.bytes)(self.program, bytes.as_mut_ptr().cast()) } {
            SUCCESS => Ok(bytes),
            error => Err(error),
        }
    }
}

impl Drop for OpenProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: the program is open and not used again; a failure leaves nothing to do.
        unsafe { (self.functions.destroy)(&mut self.program) };
    }
}

/// A copy that ends in NUL; anything behind a NUL inside is cut off, which no text of ours has.
fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

fn pointer_or_null(pointers: &[*const c_char]) -> *const *const c_char {
    if pointers.is_empty() { null() } else { pointers.as_ptr() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compiler_is_an_error_that_names_what_was_tried() {
        let error = Compiler::open(Some(Path::new("libno_such_compiler.so"))).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Unavailable { .. }), "{message}");
        for words in ["libno_such_compiler.so", "CudaOptions::nvrtc_library"] {
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn options_name_the_architecture() {
        let options = Compiler::options("sm_90a".parse().unwrap());
        assert!(options.iter().any(|option| option == "--gpu-architecture=sm_90a"));
        assert!(default_names().len() > 2);
    }
}
