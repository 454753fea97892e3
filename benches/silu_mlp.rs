//! The fused SiLU MLPs on the CPU, against the speed at which the same weights can be read at all.
//!
//! Weights are those of several layers, more together than the last-level cache holds, and used in turn, as
//! in a model. Throughput is in bytes of weights: `ceiling` is its upper bound for few rows; for many,
//! `products` counts multiply-adds.
//!
//! `cargo bench --bench silu_mlp -- 'bf16/2048x8192'`

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use siluette::{
    Cpu, DType, Float, GatedMlp, GatedMlpArgs, SiluMul, SiluMulArgs, TensorMut, TensorRef,
    Workspace, bf16, f16,
};

/// Hidden features and neurons of SmolLM2 135M, of a 1 B and of a 7 B model.
const SHAPES: [(usize, usize); 3] = [(576, 1536), (2048, 8192), (4096, 11008)];
/// More than twice the last-level cache of most machines.
const COLD_BYTES: usize = 128 << 20;

struct Layer<T> {
    gate: Vec<T>,
    up: Vec<T>,
    down: Vec<T>,
}

/// Values that look random to the hardware and are neither zero nor denormal.
fn values<T: Float>(length: usize, scale: f32) -> Vec<T> {
    let mut state = 88_172_645_463_325_252u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        T::from_f32(((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * scale)
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn layers<T: Float>(hidden: usize, ffn: usize) -> Vec<Layer<T>> {
    let bytes = 3 * hidden * ffn * size_of::<T>();
    let matrix = || values(hidden * ffn, 0.1);
    (0..COLD_BYTES.div_ceil(bytes))
        .map(|_| Layer { gate: matrix(), up: matrix(), down: matrix() })
        .collect()
}

/// Reads every byte, on all threads, as fast as plain code can.
fn read(bytes: &[u8]) -> u64 {
    let words: &[u64] = bytemuck::cast_slice(bytes);
    let read_part = |part: &[u64]| {
        let mut sums = [0u64; 32];
        for chunk in part.chunks_exact(sums.len()) {
            for (sum, word) in sums.iter_mut().zip(chunk) {
                *sum ^= word;
            }
        }
        sums.iter().fold(0, |a, b| a ^ b)
    };
    words.par_chunks(1 << 17).map(read_part).reduce(|| 0, |a, b| a ^ b)
}

fn gated_mlp<T: Float>(criterion: &mut Criterion) {
    for (hidden, ffn) in SHAPES {
        let mut group = criterion.benchmark_group(format!("gated_mlp/{}/{hidden}x{ffn}", T::DTYPE));
        group.sample_size(20).measurement_time(Duration::from_secs(3));
        let layers = layers::<T>(hidden, ffn);
        let mut turn = layers.iter().cycle();
        group.throughput(Throughput::Bytes((3 * hidden * ffn * size_of::<T>()) as u64));
        group.bench_function("ceiling", |bencher| {
            bencher.iter(|| {
                let layer = turn.next().unwrap();
                [&layer.gate, &layer.up, &layer.down]
                    .map(|matrix| black_box(read(bytemuck::cast_slice(matrix))))
            });
        });
        let (cpu, mut workspace) = (Cpu::new(), Workspace::default());
        let op = GatedMlp::new(hidden, ffn, T::DTYPE).unwrap();
        for rows in [1, 8, 64, 512] {
            if rows > 8 {
                group.throughput(Throughput::Elements((3 * rows * hidden * ffn) as u64));
            }
            let x = values::<T>(rows * hidden, 2.0);
            let mut out = x.clone();
            group.bench_function(BenchmarkId::new("rows", rows), |bencher| {
                bencher.iter(|| {
                    let layer = turn.next().unwrap();
                    let args = GatedMlpArgs::new(
                        TensorRef::new(&x, &[rows, hidden]).unwrap(),
                        TensorRef::new(&layer.gate, &[ffn, hidden]).unwrap(),
                        TensorRef::new(&layer.up, &[ffn, hidden]).unwrap(),
                        TensorRef::new(&layer.down, &[hidden, ffn]).unwrap(),
                        TensorMut::new(&mut out, &[rows, hidden]).unwrap(),
                    );
                    cpu.gated_mlp(&op, args, &mut workspace).unwrap();
                });
            });
        }
        group.finish();
    }
}

fn silu_mul(criterion: &mut Criterion) {
    const COLUMNS: usize = 11008;
    let mut group = criterion.benchmark_group("silu_mul/bf16");
    for rows in [1, 512] {
        let shape = [rows, COLUMNS];
        let (gate, up) = (values::<bf16>(rows * COLUMNS, 8.0), values::<bf16>(rows * COLUMNS, 2.0));
        let mut out = gate.clone();
        let op = SiluMul::new(COLUMNS, DType::BF16).unwrap();
        group.throughput(Throughput::Bytes((3 * rows * COLUMNS * size_of::<bf16>()) as u64));
        group.bench_function(BenchmarkId::new("rows", rows), |bencher| {
            bencher.iter(|| {
                let args = SiluMulArgs::new(
                    TensorRef::new(&gate, &shape).unwrap(),
                    TensorRef::new(&up, &shape).unwrap(),
                    TensorMut::new(&mut out, &shape).unwrap(),
                );
                Cpu::new().silu_mul(&op, args).unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, gated_mlp::<f32>, gated_mlp::<bf16>, gated_mlp::<f16>, silu_mul);
criterion_main!(benches);
