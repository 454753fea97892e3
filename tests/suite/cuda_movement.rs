//! Gathers and scatters on CUDA with indices that no check has seen: nothing outside the tensors is touched.

use siluette::backend::cuda::CudaOptions;
use siluette::cudarc::driver::CudaSlice;
use siluette::{
    CudaTensor, CudaTensorMut, DType, GatherNorm, GatherNormArgs, NormScope, ScatterAdd,
    ScatterAddArgs, ScatterNormGather, ScatterNormGatherArgs,
};

use crate::cuda_support::backend;

const ROWS: usize = 2;
const FEATURES: usize = 40;
/// Out of range, out of order, twice: a quarter of them good.
const INDICES: [u32; 8] = [3, 40, u32::MAX, 17, 17, 2, 1 << 31, 39];

#[test]
fn wild_indices_gather_zeros() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let stream = context.default_stream();
    let x: Vec<f32> = (0..ROWS * FEATURES).map(|index| 1.0 + index as f32).collect();
    let x_on_device = stream.clone_htod(&x).unwrap();
    let weight = stream.clone_htod(&[1.0f32; FEATURES]).unwrap();
    let indices = stream.clone_htod(&INDICES).unwrap();
    for scope in [None, Some(NormScope::Full), Some(NormScope::Selected)] {
        let mut out: CudaSlice<f32> = stream.alloc_zeros(ROWS * INDICES.len()).unwrap();
        let mut op = GatherNorm::new(FEATURES, INDICES.len(), DType::F32).unwrap();
        let mut args = GatherNormArgs::new(
            CudaTensor::new(&x_on_device, &[ROWS, FEATURES]).unwrap(),
            CudaTensor::new(&indices, &[INDICES.len()]).unwrap(),
            CudaTensorMut::new(&mut out, &[ROWS, INDICES.len()]).unwrap(),
        );
        if let Some(scope) = scope {
            op = op.with_norm(1e-5, scope).unwrap();
            args = args.norm_weight(CudaTensor::new(&weight, &[FEATURES]).unwrap());
        }
        cuda.gather_norm(&stream, &op, args).unwrap();
        let out = stream.clone_dtoh(&out).unwrap();
        for (place, value) in out.iter().enumerate() {
            let index = INDICES[place % INDICES.len()] as usize;
            assert_eq!(*value == 0.0, index >= FEATURES, "{scope:?}: place {place}: {value}");
        }
    }
}

#[test]
fn wild_places_add_nothing() {
    let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
    let stream = context.default_stream();
    let residual = stream.clone_htod(&[1.0f32; ROWS * FEATURES]).unwrap();
    let weight = stream.clone_htod(&[1.0f32; FEATURES]).unwrap();
    let y = stream.clone_htod(&[1.0f32; ROWS * INDICES.len()]).unwrap();
    let indices = stream.clone_htod(&INDICES).unwrap();
    let wild: Vec<i32> =
        (0..FEATURES as i32).map(|j| [j, i32::MAX, i32::MIN, -2][j as usize % 4]).collect();
    let rank = stream.clone_htod(&wild).unwrap();
    for has_rank in [false, true] {
        let rank = || has_rank.then(|| CudaTensor::new(&rank, &[FEATURES]).unwrap());
        let tensor = |slice, shape: &[usize]| CudaTensor::new::<f32>(slice, shape).unwrap();
        let places = |slice| CudaTensor::new::<u32>(slice, &[INDICES.len()]).unwrap();
        let mut out: CudaSlice<f32> = stream.alloc_zeros(ROWS * FEATURES).unwrap();
        let op = ScatterAdd::new(FEATURES, INDICES.len(), DType::F32).unwrap();
        let mut args = ScatterAddArgs::new(
            tensor(&residual, &[ROWS, FEATURES]),
            tensor(&y, &[ROWS, INDICES.len()]),
            places(&indices),
            CudaTensorMut::new(&mut out, &[ROWS, FEATURES]).unwrap(),
        );
        args.rank = rank();
        cuda.scatter_add(&stream, &op, args).unwrap();
        let sum = stream.clone_dtoh(&out).unwrap();
        assert!(sum.iter().all(|sum| [1.0, 2.0].contains(sum)), "{sum:?}");
        if has_rank {
            let added = |j: usize| j.is_multiple_of(4) && j < INDICES.len();
            assert!((0..FEATURES).all(|j| (sum[j] == 2.0) == added(j)), "{sum:?}");
        }

        let mut gathered: CudaSlice<f32> = stream.alloc_zeros(ROWS * INDICES.len()).unwrap();
        let op =
            ScatterNormGather::new(FEATURES, INDICES.len(), INDICES.len(), DType::F32).unwrap();
        let mut args = ScatterNormGatherArgs::new(
            tensor(&residual, &[ROWS, FEATURES]),
            tensor(&y, &[ROWS, INDICES.len()]),
            places(&indices),
            tensor(&weight, &[FEATURES]),
            places(&indices),
            CudaTensorMut::new(&mut out, &[ROWS, FEATURES]).unwrap(),
            CudaTensorMut::new(&mut gathered, &[ROWS, INDICES.len()]).unwrap(),
        );
        args.out_rank = rank();
        cuda.scatter_norm_gather(&stream, &op, args).unwrap();
        assert_eq!(stream.clone_dtoh(&out).unwrap(), sum);
        for (place, value) in stream.clone_dtoh(&gathered).unwrap().iter().enumerate() {
            let index = INDICES[place % INDICES.len()] as usize;
            assert_eq!(*value == 0.0, index >= FEATURES, "place {place}: {value}");
        }
    }
}
