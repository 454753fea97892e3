//! Index sets on a device: what is checked there is refused as on the host, and what is accepted has its inverse.

use siluette::{Error, IndexSet, Problem};

const FEATURES: usize = 5_000;

/// Indices that are no set, and the first position that shows it.
fn bad_lists() -> Vec<(Vec<u32>, usize)> {
    let good: Vec<u32> = (0..3_000).collect();
    let with = |position: usize, index: u32| {
        let mut list = good.clone();
        list[position] = index;
        (list, position)
    };
    // Within the first stride of a block and beyond it, in a lane and across warps; the first of several.
    let mut several = with(257, 256);
    several.0[2_999] = u32::MAX;
    several.0[300] = 0;
    let beyond = with(2_999, FEATURES as u32);
    vec![with(1, 0), with(255, 254), with(256, 255), with(2_999, 2_998), several, beyond]
}

/// What the host says about the same list.
#[track_caller]
fn assert_refused(error: Error, list: &[u32], position: usize) {
    let Error::Argument { argument, problem, .. } = &error else { panic!("{error}") };
    assert_eq!((argument.as_ref(), *problem), ("indices", Problem::Value), "{error}");
    let place = format!("{} at position {position}", list[position]);
    assert!(error.to_string().contains(&place), "{error}");
    let on_host = IndexSet::new(list.to_vec(), FEATURES).unwrap_err().to_string();
    assert!(on_host.contains(&place), "{on_host}");
}

fn good_sets() -> [IndexSet; 4] {
    let every = |step| (0..FEATURES as u32).step_by(step).collect();
    [
        IndexSet::empty(FEATURES).unwrap(),
        IndexSet::full(FEATURES).unwrap(),
        IndexSet::new(every(3), FEATURES).unwrap(),
        IndexSet::empty(0).unwrap(),
    ]
}

#[cfg(feature = "cuda")]
mod cuda {
    use siluette::backend::cuda::CudaOptions;
    use siluette::cudarc::driver::{CudaSlice, CudaStream};
    use siluette::{
        Cuda, CudaIndexSet, CudaTensor, CudaTensorMut, DType, HasLayout, ScatterAdd, ScatterAddArgs,
    };

    use super::*;
    use crate::cuda_support::backend;

    /// What scattering ones by the set's tensors gives: 1 for members, if indices and rank are right.
    fn scattered(cuda: &Cuda, stream: &std::sync::Arc<CudaStream>, set: &CudaIndexSet) -> Vec<f32> {
        let ones = stream.clone_htod(&vec![1.0f32; set.len().max(1)]).unwrap();
        let zeros: CudaSlice<f32> = stream.alloc_zeros(set.domain().max(1)).unwrap();
        let mut out: CudaSlice<f32> = stream.alloc_zeros(set.domain().max(1)).unwrap();
        let args = ScatterAddArgs::new(
            CudaTensor::new(&zeros, &[1, set.domain()]).unwrap(),
            CudaTensor::new(&ones, &[1, set.len()]).unwrap(),
            set.indices_tensor(),
            CudaTensorMut::new(&mut out, &[1, set.domain()]).unwrap(),
        );
        let op = ScatterAdd::new(set.domain(), set.len(), DType::F32).unwrap();
        cuda.scatter_add(stream, &op, args.rank(set.rank_tensor())).unwrap();
        stream.clone_dtoh(&out).unwrap()[..set.domain()].to_vec()
    }

    #[test]
    fn cuda_sets_are_those_of_the_host() {
        let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
        let stream = context.default_stream();
        for set in good_sets() {
            let uploaded = CudaIndexSet::upload(&stream, &set).unwrap();
            // Longer than the set: what lies behind it does not count.
            let mut list = set.indices().to_vec();
            list.extend([0, u32::MAX]);
            let list = stream.clone_htod(&list).unwrap();
            let checked =
                CudaIndexSet::from_device(&cuda, &stream, list, set.len(), set.domain()).unwrap();
            let members: Vec<f32> = set.to_mask().iter().map(|&byte| f32::from(byte)).collect();
            for on_device in [uploaded, checked] {
                assert_eq!((on_device.len(), on_device.domain()), (set.len(), set.domain()));
                assert_eq!(on_device.indices_tensor().layout().shape(), [set.len()]);
                if set.domain() > 0 {
                    assert_eq!(scattered(&cuda, &stream, &on_device), members);
                }
            }
        }
    }

    #[test]
    fn cuda_lists_that_are_no_set_are_refused() {
        let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
        let stream = context.default_stream();
        for (list, position) in bad_lists() {
            let slice = stream.clone_htod(&list).unwrap();
            let result = CudaIndexSet::from_device(&cuda, &stream, slice, list.len(), FEATURES);
            assert_refused(result.unwrap_err(), &list, position);
        }
        let short = stream.clone_htod(&[0u32]).unwrap();
        let error = CudaIndexSet::from_device(&cuda, &stream, short, 2, FEATURES).unwrap_err();
        assert!(matches!(error, Error::Argument { problem: Problem::Length, .. }), "{error}");
    }
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use siluette::{DType, Layout, ScatterAdd, ScatterAddArgs, Wgpu, WgpuIndexSet, WgpuTensor};

    use super::*;
    use crate::wgpu_plans::{context, read, storage, submit};

    fn words<T: bytemuck::NoUninit>(context: &Wgpu, contents: &[T]) -> siluette::wgpu::Buffer {
        let mut bytes = bytemuck::cast_slice::<T, u8>(contents).to_vec();
        // No buffer may be shorter.
        bytes.resize(bytes.len().max(16), 0);
        storage(context, &bytes)
    }

    /// As for CUDA.
    fn scattered(context: &Wgpu, set: &WgpuIndexSet) -> Vec<f32> {
        let float = |buffer, columns| {
            WgpuTensor::new(buffer, 0, Layout::contiguous(DType::F32, &[1, columns]).unwrap())
        };
        let ones = words(context, &vec![1.0f32; set.len()]);
        let zeros = words(context, &vec![0.0f32; set.domain()]);
        let out = words(context, &vec![f32::NAN; set.domain()]);
        let op = ScatterAdd::new(set.domain(), set.len(), DType::F32).unwrap();
        let args = ScatterAddArgs::new(
            float(&zeros, set.domain()),
            float(&ones, set.len()),
            set.indices_tensor(),
            float(&out, set.domain()),
        );
        let plan = context.plan_scatter_add(&op, args.rank(set.rank_tensor())).unwrap();
        submit(context, &plan);
        bytemuck::pod_collect_to_vec(&read(context, &out)[..4 * set.domain()])
    }

    #[test]
    fn wgpu_sets_are_those_of_the_host() {
        let Some(context) = context() else { return };
        for set in good_sets() {
            let uploaded = WgpuIndexSet::upload(&context, &set).unwrap();
            let mut list = set.indices().to_vec();
            list.extend([0, u32::MAX]);
            let list = words(&context, &list);
            let checked =
                WgpuIndexSet::from_device(&context, list, set.len(), set.domain()).unwrap();
            let members: Vec<f32> = set.to_mask().iter().map(|&byte| f32::from(byte)).collect();
            for on_device in [uploaded, checked] {
                assert_eq!((on_device.len(), on_device.domain()), (set.len(), set.domain()));
                if set.domain() > 0 {
                    assert_eq!(scattered(&context, &on_device), members);
                }
            }
        }
    }

    #[test]
    fn wgpu_lists_that_are_no_set_are_refused() {
        let Some(context) = context() else { return };
        for (list, position) in bad_lists() {
            let buffer = words(&context, &list);
            let result = WgpuIndexSet::from_device(&context, buffer, list.len(), FEATURES);
            assert_refused(result.unwrap_err(), &list, position);
        }
        let short = words(&context, &[0u32]);
        let error = WgpuIndexSet::from_device(&context, short, 5, FEATURES).unwrap_err();
        assert!(matches!(error, Error::Argument { problem: Problem::Length, .. }), "{error}");
    }
}
