//! Calls on a caller's stream allocate nothing: no host memory either, once the kernels are loaded.
//!
//! A binary of its own, for the sake of its allocator.
#![cfg(feature = "cuda")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use siluette::backend::cuda::{Cuda, open_context};
use siluette::{
    CudaTensor, CudaTensorMut, CudaWorkspace, DType, Error, GatedMlp, GatedMlpArgs, SiluMul,
    SiluMulArgs, f16,
};

/// Counts what this thread asks for; the simulated driver's own memory does not come from here.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn enqueueing_allocates_no_host_memory() {
    const COLUMNS: usize = 64;
    let context = match open_context(0) {
        Ok(context) => context,
        Err(error @ Error::Unavailable { .. }) => {
            let required = std::env::var("SILUETTE_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|name| name.trim() == "cuda"), "{error}");
            println!("NOT RUN: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let cuda = Cuda::new(&context).unwrap();
    let stream = context.new_stream().unwrap();
    let silu_mul = SiluMul::new(COLUMNS, DType::F16).unwrap();
    let mlp = GatedMlp::new(COLUMNS, COLUMNS, DType::F16).unwrap().with_norm(1e-5).unwrap();
    for rows in [1, 5, 70] {
        let weight = stream.alloc_zeros::<f16>(COLUMNS * COLUMNS).unwrap();
        let norm = stream.alloc_zeros::<f16>(COLUMNS).unwrap();
        let x = stream.alloc_zeros::<f16>(rows * COLUMNS).unwrap();
        let mut out = stream.alloc_zeros::<f16>(rows * COLUMNS).unwrap();
        let mut workspace = stream.alloc_zeros::<u8>(mlp.workspace_bytes(rows)).unwrap();
        let mut call = || {
            let x = CudaTensor::new(&x, &[rows, COLUMNS])?;
            let weight = CudaTensor::new(&weight, &[COLUMNS, COLUMNS])?;
            let out_tensor = CudaTensorMut::new(&mut out, &[rows, COLUMNS])?;
            cuda.silu_mul(&stream, &silu_mul, SiluMulArgs::new(x, x, out_tensor))?;
            let out = CudaTensorMut::new(&mut out, &[rows, COLUMNS])?;
            let norm_weight = CudaTensor::new(&norm, &[COLUMNS])?;
            let args = GatedMlpArgs::new(x, weight, weight, weight, out).norm_weight(norm_weight);
            cuda.gated_mlp(&stream, &mlp, args, CudaWorkspace::new(&mut workspace))
        };
        call().unwrap();
        let before = ALLOCATIONS.get();
        call().unwrap();
        assert_eq!(ALLOCATIONS.get() - before, 0, "{rows} rows");
    }
}
