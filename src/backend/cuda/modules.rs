//! Loading kernels: from images made ahead of time, from the cache on disk, or through NVRTC.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cudarc::driver::sys::CUfunction_attribute_enum as FunctionAttribute;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use cudarc::nvrtc::Ptx;

use super::architecture::Architecture;
use super::cache::{DiskCache, Hash};
use super::capabilities::CudaCapabilities;
use super::compiler::Compiler;
use super::driver::{device_error, version_text, words};
use super::launch::{Kernel, Launch};
use super::options::CudaOptions;
use super::sources::{self, Source};
use crate::error::{Backend, Error};

/// Dynamic shared memory, static included, that a kernel gets without asking.
const DEFAULT_SHARED_BYTES: u32 = 48 << 10;

/// The kernels that have been loaded into a context.
#[derive(Debug)]
pub(super) struct Modules {
    device: CudaCapabilities,
    options: CudaOptions,
    cache: DiskCache,
    /// Read on every launch, written once a kernel.
    functions: RwLock<HashMap<Kernel, CudaFunction>>,
    /// Held while loading, so that no image is compiled twice.
    loader: Mutex<Loader>,
}

#[derive(Debug, Default)]
struct Loader {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    compiler: Option<Compiler>,
}

impl Modules {
    pub fn new(device: CudaCapabilities, options: CudaOptions) -> Modules {
        let cache = DiskCache::new(&options.cache);
        Modules { device, options, cache, functions: RwLock::default(), loader: Mutex::default() }
    }

    pub fn device(&self) -> &CudaCapabilities {
        &self.device
    }

    pub fn options(&self) -> &CudaOptions {
        &self.options
    }

    /// A kernel, if it is loaded.
    pub fn get(&self, kernel: &Kernel) -> Option<CudaFunction> {
        // The map is never left half-written, so that a panic elsewhere does no harm.
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(kernel).cloned()
    }

    /// A kernel, loaded now if need be, with the shared memory that a launch asks for.
    pub fn load(&self, context: &Arc<CudaContext>, launch: &Launch) -> Result<CudaFunction, Error> {
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = self.get(&launch.kernel) {
            return Ok(function);
        }
        let module = self.module(&mut loader, context, launch.kernel.source)?;
        let symbol = launch.kernel.symbol();
        let function = module
            .load_function(&symbol)
            .map_err(|error| device_error(format!("finding the kernel {symbol}"), error))?;
        self.allow_shared_memory(&function, launch)?;
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.insert(launch.kernel, function.clone());
        Ok(function)
    }

    fn allow_shared_memory(&self, function: &CudaFunction, launch: &Launch) -> Result<(), Error> {
        let kernel = launch.kernel;
        let failed = |error| device_error(format!("preparing the kernel {kernel}"), error);
        if launch.shared_bytes == 0 {
            return Ok(());
        }
        let fixed = function.shared_size_bytes().map_err(failed)?.unsigned_abs();
        let total = fixed.saturating_add(launch.shared_bytes);
        let limit = self.device.shared_memory_per_block;
        if total > limit {
            return Err(Error::Unsupported {
                op: kernel.name,
                backend: Backend::Cuda,
                reason: format!(
                    "{kernel} needs {total} bytes of shared memory a block; limit {limit}"
                ),
                remedy: "use another kernel, see CudaOptions".into(),
            });
        }
        if total <= DEFAULT_SHARED_BYTES {
            return Ok(());
        }
        function
            .set_attribute(
                FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                // At most the device's limit, which the driver gives as an `i32`.
                launch.shared_bytes as i32,
            )
            .map_err(failed)
    }

    fn module(
        &self,
        loader: &mut Loader,
        context: &Arc<CudaContext>,
        name: &'static str,
    ) -> Result<Arc<CudaModule>, Error> {
        if let Some(module) = loader.modules.get(name) {
            return Ok(module.clone());
        }
        let source = sources::find(name).ok_or_else(|| Error::Device {
            backend: Backend::Cuda,
            action: format!("finding the kernel source {name}"),
            message: "it is not part of this build".to_owned(),
        })?;
        let module = match best_image(source, self.device.compute_capability) {
            Some((_, image)) => {
                load_image(context, image, &format!("{name}, compiled ahead of time"))?
            }
            None => self.compile(loader, context, source)?,
        };
        loader.modules.insert(name, module.clone());
        Ok(module)
    }

    fn compile(
        &self,
        loader: &mut Loader,
        context: &Arc<CudaContext>,
        source: &Source,
    ) -> Result<Arc<CudaModule>, Error> {
        let compiler = match &mut loader.compiler {
            Some(compiler) => compiler,
            none => none.insert(Compiler::open(self.options.nvrtc_library.as_deref())?),
        };
        let architecture = compiler.best_architecture(self.device.compute_capability)?;
        let key = cache_key(source, architecture, compiler.version());
        let (major, minor) = compiler.version();
        let what = format!(
            "{}, compiled for {architecture} by NVRTC {major}.{minor}{}",
            source.name,
            self.hint_of_old_driver(compiler.version())
        );
        if let Some(image) = self.cache.load(key) {
            match load_image(context, &image, &what) {
                Ok(module) => return Ok(module),
                Err(error) => tracing::warn!(%error, "cached kernel image, compiling it again"),
            }
        }
        let image = compiler.compile_source(source, architecture)?;
        tracing::debug!(source = source.name, %architecture, log = image.log, "compiled");
        let module = load_image(context, &image.bytes, &what)?;
        self.cache.store(key, &image.bytes);
        Ok(module)
    }

    fn hint_of_old_driver(&self, (major, minor): (u32, u32)) -> String {
        let driver = self.device.driver_version;
        if 1000 * major + 10 * minor <= driver {
            return String::new();
        }
        format!(
            ", which is newer than the driver, for CUDA {}: update the driver or use an older NVRTC",
            version_text(driver)
        )
    }
}

fn load_image(
    context: &Arc<CudaContext>,
    image: &[u8],
    what: &str,
) -> Result<Arc<CudaModule>, Error> {
    // The driver finds the end of PTX by its NUL; a cubin carries its own length.
    let mut image = image.to_vec();
    if image.last() != Some(&0) {
        image.push(0);
    }
    context.load_module(Ptx::from_binary(image)).map_err(|error| Error::Device {
        backend: Backend::Cuda,
        action: format!("loading {what}"),
        message: words(error),
    })
}

/// The image compiled ahead of time that fits the device best.
fn best_image(source: &Source, device: (u32, u32)) -> Option<(Architecture, &'static [u8])> {
    source
        .images
        .iter()
        .filter_map(|&(architecture, image)| Some((architecture.parse().ok()?, image)))
        .filter(|(architecture, _): &(Architecture, _)| architecture.fitness(device).is_some())
        .max_by_key(|(architecture, _)| architecture.fitness(device))
}

/// Whether the images that a device is given have the kernels that only its own architecture can run.
pub(super) fn images_are_specific(device: (u32, u32)) -> bool {
    sources::SOURCES.iter().all(|source| image_is_specific(source, device))
}

/// The same of one source. What is compiled at run time is compiled for the device itself.
fn image_is_specific(source: &Source, device: (u32, u32)) -> bool {
    best_image(source, device).is_none_or(|(architecture, _)| architecture.is_specific())
}

/// Everything that an image depends on.
fn cache_key(source: &Source, architecture: Architecture, (major, minor): (u32, u32)) -> u128 {
    let mut hash = Hash::new();
    hash.add(source.name);
    hash.add(source.text);
    for (name, text) in source.headers {
        hash.add(name);
        hash.add(text);
    }
    for option in Compiler::options(architecture) {
        hash.add(&option);
    }
    hash.add(&format!("nvrtc {major}.{minor}"));
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source {
        name: "family/file",
        text: "text",
        headers: &[("a.cuh", "header")],
        images: &[("80", b"ampere"), ("86", b"ada"), ("90", b"hopper"), ("90a", b"wgmma")],
    };

    #[test]
    fn the_closest_image_is_taken() {
        let image = |device| best_image(&SOURCE, device).map(|(_, image)| image);
        assert_eq!(image((8, 0)), Some(&b"ampere"[..]));
        assert_eq!(image((8, 9)), Some(&b"ada"[..]));
        assert_eq!(image((9, 0)), Some(&b"wgmma"[..]));
        assert_eq!(image((7, 5)), None);
        assert_eq!(image((10, 0)), None);
    }

    #[test]
    fn an_image_for_sm_90_lacks_what_only_sm_90a_has() {
        const PLAIN: Source = Source { images: &[("80", b"ampere"), ("90", b"hopper")], ..SOURCE };
        const ELSEWHERE: Source = Source { images: &[("80", b"ampere")], ..SOURCE };
        assert!(image_is_specific(&SOURCE, (9, 0)));
        assert!(!image_is_specific(&PLAIN, (9, 0)));
        assert!(image_is_specific(&ELSEWHERE, (9, 0)), "compiled at run time");
    }

    #[test]
    fn keys_depend_on_everything_that_an_image_depends_on() {
        let architecture = |text: &str| text.parse::<Architecture>().unwrap();
        let key = cache_key(&SOURCE, architecture("80"), (12, 6));
        assert_eq!(key, cache_key(&SOURCE, architecture("80"), (12, 6)));
        let others = [
            cache_key(&SOURCE, architecture("86"), (12, 6)),
            cache_key(&SOURCE, architecture("80"), (12, 8)),
            cache_key(&Source { text: "other", ..SOURCE }, architecture("80"), (12, 6)),
            cache_key(&Source { name: "family/other", ..SOURCE }, architecture("80"), (12, 6)),
            cache_key(
                &Source { headers: &[("a.cuh", "other")], ..SOURCE },
                architecture("80"),
                (12, 6),
            ),
        ];
        for other in others {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn a_driver_older_than_the_compiler_is_named() {
        let device = CudaCapabilities::test_device(8, 0);
        let modules = Modules::new(device, CudaOptions::default());
        assert_eq!(modules.hint_of_old_driver((12, 8)), "");
        assert!(modules.hint_of_old_driver((13, 0)).contains("for CUDA 12.8"));
    }
}
