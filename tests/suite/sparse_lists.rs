//! Lists of neurons that nobody has looked at: GPU kernels touch nothing outside their tensors, whatever they hold.

use siluette::{DType, Layout, SparseGatedMlp};

const HIDDEN: usize = 40;
const FFN: usize = 33;
const LISTED: usize = 60;
/// Elements before and behind `out` that must stay as they are.
const FENCE: usize = 64;

fn op(dtype: DType, transposed_down: bool) -> SparseGatedMlp {
    SparseGatedMlp::by_lists(HIDDEN, FFN, dtype).unwrap().with_transposed_down(transposed_down)
}

fn down_shape(transposed_down: bool) -> [usize; 2] {
    if transposed_down { [FFN, HIDDEN] } else { [HIDDEN, FFN] }
}

/// Members far out of range, just out of range, descending, far apart, good ones.
fn bad_neurons() -> [Vec<u32>; 5] {
    let of = |member: fn(u32) -> u32| (0..LISTED as u32).map(member).collect();
    [
        vec![u32::MAX; LISTED],
        vec![FFN as u32; LISTED],
        of(|place| LISTED as u32 - place),
        of(|place| place * 7),
        of(|place| place),
    ]
}

/// Offsets beyond the end, descending, and all kinds.
fn bad_offsets(rows: usize) -> [Vec<u32>; 4] {
    let of = |offset: fn(u32) -> u32| (0..=rows as u32).map(offset).collect();
    [
        vec![u32::MAX; rows + 1],
        of(|row| LISTED as u32 + row),
        of(|row| 50u32.saturating_sub(9 * row)),
        of(|row| [0, u32::MAX, 7, 59, 1 << 31, 3][row as usize % 6]),
    ]
}

fn layout(dtype: DType, shape: &[usize]) -> Layout {
    Layout::contiguous(dtype, shape).unwrap()
}

#[cfg(feature = "cuda")]
mod cuda {
    use siluette::backend::cuda::CudaOptions;
    use siluette::cudarc::driver::CudaSlice;
    use siluette::{CudaTensor, CudaTensorMut, CudaWorkspace, SparseGatedMlpArgs, f16};

    use super::*;
    use crate::cuda_support::{backend, random, upload};

    #[test]
    fn cuda_kernels_stay_inside_their_tensors() {
        let Some((context, cuda)) = backend(CudaOptions::default()) else { return };
        let stream = context.new_stream().unwrap();
        let weight = |shape: [usize; 2], seed| -> CudaSlice<f16> {
            upload(&stream, &random(layout(DType::F16, &shape), 0.3, seed), 0)
        };
        let (gate, up) = (weight([FFN, HIDDEN], 1), weight([FFN, HIDDEN], 2));
        for (rows, transposed_down) in [(1, false), (5, true), (5, false), (20, true), (70, false)]
        {
            let op = op(DType::F16, transposed_down);
            let shape = down_shape(transposed_down);
            let (x, down) = (weight([rows, HIDDEN], 5), weight(shape, 3));
            for (neurons, offsets) in
                bad_neurons().iter().flat_map(|neurons| bad_offsets(rows).map(|o| (neurons, o)))
            {
                let neurons = stream.clone_htod(neurons).unwrap();
                let offsets = stream.clone_htod(&offsets).unwrap();
                let fenced = vec![f16::NAN; rows * HIDDEN + 2 * FENCE];
                let mut memory = stream.clone_htod(&fenced).unwrap();
                let mut workspace = stream.alloc_zeros::<u8>(op.workspace_bytes(rows)).unwrap();
                let mut out = memory.slice_mut(FENCE..FENCE + rows * HIDDEN);
                let args = SparseGatedMlpArgs::new(
                    CudaTensor::new(&x, &[rows, HIDDEN]).unwrap(),
                    CudaTensor::new(&gate, &[FFN, HIDDEN]).unwrap(),
                    CudaTensor::new(&up, &[FFN, HIDDEN]).unwrap(),
                    CudaTensor::new(&down, &shape).unwrap(),
                    CudaTensorMut::new(&mut out, &[rows, HIDDEN]).unwrap(),
                )
                .neurons(CudaTensor::new(&neurons, &[LISTED]).unwrap())
                .neuron_offsets(CudaTensor::new(&offsets, &[rows + 1]).unwrap());
                let workspace = CudaWorkspace::new(&mut workspace);
                cuda.sparse_gated_mlp(&stream, &op, args, workspace).unwrap();
                let result = stream.clone_dtoh(&memory).unwrap();
                stream.synchronize().unwrap();
                let fences = [&result[..FENCE], &result[FENCE + rows * HIDDEN..]];
                assert!(fences.into_iter().flatten().all(|value| value.is_nan()), "{rows} rows");
                let written = &result[FENCE..FENCE + rows * HIDDEN];
                assert!(written.iter().all(|value| value.is_finite()), "{rows} rows");
            }
        }
    }
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use siluette::wgpu::Buffer;
    use siluette::{Backend, Error, SparseGatedMlpArgs, Wgpu, WgpuTensor, WgpuWorkspace};

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
        let weight = storage(&context, &floats(FFN * HIDDEN));
        let bytes = |indices: &[u32]| -> Vec<u8> {
            indices.iter().flat_map(|index| index.to_ne_bytes()).collect()
        };
        for (rows, transposed_down) in [(1, false), (5, true), (20, false)] {
            let op = op(DType::F32, transposed_down);
            let x = storage(&context, &floats(rows * HIDDEN));
            let workspace = storage(&context, &vec![0; op.workspace_bytes(rows)]);
            for (neurons, offsets) in
                bad_neurons().iter().flat_map(|neurons| bad_offsets(rows).map(|o| (neurons, o)))
            {
                let neurons = storage(&context, &bytes(neurons));
                let offsets = storage(&context, &bytes(&offsets));
                let memory = storage(&context, &vec![0xFF; 4 * (rows * HIDDEN + 2 * FENCE)]);
                let out =
                    WgpuTensor::new(&memory, 4 * FENCE as u64, layout(DType::F32, &[rows, HIDDEN]));
                let args = SparseGatedMlpArgs::new(
                    tensor(&x, &[rows, HIDDEN]),
                    tensor(&weight, &[FFN, HIDDEN]),
                    tensor(&weight, &[FFN, HIDDEN]),
                    tensor(&weight, &down_shape(transposed_down)),
                    out,
                )
                .neurons(index(&neurons, LISTED))
                .neuron_offsets(index(&offsets, rows + 1));
                let workspace = WgpuWorkspace::whole(&workspace);
                let plan = context.plan_sparse_gated_mlp(&op, args, workspace)?;
                assert!(rows > 8 || plan.dispatches() == 2, "two launches for few tokens");
                submit(&context, &plan);
                let result = read(&context, &memory);
                let (before, rest) = result.split_at(4 * FENCE);
                let (written, behind) = rest.split_at(4 * rows * HIDDEN);
                assert!(before.iter().chain(behind).all(|&byte| byte == 0xFF), "{rows} rows");
                let written: &[f32] = bytemuck::cast_slice(written);
                assert!(written.iter().all(|value| value.is_finite()), "{rows} rows");
            }
        }
        Ok(())
    }
}
