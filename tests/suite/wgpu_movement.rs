//! Gathers and scatters through wgpu with indices that no check has seen: nothing outside the tensors is read.

use siluette::wgpu;
use siluette::wgpu::BufferUsages;
use siluette::{
    DType, Error, GatherNorm, GatherNormArgs, Layout, NormScope, Plan, Problem, ScatterAdd,
    ScatterAddArgs, ScatterNormGather, ScatterNormGatherArgs, Wgpu, WgpuTensor,
};

use crate::support::is_required;

const ROWS: usize = 2;
const FEATURES: usize = 40;
const PLACES: usize = 8;
/// Out of range, out of order, twice: a quarter of them good.
const INDICES: [u32; PLACES] = [3, 40, u32::MAX, 17, 17, 2, 1 << 31, 39];

struct Buffers {
    context: Wgpu,
    ones: wgpu::Buffer,
    indices: wgpu::Buffer,
    rank: wgpu::Buffer,
    out: wgpu::Buffer,
    narrow: wgpu::Buffer,
}

impl Buffers {
    fn new() -> Option<Buffers> {
        let context = match Wgpu::open() {
            Ok(context) => context,
            Err(error @ Error::Unavailable { .. }) if !is_required("wgpu") => {
                println!("NOT RUN: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let storage = |contents: &[u8]| {
            let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: contents.len() as u64,
                usage: BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            context.queue().write_buffer(&buffer, 0, contents);
            buffer
        };
        let ones = [1.0f32; ROWS * FEATURES];
        let wild = |j: i32| [j, i32::MAX, i32::MIN, -2][j as usize % 4];
        let rank: Vec<i32> = (0..FEATURES as i32).map(wild).collect();
        Some(Buffers {
            ones: storage(bytemuck::cast_slice(&ones)),
            indices: storage(bytemuck::cast_slice(&INDICES)),
            rank: storage(bytemuck::cast_slice(&rank)),
            out: storage(bytemuck::cast_slice(&ones)),
            narrow: storage(bytemuck::cast_slice(&ones[..ROWS * PLACES])),
            context,
        })
    }

    fn run(&self, plan: &Plan, out: &wgpu::Buffer) -> Vec<f32> {
        let staging = self.context.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: out.size(),
            usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.context.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        plan.record(&mut pass);
        drop(pass);
        encoder.copy_buffer_to_buffer(out, 0, &staging, 0, out.size());
        self.context.queue().submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
        self.context.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        bytemuck::cast_slice(&staging.get_mapped_range(..).unwrap()).to_vec()
    }
}

fn float<'a>(buffer: &'a wgpu::Buffer, shape: &[usize]) -> WgpuTensor<'a> {
    WgpuTensor::new(buffer, 0, Layout::contiguous(DType::F32, shape).unwrap())
}

fn vector(buffer: &wgpu::Buffer, dtype: DType, length: usize) -> WgpuTensor<'_> {
    WgpuTensor::new(buffer, 0, Layout::contiguous(dtype, &[length]).unwrap())
}

fn assert_gathered(gathered: &[f32]) {
    for (place, value) in gathered.iter().enumerate() {
        let index = INDICES[place % PLACES] as usize;
        assert_eq!(*value == 0.0, index >= FEATURES, "place {place}: {value}");
    }
}

#[test]
fn wild_indices_gather_zeros() {
    let Some(buffers) = Buffers::new() else { return };
    for scope in [None, Some(NormScope::Full), Some(NormScope::Selected)] {
        let mut op = GatherNorm::new(FEATURES, PLACES, DType::F32).unwrap();
        let mut args = GatherNormArgs::new(
            float(&buffers.ones, &[ROWS, FEATURES]),
            vector(&buffers.indices, DType::U32, PLACES),
            float(&buffers.narrow, &[ROWS, PLACES]),
        );
        if let Some(scope) = scope {
            op = op.with_norm(1e-5, scope).unwrap();
            args = args.norm_weight(float(&buffers.ones, &[FEATURES]));
        }
        let plan = buffers.context.plan_gather_norm(&op, args).unwrap();
        assert_eq!(plan.dispatches(), 1);
        assert_gathered(&buffers.run(&plan, &buffers.narrow));
    }
}

#[test]
fn wild_places_add_nothing() {
    let Some(buffers) = Buffers::new() else { return };
    let wide = |buffer| float(buffer, &[ROWS, FEATURES]);
    let indices = vector(&buffers.indices, DType::U32, PLACES);
    for has_rank in [false, true] {
        let rank = has_rank.then(|| vector(&buffers.rank, DType::I32, FEATURES));
        let y = float(&buffers.ones, &[ROWS, PLACES]);
        let op = ScatterAdd::new(FEATURES, PLACES, DType::F32).unwrap();
        let mut args = ScatterAddArgs::new(wide(&buffers.ones), y, indices, wide(&buffers.out));
        args.rank = rank;
        let plan = buffers.context.plan_scatter_add(&op, args).unwrap();
        let sum = buffers.run(&plan, &buffers.out);
        assert!(sum.iter().all(|sum| [1.0, 2.0].contains(sum)), "{sum:?}");
        if has_rank {
            let added = |j: usize| j.is_multiple_of(4) && j < PLACES;
            assert!((0..FEATURES).all(|j| (sum[j] == 2.0) == added(j)), "{sum:?}");
        }

        let op = ScatterNormGather::new(FEATURES, PLACES, PLACES, DType::F32).unwrap();
        let mut args = ScatterNormGatherArgs::new(
            wide(&buffers.ones),
            y,
            indices,
            float(&buffers.ones, &[FEATURES]),
            indices,
            wide(&buffers.out),
            float(&buffers.narrow, &[ROWS, PLACES]),
        );
        args.out_rank = rank;
        let plan = buffers.context.plan_scatter_norm_gather(&op, args).unwrap();
        assert_eq!(plan.dispatches(), 1);
        assert_gathered(&buffers.run(&plan, &buffers.narrow));
        assert_eq!(buffers.run(&plan, &buffers.out), sum);
    }
}

#[test]
fn outputs_share_nothing() {
    let Some(buffers) = Buffers::new() else { return };
    let indices = vector(&buffers.indices, DType::U32, PLACES);
    let wide = |buffer| float(buffer, &[ROWS, FEATURES]);
    let op = ScatterNormGather::new(FEATURES, PLACES, PLACES, DType::F32).unwrap();
    let args = ScatterNormGatherArgs::new(
        wide(&buffers.ones),
        float(&buffers.ones, &[ROWS, PLACES]),
        indices,
        float(&buffers.ones, &[FEATURES]),
        indices,
        wide(&buffers.out),
        float(&buffers.out, &[ROWS, PLACES]),
    );
    let error = buffers.context.plan_scatter_norm_gather(&op, args).unwrap_err();
    assert_eq!(error.problem(), Some(Problem::Overlap));
}
