//! Where kernel images come from: the cache on disk and NVRTC.

use std::fs;
use std::path::{Path, PathBuf};

use siluette::backend::cuda::{Cuda, CudaOptions, KernelCache};
use siluette::{DType, Error, Layout, SiluMul, SiluMulArgs};

use crate::cuda_support::backend;

fn options(folder: &Path) -> CudaOptions {
    let mut options = CudaOptions::default();
    options.cache = KernelCache::Folder(folder.to_owned());
    options
}

fn prepare(cuda: &Cuda) -> Result<(), Error> {
    let layout = Layout::contiguous(DType::F32, &[2, 8])?;
    cuda.prepare(&SiluMul::new(8, DType::F32)?, &SiluMulArgs::new(layout, layout, layout))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// A backend of its own, so that nothing is loaded yet; `None` without a device.
fn fresh(options: CudaOptions) -> Option<Cuda> {
    backend(options).map(|(_, cuda)| cuda)
}

#[test]
fn images_are_kept_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cuda) = fresh(options(folder.path())) else { return };
    prepare(&cuda).unwrap();
    let [entry] = &entries(folder.path())[..] else { panic!("one image") };
    let stored = fs::metadata(entry).unwrap().modified().unwrap();
    prepare(&fresh(options(folder.path())).unwrap()).unwrap();
    assert_eq!(fs::metadata(entry).unwrap().modified().unwrap(), stored, "found, not made again");
}

#[test]
fn damaged_images_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cuda) = fresh(options(folder.path())) else { return };
    prepare(&cuda).unwrap();
    let entry = entries(folder.path()).remove(0);
    let whole = fs::read(&entry).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&[][..], &whole[..whole.len() / 2], b"garbage", &flipped] {
        fs::write(&entry, damaged).unwrap();
        prepare(&fresh(options(folder.path())).unwrap()).unwrap();
        assert_eq!(fs::read(&entry).unwrap(), whole);
    }
}

#[test]
fn an_unusable_cache_does_no_harm() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let Some(cuda) = fresh(options(file.path())) else { return };
    prepare(&cuda).unwrap();
    let mut without = CudaOptions::default();
    without.cache = KernelCache::None;
    prepare(&fresh(without).unwrap()).unwrap();
}

#[test]
fn concurrent_users_of_one_cache_all_succeed() {
    let folder = tempfile::tempdir().unwrap();
    if fresh(options(folder.path())).is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| prepare(&fresh(options(folder.path())).unwrap()).unwrap());
        }
    });
    assert_eq!(entries(folder.path()).len(), 1);
}

#[test]
fn a_missing_compiler_is_an_error_with_a_remedy() {
    let mut options = CudaOptions::default();
    options.cache = KernelCache::None;
    options.nvrtc_library = Some("libno_such_compiler.so".into());
    let Some(cuda) = fresh(options) else { return };
    let error = prepare(&cuda).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("libno_such_compiler.so"), "{error}");
}
