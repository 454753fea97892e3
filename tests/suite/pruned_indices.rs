//! Indices that nobody has looked at: GPU kernels touch nothing outside their tensors, whatever they hold.

use siluette::{DType, Layout, PrunedGatedMlp};

const HIDDEN: usize = 40;
const INPUTS: usize = 24;
const FFN: usize = 32;
const OUTPUTS: usize = 16;

fn op(dtype: DType) -> PrunedGatedMlp {
    PrunedGatedMlp::new(HIDDEN, FFN, dtype)
        .and_then(|op| op.with_inputs(INPUTS))
        .and_then(|op| op.with_outputs(OUTPUTS))
        .and_then(|op| op.with_norm(1e-5))
        .unwrap()
}

/// Lists of both lengths: far out of range, just out of range, descending, all the same.
fn bad_lists(length: usize) -> [Vec<u32>; 5] {
    let descending = (0..length as u32).rev().collect();
    let beyond = (0..length as u32).map(|index| index * 5).collect();
    [vec![u32::MAX; length], vec![HIDDEN as u32; length], descending, vec![3; length], beyond]
}

/// Lists of which no two members belong to one feature: others make blocks write the same features, which the simulator
/// rightly calls a race.
fn bad_targets() -> impl Iterator<Item = Vec<u32>> {
    let [far, beside, _, _, beyond] = bad_lists(OUTPUTS);
    [far, beside, beyond].into_iter().cycle()
}

fn layout(dtype: DType, shape: &[usize]) -> Layout {
    Layout::contiguous(dtype, shape).unwrap()
}

/// Elements before and behind `out` that must stay as they are.
const FENCE: usize = 64;

#[cfg(feature = "cuda")]
mod cuda {
    use siluette::backend::cuda::CudaOptions;
    use siluette::cudarc::driver::CudaSlice;
    use siluette::{CudaTensor, CudaTensorMut, CudaWorkspace, PrunedGatedMlpArgs, f16};

    use super::*;
    use crate::cuda_support::{backend, random, upload};

    #[test]
    fn cuda_kernels_stay_inside_their_tensors() {
        let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
        let stream = context.new_stream().unwrap();
        let op = op(DType::F16);
        let weight = |shape: [usize; 2], seed| -> CudaSlice<f16> {
            upload(&stream, &random(layout(DType::F16, &shape), 0.3, seed), 0)
        };
        let (gate, up) = (weight([FFN, INPUTS], 1), weight([FFN, INPUTS], 2));
        let (down, norm) = (weight([OUTPUTS, FFN], 3), weight([1, HIDDEN], 4));
        for rows in [1, 3, 70] {
            let x = weight([rows, HIDDEN], 5);
            for (in_indices, out_indices) in bad_lists(INPUTS).iter().zip(bad_targets()) {
                let in_indices = stream.clone_htod(in_indices).unwrap();
                let out_indices = stream.clone_htod(&out_indices).unwrap();
                let fenced = vec![f16::NAN; rows * HIDDEN + 2 * FENCE];
                let mut memory = stream.clone_htod(&fenced).unwrap();
                let mut workspace = stream.alloc_zeros::<u8>(op.workspace_bytes(rows)).unwrap();
                let mut out = memory.slice_mut(FENCE..FENCE + rows * HIDDEN);
                let args = PrunedGatedMlpArgs::new(
                    CudaTensor::new(&x, &[rows, HIDDEN]).unwrap(),
                    CudaTensor::new(&in_indices, &[INPUTS]).unwrap(),
                    CudaTensor::new(&gate, &[FFN, INPUTS]).unwrap(),
                    CudaTensor::new(&up, &[FFN, INPUTS]).unwrap(),
                    CudaTensor::new(&down, &[OUTPUTS, FFN]).unwrap(),
                    CudaTensor::new(&out_indices, &[OUTPUTS]).unwrap(),
                    CudaTensorMut::new(&mut out, &[rows, HIDDEN]).unwrap(),
                )
                .norm_weight(CudaTensor::new(&norm, &[HIDDEN]).unwrap());
                let workspace = CudaWorkspace::new(&mut workspace);
                cuda.pruned_gated_mlp(&stream, &op, args, workspace).unwrap();
                let result = stream.clone_dtoh(&memory).unwrap();
                stream.synchronize().unwrap();
                let fences = [&result[..FENCE], &result[FENCE + rows * HIDDEN..]];
                assert!(fences.into_iter().flatten().all(|value| value.is_nan()), "{rows} rows");
            }
        }
    }
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use siluette::wgpu::Buffer;
    use siluette::{Backend, Error, PrunedGatedMlpArgs, Wgpu, WgpuTensor, WgpuWorkspace};

    use super::*;
    use crate::support::open;
    use crate::wgpu_plans::{read, storage, submit};

    fn floats(count: usize) -> Vec<u8> {
        (0..count).flat_map(|index| ((index % 17) as f32 / 9.0 - 1.0).to_ne_bytes()).collect()
    }

    fn tensor<'a>(buffer: &'a Buffer, shape: &[usize]) -> WgpuTensor<'a> {
        WgpuTensor::new(buffer, 0, layout(DType::F32, shape))
    }

    fn index(buffer: &Buffer, length: usize) -> WgpuTensor<'_> {
        WgpuTensor::new(buffer, 0, layout(DType::U32, &[length]))
    }

    #[test]
    fn wgsl_kernels_stay_inside_their_tensors() -> Result<(), Error> {
        if open(Backend::Wgpu).is_none() {
            return Ok(());
        }
        let context = Wgpu::open()?;
        let op = op(DType::F32);
        let first = storage(&context, &floats(FFN * INPUTS));
        let second = storage(&context, &floats(OUTPUTS * FFN));
        let norm = storage(&context, &floats(HIDDEN));
        let bytes = |indices: &[u32]| -> Vec<u8> {
            indices.iter().flat_map(|index| index.to_ne_bytes()).collect()
        };
        for rows in [1, 3, 20] {
            let x = storage(&context, &floats(rows * HIDDEN));
            let workspace = storage(&context, &vec![0; op.workspace_bytes(rows)]);
            for (in_indices, out_indices) in bad_lists(INPUTS).iter().zip(bad_targets()) {
                let in_indices = storage(&context, &bytes(in_indices));
                let out_indices = storage(&context, &bytes(&out_indices));
                let memory = storage(&context, &vec![0xFF; 4 * (rows * HIDDEN + 2 * FENCE)]);
                let out =
                    WgpuTensor::new(&memory, 4 * FENCE as u64, layout(DType::F32, &[rows, HIDDEN]));
                let args = PrunedGatedMlpArgs::new(
                    tensor(&x, &[rows, HIDDEN]),
                    index(&in_indices, INPUTS),
                    tensor(&first, &[FFN, INPUTS]),
                    tensor(&first, &[FFN, INPUTS]),
                    tensor(&second, &[OUTPUTS, FFN]),
                    index(&out_indices, OUTPUTS),
                    out,
                )
                .norm_weight(tensor(&norm, &[HIDDEN]));
                let workspace = WgpuWorkspace::whole(&workspace);
                submit(&context, &context.plan_pruned_gated_mlp(&op, args, workspace)?);
                let result = read(&context, &memory);
                let (before, rest) = result.split_at(4 * FENCE);
                let behind = &rest[4 * rows * HIDDEN..];
                assert!(before.iter().chain(behind).all(|&byte| byte == 0xFF), "{rows} rows");
            }
        }
        Ok(())
    }
}
