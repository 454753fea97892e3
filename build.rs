//! Generates what the backends compile in. Writes to `OUT_DIR` only.

#[cfg(feature = "wgpu")]
#[path = "build/check.rs"]
mod check;
#[cfg(feature = "cuda")]
#[path = "build/cuda.rs"]
mod cuda;
#[cfg(feature = "wgpu")]
#[path = "build/reflect.rs"]
mod reflect;
#[cfg(feature = "wgpu")]
#[path = "build/registry.rs"]
mod registry;
#[cfg(feature = "wgpu")]
#[path = "build/splice.rs"]
mod splice;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    cuda::build();
    #[cfg(feature = "wgpu")]
    if let Err(problem) = registry::generate() {
        eprintln!("{problem}");
        std::process::exit(1);
    }
}
